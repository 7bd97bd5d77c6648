"""Spacing of written texts."""

import pytest

from florence_mm.language.spacing import join_punctuation


@pytest.mark.parametrize(
    ('written', 'printed'),
    [
        ('two digits : a nine , and a nine .', 'two digits: a nine, and a nine.'),
        ("the dog ' s ball", "the dog's ball"),
        ("i don 't know !", "i don't know!"),
        ('a sign of 3 .5 metres', 'a sign of 3 .5 metres'),
        ('a plain caption', 'a plain caption'),
        ("a sign that says ' stop '", "a sign that says ' stop '"),
        ('', ''),
    ],
)
def test_spaces_before_punctuation_go(written, printed):
    assert join_punctuation(written) == printed
    assert join_punctuation(printed) == printed
