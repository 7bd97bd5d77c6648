"""Normalised text and its label, against values worked out by hand."""

import hashlib

import pytest

from florence_mm.language.labels import is_blank, normalize_text, text_label


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('Dog', 'dog'),
        ('  a  DOG\n on grass. ', 'a dog on grass'),
        ('Stra\u00dfe', 'strasse'),
        ('\uff24\uff4f\uff47', 'dog'),
        ('3.5 mm', '3.5 mm'),
    ],
)
def test_normalize(text, expected):
    assert normalize_text(text) == expected


def test_equal_text_equal_label_and_63_bits():
    digest = hashlib.blake2b(b'dog', digest_size=8).digest()
    assert text_label('Dog.') == text_label(' dog') == int.from_bytes(digest, 'big') // 2
    assert text_label('dog') != text_label('dogs')
    assert all(0 <= text_label(f'text {i}') < 2**63 for i in range(1000))


def test_label_is_the_same_in_another_process(fresh_process):
    code = 'from florence_mm.language.labels import text_label; print(text_label("A dog"))'
    assert int(fresh_process(code).stdout) == text_label('a dog')


def test_empty_text_is_refused():
    with pytest.raises(ValueError, match='empty after normalisation'):
        text_label(' . ')


@pytest.mark.parametrize(
    'text', ['\u200b', ' \u200d. ', '\ufeff', '\u3164\u2800', '\ufe0f', '\u0301', '\x00', '\u2028']
)
def test_a_text_of_invisible_characters_is_blank(text):
    assert is_blank(text)
    with pytest.raises(ValueError, match='empty after normalisation'):
        text_label(text)


@pytest.mark.parametrize(
    'text', ['a', '7', '?', '\u200bdog', '\u72ac', '\u0e2a\u0e38\u0e19\u0e31\u0e02', '\U0001f436', '-', '\ue000']
)
def test_whatever_can_be_seen_is_not_blank(text):
    assert not is_blank(text)
