import random

import pytest
from mmpretrain.evaluation.metrics.vqa import _process_digit_article, _process_punctuation

from florence_mm.errors import DataError
from florence_mm.language.answers import _CONTRACTIONS, normalize_answer, read_answers, soft_scores


@pytest.mark.parametrize(
    ('answer', 'normalized'),
    [
        ('Yes.', 'yes'),
        ('a dog', 'dog'),
        ('An apple on the table', 'apple on table'),
        ('The twenty-two dogs.', 'twenty 2 dogs'),  # a hyphen between letters becomes a blank
        ('two', '2'),
        ('none', '0'),
        ('ten', '10'),
        ('eleven', 'eleven'),
        ('1,000', '1000'),  # a comma in a number goes, and then every mark does
        ('1,000-2,000', '10002000'),
        ('2.5', '2.5'),
        ('p.m.', 'pm'),
        ('red, white', 'red white'),
        ('red,white', 'red white'),
        ('"stop" sign', 'stop sign'),
        ('dont know', "don't know"),
        ("couldnt've", "couldn't've"),
        (' two\tmen\n', '2 men'),
        ('?!', ''),
    ],
)
def test_normalized_by_hand(answer, normalized):
    assert normalize_answer(answer) == normalized


def test_normalized_as_the_public_code():
    # mmpretrain has a copy of it
    def theirs(text):
        return _process_digit_article(_process_punctuation(text.replace('\n', ' ').replace('\t', ' ').strip()))

    pieces = [*'.,;:!?/-_()[]{}"=+\\><@`\'', ' ', ' ', 'a', 'An', 'the', 'two', 'TEN', '7', '1,5', '2.5', 'dog', 'Dont']
    rng = random.Random(0)
    for _ in range(3000):
        text = ''.join(rng.choice(pieces) for _ in range(rng.randint(1, 9)))
        assert normalize_answer(text) == theirs(text)
    # every contraction the two know, and every known form once more
    for word in [*_CONTRACTIONS, *_CONTRACTIONS.values(), "let's", "she's", 'hes', 'lets', 'somebodyd', "y'all'dve"]:
        assert normalize_answer(word) == theirs(word), word
    assert len(_CONTRACTIONS) > 100


def test_soft_scores():
    said = ['2'] * 4 + ['two'] + ['3'] * 3 + ['a dog', 'Dog.']
    assert soft_scores(said) == {'2': 1.0, '3': 0.9, 'dog': 0.6}
    assert soft_scores(['x'] * 9 + ['y']) == {'x': 1.0, 'y': 0.3}


def test_encodings_of_a_vocabulary(tmp_path):
    file = tmp_path / 'answers.txt'
    file.write_bytes(b'\xef\xbb\xbfyes\nno\n')  # as some editors begin a file
    assert read_answers(file) == ['yes', 'no']
    file.write_bytes(b'caf\xe9\n')
    with pytest.raises(DataError, match='answers.txt is not UTF-8 text'):
        read_answers(file)
