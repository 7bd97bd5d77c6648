"""What holds for every registered tokenizer; a new one is tested by existing, see ``instances.py``."""

import pickle
from copy import deepcopy

import pytest
import torch
from instances import build, find_smalls, names_of
from kinds import Tokenizer

from florence_mm.models.tokenizers import TextTokenizer

SMALLS = find_smalls()
every_tokenizer = pytest.mark.parametrize('name', names_of(Tokenizer))
every_text_tokenizer = pytest.mark.parametrize('name', names_of(protocol='TextTokenizer'))
# words of one token and of several; one alone, and none
TEXTS = ['two dogs on the left', 'a', 'unquestionably red', '']
LONGEST = 60


def make(name, max_length=LONGEST, **kwargs):
    return SMALLS[name].kind.make(lambda **changes: build(name, **kwargs, **changes), max_length)


def rows(batch):
    """Lists of ids without padding."""
    return [ids[real].tolist() for ids, real in zip(batch.input_ids, batch.mask, strict=True)]


@every_tokenizer
def test_ids_lie_between_start_and_end_and_mean_the_text(name):
    tokenizer, tokenize = make(name)
    start, end, pad = SMALLS[name].kind.special(tokenizer)
    batch = tokenize(TEXTS)
    assert batch.input_ids.dtype == torch.int64 and batch.mask.dtype == torch.bool
    assert batch.input_ids.device.type == batch.mask.device.type == 'cpu'
    assert int(batch.input_ids.min()) >= 0 and int(batch.input_ids.max()) < tokenizer.vocab_size
    for text, ids in zip(TEXTS, rows(batch), strict=True):
        assert (ids[0], ids[-1]) == (start, end) and start != end
        assert not {start, end} & set(ids[1:-1])
        assert tokenizer.decode(ids[1:-1]) == text
        assert (len(ids) == 2) == (text == '')
    assert len(rows(batch)[2]) > 4  # some words have several tokens
    assert (batch.input_ids[~batch.mask] == pad).all() and not batch.mask.all()


@every_tokenizer
def test_a_text_alone_has_the_ids_it_has_in_company_and_no_padding(name):
    _, tokenize = make(name)
    together = tokenize(TEXTS)
    lengths = together.mask.sum(1)
    assert together.input_ids.shape == (len(TEXTS), int(lengths.max()))
    # padding lies behind
    assert torch.equal(together.mask, torch.arange(int(lengths.max())) < lengths[:, None])
    for text, ids in zip(TEXTS, rows(together), strict=True):
        alone = tokenize([text])
        assert alone.input_ids.tolist() == [ids] and alone.mask.all()
    assert rows(tokenize(TEXTS[::-1] + TEXTS)) == rows(together)[::-1] + rows(together)


@every_tokenizer
def test_a_longer_text_keeps_its_first_tokens_and_is_counted(name):
    _, tokenize = make(name)
    whole = rows(tokenize(TEXTS))
    longest = len(whole[0]) - 1
    tokenizer, tokenize = make(name, longest)
    cut = rows(tokenize(TEXTS))
    _, end, _ = SMALLS[name].kind.special(tokenizer)
    assert cut[0] == [*whole[0][: longest - 1], end]
    assert [len(ids) for ids in cut] == [min(len(ids), longest) for ids in whole]
    count = sum(len(ids) > longest for ids in whole)
    assert tokenizer.num_truncated == count >= 1
    tokenize(TEXTS[1:2])
    assert tokenizer.num_truncated == count
    tokenize([TEXTS[0]] * 3)
    assert tokenizer.num_truncated == count + 3


@every_tokenizer
def test_one_text_is_no_list(name):
    _, tokenize = make(name)
    with pytest.raises(TypeError, match="got one text, 'a dog'; put it into a list"):
        tokenize('a dog')
    with pytest.raises(TypeError, match='text 1 of 2 is a int, 3; give strings'):
        tokenize(['a', 3])


@every_tokenizer
def test_copies_in_workers_and_under_any_scope_give_the_same_ids(name):
    tokenizer, tokenize = make(name)
    expected = tokenize(TEXTS)
    kind = SMALLS[name].kind
    for other in (pickle.loads(pickle.dumps(tokenizer)), deepcopy(tokenizer)):
        assert torch.equal(kind.make(lambda other=other, **_: other, LONGEST)[1](TEXTS).input_ids, expected.input_ids)
    for scope in ('mmpretrain', 'mmdet', 'mmaction'):
        other, tokenize = make(name, scope=scope)
        assert type(other) is type(tokenizer)
        assert torch.equal(tokenize(TEXTS).input_ids, expected.input_ids)


# --- of fusion models -------------------------------------------------------------------------------------------------


@every_text_tokenizer
def test_the_mask_token_is_special_and_stands_for_itself(name):
    tokenizer: TextTokenizer = make(name)[0]
    start, end, pad = SMALLS[name].kind.special(tokenizer)
    mask = tokenizer.mask_token_id
    assert {start, end, mask} <= tokenizer.special_ids and mask not in (start, end, pad)
    assert all(0 <= token < tokenizer.vocab_size for token in tokenizer.special_ids)
    (ids,) = rows(tokenizer(['two <mask> on'], LONGEST))
    plain = [token for text in ('two', 'on') for token in rows(tokenizer([text], LONGEST))[0][1:-1]]
    assert ids.count(mask) == 1
    assert tokenizer.decode(ids).split() == ['two', 'on']
    assert len(ids) >= len(plain) + 3
    assert tokenizer.decode(ids) == tokenizer.decode(torch.tensor(ids))


@every_text_tokenizer
def test_words_start_where_they_start(name):
    tokenizer = make(name)[0]
    batch = tokenizer(TEXTS, LONGEST)
    starts = tokenizer.word_starts(batch.input_ids)
    assert starts.dtype == torch.bool and starts.shape == batch.input_ids.shape
    for text, ids, row, real in zip(TEXTS, rows(batch), starts, batch.mask, strict=True):
        begins = row[real].tolist()
        assert begins[0] and begins[-1]  # start and end
        words = []
        for token, new in zip(ids[1:-1], begins[1:-1], strict=True):
            if new:
                words.append([])
            words[-1].append(token)
        assert [tokenizer.decode(word) for word in words] == text.split()
        # alone as in company
        assert tokenizer.word_starts(torch.tensor([ids]))[0].tolist() == begins


@every_text_tokenizer
def test_no_text_and_no_room_are_refused(name):
    tokenizer = make(name)[0]
    with pytest.raises(ValueError, match='the tokenizer got no texts; give at least one'):
        tokenizer([], LONGEST)
    with pytest.raises(ValueError, match='max_length is 2; give at least 3'):
        tokenizer(['a'], 2)
