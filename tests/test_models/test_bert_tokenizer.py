import pytest
import torch

from florence_mm.models.tokenizers import BertTextTokenizer

SPECIAL = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
WORDS = ['two', 'dog', '##s', 'on', '.', "'", 'cafe', 'un', '##question', '##ably', 'red']
TEXTS = ["Two dogs on dog's CAFÉ.", 'unquestionably red', '', 'two zebras']
SIZE = 30522  # bert-base-uncased's


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A vocabulary as BERT is released, of as many words."""
    folder = tmp_path_factory.mktemp('bert')
    words = [*SPECIAL, *WORDS]
    words += [f'[unused{number}]' for number in range(SIZE - len(words))]
    (folder / 'vocab.txt').write_text('\n'.join(words) + '\n')
    return folder


def ids_of(*words):
    return [[*SPECIAL, *WORDS].index(word) for word in words]


def rows(batch):
    return [ids[real].tolist() for ids, real in zip(batch.input_ids, batch.mask, strict=True)]


def test_ids_are_those_of_the_peer_and_known(folder):
    from transformers import BertTokenizer

    ours, peer = BertTextTokenizer(str(folder)), BertTokenizer.from_pretrained(folder)
    assert rows(ours(TEXTS, 20)) == peer(TEXTS)['input_ids']
    assert rows(ours(TEXTS, 20)) == [
        ids_of('[CLS]', 'two', 'dog', '##s', 'on', 'dog', "'", '[UNK]', 'cafe', '.', '[SEP]'),
        ids_of('[CLS]', 'un', '##question', '##ably', 'red', '[SEP]'),
        ids_of('[CLS]', '[SEP]'),
        ids_of('[CLS]', 'two', '[UNK]', '[SEP]'),
    ]
    assert (ours.start_token_id, ours.end_token_id, ours.pad_token_id, ours.mask_token_id) == (2, 3, 0, 4)
    assert ours.vocab_size == SIZE and ours.special_ids == {0, 1, 2, 3, 4} and ours.extra_token_ids == {}
    assert ours.decode(ours(TEXTS, 20).input_ids[1]) == 'unquestionably red'
    (ids,) = rows(ours(['two <mask> on'], 20))
    assert ids == ids_of('[CLS]', 'two', '[MASK]', 'on', '[SEP]')


def test_extra_tokens_stand_behind_the_vocabulary_or_where_it_has_them(folder, tmp_path):
    extra = ('[DEC]', '[ENC]')
    tokenizer = BertTextTokenizer(str(folder), extra)
    assert tokenizer.extra_token_ids == {'[DEC]': 30522, '[ENC]': 30523} and tokenizer.vocab_size == 30524
    assert {30522, 30523} <= tokenizer.special_ids
    assert tokenizer.decode([30522, *ids_of('two', 'dog'), 30523]) == 'two dog'
    assert rows(tokenizer(TEXTS, 20)) == rows(BertTextTokenizer(str(folder))(TEXTS, 20))
    # a vocabulary that was saved with them
    tokenizer._tokenizer.save_pretrained(tmp_path)
    again = BertTextTokenizer(str(tmp_path), extra[::-1])
    assert again.extra_token_ids == {'[ENC]': 30523, '[DEC]': 30522} and again.vocab_size == 30524
    assert again.special_ids == tokenizer.special_ids


def test_a_long_text_keeps_its_end_if_so_told(folder):
    whole = ids_of('un', '##question', '##ably', 'red')
    for keep, kept in {'start': whole[:3], 'end': whole[1:]}.items():
        tokenizer = BertTextTokenizer(str(folder), keep=keep)
        batch = tokenizer(['unquestionably red', 'two'], 5)
        assert rows(batch) == [[2, *kept, 3], ids_of('[CLS]', 'two', '[SEP]')]
        assert tokenizer.num_truncated == 1
        assert rows(tokenizer(['unquestionably red'], 6)) == [[2, *whole, 3]]


def test_words_begin_where_no_hashes_stand(folder):
    tokenizer = BertTextTokenizer(str(folder))
    batch = tokenizer(['unquestionably red dogs', 'two'], 20)
    expected = [[1, 1, 0, 0, 1, 1, 0, 1], [1, 1, 1, 1, 1, 1, 1, 1]]  # padding is special
    assert torch.equal(tokenizer.word_starts(batch.input_ids), torch.tensor(expected) == 1)


def test_errors(folder, tmp_path):
    with pytest.raises(ValueError, match="keep of BertTextTokenizer is 'both'; give 'start' or 'end'"):
        BertTextTokenizer(keep='both')
    for extra in ('[DEC]', ['[DEC]', '[DEC]'], [''], [' [DEC]'], [3]):
        with pytest.raises(ValueError, match='extra_tokens of BertTextTokenizer is .*; give a list of different'):
            BertTextTokenizer(extra_tokens=extra)
    with pytest.raises(ValueError, match="names 'dog', which is a word of the vocabulary"):
        BertTextTokenizer(str(folder), ['dog'])
    with pytest.raises(FileNotFoundError, match='missing of the tokenizer does not exist'):
        BertTextTokenizer(str(tmp_path / 'missing'))
    with pytest.raises(ValueError, match='could be read from|holds no vocabulary'):
        BertTextTokenizer(str(tmp_path))
