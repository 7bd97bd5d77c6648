import gzip
import pickle
import random
import string

import pytest
from torch.utils.data import DataLoader

from florence_mm.models.tokenizers import CLIPTokenizer
from florence_mm.models.tokenizers.clip import find_vocabulary

TRICKY = [
    'a photo of a cat',
    '',
    '  Two\tspaces \n and CAPITALS  ',
    "it's 12 o'clock, they'LL've gone—10,000 km² away",
    'naïve café Straße İstanbul ſ ﬁ ǆ № ½',
    '日本語のテキスト 👍🏽👩‍👩‍👧 \u200b zero\xa0width',
    'fish &amp; chips &lt;b&gt; &amp;amp; &#x27; & ; &notanentity',
    'mojibake â€™ Ã© âœ” \x1b[1mbold\x1b[0m \x00null',
    '“curly” ‘quotes’… <start_of_text> inside <END_OF_TEXT> twice',
    '####///...!!!???',
    'supercalifragilisticexpialidocious' * 3,
    '1234567890 3.14e-10',
]


def test_known_ids():
    ids = CLIPTokenizer()(['a photo of a cat'])
    assert ids.shape == (1, 77)
    assert ids[0, :8].tolist() == [49406, 320, 1125, 539, 320, 2368, 49407, 0]
    assert not ids[0, 7:].any()


def test_same_ids_as_open_clip():
    from open_clip.tokenizer import SimpleTokenizer

    ours, theirs = CLIPTokenizer(), SimpleTokenizer()
    draw = random.Random(0)
    texts = [*TRICKY, ' '.join(TRICKY)]
    letters = list(string.printable) + ['é', 'ß', '日', '&amp;', '\x85', '<end_of_text>', "'s", '²', '👍']
    texts += [''.join(draw.choices(letters, k=draw.randrange(60))) for _ in range(1500)]
    assert [ours.encode(text) for text in texts] == [theirs.encode(text) for text in texts]
    assert ours(texts).equal(theirs(texts))


def test_cut_keeps_the_end_and_is_reported_once(monkeypatch):
    said = []
    monkeypatch.setattr('florence_mm.models.tokenizers.protocol.print_log', lambda message, *_: said.append(message))
    tokenizer = CLIPTokenizer(context_length=6)
    ids = tokenizer(['a a a a', 'a a a a a', 'a a a a a a'])
    tokenizer(['a a a a a'])
    a = 320
    assert ids.tolist() == [[49406, a, a, a, a, 49407]] * 3
    assert len(said) == 1
    assert said[0].startswith('2 of 3 texts have more than 6 tokens with start and end, and are cut')
    assert tokenizer.num_truncated == 3


def test_context_of_the_paper():
    assert CLIPTokenizer(context_length=76)(['word ' * 200]).shape == (1, 76)


def test_survives_pickling_and_worker_processes():
    tokenizer = CLIPTokenizer(context_length=12, vocab_size=2000)
    state = pickle.dumps(tokenizer)
    assert len(state) < 1000  # the path, not the vocabulary
    assert pickle.loads(state)(TRICKY).equal(tokenizer(TRICKY))
    loader = DataLoader(TRICKY, batch_size=5, num_workers=1, collate_fn=tokenizer, multiprocessing_context='spawn')
    for batch, start in zip(loader, range(0, 99, 5), strict=False):
        assert batch.equal(tokenizer(TRICKY[start : start + 5]))


def test_smaller_vocabulary():
    # the first merges of the file: 'i n</w>'-like pairs of two letters, so no word survives whole
    tokenizer = CLIPTokenizer(vocab_size=514)
    ids = tokenizer(['ab'])[0, :4].tolist()
    # bytes are numbered from '!' on: a is 64, b is 65; the last of a word is 256 higher
    assert ids == [512, ord('a') - 33, 256 + ord('b') - 33, 513]
    assert CLIPTokenizer(vocab_size=4000)(TRICKY).max() == 3999


def test_local_vocabulary(tmp_path):
    with gzip.open(find_vocabulary(), 'rt', encoding='utf-8') as file:
        head = [next(file) for _ in range(101)]
    path = tmp_path / 'merges.txt'
    path.write_text(''.join(head), encoding='utf-8')
    tokenizer = CLIPTokenizer(vocab_file=path, vocab_size=614)
    assert tokenizer(TRICKY).equal(CLIPTokenizer(vocab_size=614)(TRICKY))
    with pytest.raises(ValueError, match=r'merges.txt gives 100 merges and vocab_size 49408 needs 48894'):
        CLIPTokenizer(vocab_file=path)
    with pytest.raises(FileNotFoundError, match='nowhere.txt does not exist'):
        CLIPTokenizer(vocab_file=tmp_path / 'nowhere.txt')


def test_bad_input():
    tokenizer = CLIPTokenizer()
    with pytest.raises(TypeError, match="got one text, 'a cat'"):
        tokenizer('a cat')
    with pytest.raises(TypeError, match='text 1 of 2 is a NoneType'):
        tokenizer(['a cat', None])
    with pytest.raises(ValueError, match='context_length is 2'):
        CLIPTokenizer(context_length=2)
