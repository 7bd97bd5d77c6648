"""Class names and prompt templates of the eleven sets of CLIP's zero-shot protocol, beside ImageNet's.

They are those that CLIP (arXiv 2103.00020) publishes for its scores, which Florence follows (section 3.1). Classes are
in CLIP's order, which is not always that of the labels in a set's files.
"""

import functools
import json
from pathlib import Path
from typing import NamedTuple

_FILE = Path(__file__).with_name('clip_prompts.json')
#: The sets, in the order of Florence's tables.
CLIP_SETS = (
    'food101',
    'cifar10',
    'cifar100',
    'sun397',
    'stanford_cars',
    'fgvc_aircraft',
    'voc2007',
    'dtd',
    'oxford_pets',
    'caltech101',
    'flowers102',
)


class ClipPrompts(NamedTuple):
    """Class names and templates with one ``{}``."""

    classes: tuple[str, ...]
    templates: tuple[str, ...]


@functools.cache
def clip_prompts(dataset: str) -> ClipPrompts:
    """Return the class names and templates that CLIP publishes for a set.

    Args:
        dataset: one of :data:`CLIP_SETS`.

    >>> prompts = clip_prompts('oxford_pets')
    >>> len(prompts.classes), prompts.templates
    (37, ('a photo of a {}, a type of pet.',))
    """
    entry = _read()[dataset]
    return ClipPrompts(tuple(entry['classes']), tuple(entry['templates']))


@functools.cache
def _read() -> dict[str, dict]:
    return json.loads(_FILE.read_text(encoding='utf-8'))['sets']
