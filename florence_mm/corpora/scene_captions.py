"""Captions of the embedded scenes in several wordings, and what each of their phrases names."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from florence_mm.language.prompts import get_class_names

from .scene_facts import Scene, SceneDigit, with_article

NUM_CAPTIONS = 5


class Phrase(NamedTuple):
    """A part of a caption.

    Attributes:
        text (str): The words.
        digits (tuple): The digits that they name; empty for words in between.
    """

    text: str
    digits: tuple[SceneDigit, ...] = ()


def make_captions(rng: np.random.Generator, scene: Scene, number: int = NUM_CAPTIONS) -> list[str]:
    """Make different captions of a scene, all of them true.

    Digits are named from left to right, except in wordings that count equal ones, which go from zero to nine.

    Args:
        rng (np.random.Generator): Chooses the wordings and their order.
        scene (Scene): The scene.
        number (int): Number of captions, at most :data:`NUM_CAPTIONS`.
    """
    return [caption_text(phrases) for phrases in make_phrased_captions(rng, scene, number)]


def make_phrased_captions(
    rng: np.random.Generator, scene: Scene, number: int = NUM_CAPTIONS
) -> list[tuple[Phrase, ...]]:
    """Make the captions of :func:`make_captions` as their parts, in order."""
    wordings = _WORDINGS if scene.digits else _EMPTY_WORDINGS
    chosen = rng.choice(len(wordings), size=number, replace=False)
    return [tuple(wordings[i](scene)) for i in chosen]


def caption_text(phrases: Sequence[Phrase]) -> str:
    """Return the caption of these parts."""
    return ''.join(phrase.text for phrase in phrases)


def count_digits(scene: Scene) -> str:
    """Say the number of digits, as in ``'three digits'``."""
    number = len(scene.digits)
    # images of more than nine digits have numerals
    words = get_class_names('digits')
    return f'{words[number] if number < len(words) else number} digit{"" if number == 1 else "s"}'


def describe(digit: SceneDigit) -> str:
    """Name a digit with its colour, if that has a name, as in ``'a red two'``."""
    return with_article(f'{digit.colour} {digit.name}' if digit.colour else digit.name)


def _joined(before: str, phrases: Sequence[Phrase], after: str = '') -> list[Phrase]:
    """Join phrases as in ``'a two, a five and an eight'``."""
    parts = [Phrase(before)] if before else []
    for number, phrase in enumerate(phrases, 1):
        if number > 1:
            parts.append(Phrase(' and ' if number == len(phrases) else ', '))
        parts.append(phrase)
    return [*parts, Phrase(after)] if after else parts


def _listed(scene: Scene) -> list[Phrase]:
    return [Phrase(with_article(digit.name), (digit,)) for digit in scene.digits]


def _coloured(scene: Scene) -> list[Phrase]:
    return [Phrase(describe(digit), (digit,)) for digit in scene.digits]


def _counted(scene: Scene) -> list[Phrase]:
    counts = Counter(digit.label for digit in scene.digits)
    words = get_class_names('digits')

    def name(label: int, number: int) -> str:
        if number == 1:
            return with_article(words[label])
        return f'{words[number] if number < len(words) else number} {words[label]}{"es" if label == 6 else "s"}'

    return [
        Phrase(name(label, counts[label]), tuple(digit for digit in scene.digits if digit.label == label))
        for label in sorted(counts)
    ]


def _ends(scene: Scene) -> list[Phrase]:
    first, last = scene.digits[0], scene.digits[-1]
    if len(scene.digits) == 1:
        return [Phrase('a single digit, '), Phrase(with_article(first.name), (first,))]
    return [
        Phrase(f'{count_digits(scene)} from '),
        Phrase(with_article(first.name), (first,)),
        Phrase(' on the left to '),
        Phrase(with_article(last.name), (last,)),
        Phrase(' on the right'),
    ]


_WORDINGS: tuple[Callable[[Scene], list[Phrase]], ...] = (
    lambda scene: _joined(f'{count_digits(scene)}: ', _listed(scene)),
    lambda scene: _joined('', _listed(scene), '.'),
    lambda scene: _joined('a picture of ', _listed(scene)),
    lambda scene: _joined(f'there {"is" if len(scene.digits) == 1 else "are"} ', _counted(scene)),
    lambda scene: _joined(f'{count_digits(scene)}, ', _coloured(scene)),
    lambda scene: _joined('', _coloured(scene), ' on a dark background'),
    _ends,
)
_EMPTY_WORDINGS: tuple[Callable[[Scene], list[Phrase]], ...] = (
    lambda scene: [Phrase('no digits')],
    lambda scene: [Phrase('there are no digits')],
    lambda scene: [Phrase('a picture of nothing but a background.')],
    lambda scene: [Phrase('an empty background without digits')],
    lambda scene: [Phrase('a picture without digits')],
)
