"""The share of documents whose captions are exchanged with their pictures, of models whose captions are known."""

from types import SimpleNamespace

import pytest
import torch

from tools.misc.exchanged_documents import exchanged_share, named_digits

NAMES = ['zero', 'one', 'two', 'three', 'four', 'five']


class _Writer:
    """Write the digit that the last picture of a document holds, and in some places another."""

    def __init__(self, wrong=()) -> None:
        self.wrong, self.prompts = set(wrong), []

    def find_head(self, role):
        assert role == 'write'
        return self

    def write_behind(self, model, latents, pictures_of, prompts):
        self.prompts += prompts
        return [SimpleNamespace(text=f'a {self._name(latents, own)}') for own in pictures_of]

    def _name(self, latents, own):
        return 'nine' if tuple(own) in self.wrong else NAMES[int(latents[own[-1], 0, 0])]


def _pictures(*digits):
    return torch.tensor(digits, dtype=torch.float32).reshape(-1, 1, 1)


def test_captions_that_follow_their_pictures_are_exchanged():
    share, count, written = exchanged_share(_Writer(), _pictures(0, 1, 2, 3))
    assert (share, count) == (1.0, 2)
    assert written == [('a zero', 'a one'), ('a two', 'a three')]


def test_a_caption_that_depends_on_its_place_is_not_exchanged():
    # the picture of 3 is a nine where it stands second, so that one of two documents is not exchanged
    share, count, _ = exchanged_share(_Writer(wrong=[(2, 3)]), _pictures(0, 1, 2, 3))
    assert (share, count) == (0.5, 2)


def test_documents_whose_captions_name_the_same_show_nothing():
    share, count, _ = exchanged_share(_Writer(), _pictures(4, 4, 0, 5, 1))  # the last picture has no neighbour
    assert (share, count) == (1.0, 1)


def test_a_model_that_never_looks_is_not_exchanged():
    same = _Writer(wrong=[(0,), (1,), (0, 1), (1, 0)])
    assert exchanged_share(same, _pictures(0, 1))[:2] == (0.0, 0)


def test_all_captions_begin_with_the_same_words():
    writer = _Writer()
    exchanged_share(writer, _pictures(0, 1), 'a picture of')
    assert writer.prompts == [
        '<image>a picture of',
        '<image>a picture of a zero<|endofchunk|><image>a picture of',
        '<image>a picture of',
        '<image>a picture of a one<|endofchunk|><image>a picture of',
    ]


@pytest.mark.parametrize(
    ('text', 'digits'),
    [
        ('two sixes and a five', ['five', 'six']),
        ('there are three fives', ['five']),
        ('an eight , a three and a three', ['eight', 'three']),
        ('two digits: a two and a red one', ['one', 'two']),
        ('one digit, a zero', ['zero']),
        ('a dark background', []),
    ],
)
def test_digits_are_named_once_and_in_order(text, digits):
    assert named_digits(text) == digits
