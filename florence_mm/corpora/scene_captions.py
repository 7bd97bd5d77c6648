"""Captions of the embedded scenes in several wordings."""

from collections import Counter
from collections.abc import Callable

import numpy as np

from florence_mm.language.prompts import get_class_names

from .scene_facts import Scene, SceneDigit, with_article

NUM_CAPTIONS = 5


def make_captions(rng: np.random.Generator, scene: Scene, number: int = NUM_CAPTIONS) -> list[str]:
    """Make different captions of a scene, all of them true.

    Digits are named from left to right, except in wordings that count equal ones, which go from zero to nine.

    Args:
        rng (np.random.Generator): Chooses the wordings and their order.
        scene (Scene): The scene.
        number (int): Number of captions, at most :data:`NUM_CAPTIONS`.
    """
    wordings = _WORDINGS if scene.digits else _EMPTY_WORDINGS
    chosen = rng.choice(len(wordings), size=number, replace=False)
    return [wordings[i](scene) for i in chosen]


def join(parts: list[str]) -> str:
    """Join parts as in ``'a two, a five and an eight'``."""
    return parts[0] if len(parts) == 1 else f'{", ".join(parts[:-1])} and {parts[-1]}'


def count_digits(scene: Scene) -> str:
    """Say the number of digits, as in ``'three digits'``."""
    number = len(scene.digits)
    # images of more than nine digits have numerals
    words = get_class_names('digits')
    return f'{words[number] if number < len(words) else number} digit{"" if number == 1 else "s"}'


def _listed(scene: Scene) -> str:
    return join([with_article(digit.name) for digit in scene.digits])


def _coloured(scene: Scene) -> str:
    def describe(digit: SceneDigit) -> str:
        return with_article(f'{digit.colour} {digit.name}' if digit.colour else digit.name)

    return join([describe(digit) for digit in scene.digits])


def _counted(scene: Scene) -> str:
    counts = Counter(digit.label for digit in scene.digits)
    words = get_class_names('digits')

    def describe(label: int, number: int) -> str:
        if number == 1:
            return with_article(words[label])
        return f'{words[number] if number < len(words) else number} {words[label]}{"es" if label == 6 else "s"}'

    return join([describe(label, counts[label]) for label in sorted(counts)])


def _ends(scene: Scene) -> str:
    if len(scene.digits) == 1:
        return f'a single digit, {with_article(scene.digits[0].name)}'
    first, last = scene.digits[0], scene.digits[-1]
    return (
        f'{count_digits(scene)} from {with_article(first.name)} on the left to {with_article(last.name)} on the right'
    )


_WORDINGS: tuple[Callable[[Scene], str], ...] = (
    lambda scene: f'{count_digits(scene)}: {_listed(scene)}',
    lambda scene: f'{_listed(scene)}.',
    lambda scene: f'a picture of {_listed(scene)}',
    lambda scene: f'there {"is" if len(scene.digits) == 1 else "are"} {_counted(scene)}',
    lambda scene: f'{count_digits(scene)}, {_coloured(scene)}',
    lambda scene: f'{_coloured(scene)} on a dark background',
    _ends,
)
_EMPTY_WORDINGS: tuple[Callable[[Scene], str], ...] = (
    lambda scene: 'no digits',
    lambda scene: 'there are no digits',
    lambda scene: 'a picture of nothing but a background.',
    lambda scene: 'an empty background without digits',
    lambda scene: 'a picture without digits',
)
