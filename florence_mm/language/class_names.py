"""Class names from a list, a file or a known data set, and their indices."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from florence_mm.errors import shown
from florence_mm.utils.numbers import is_whole
from florence_mm.utils.text_files import is_encodable, read_lines

from .clip_prompts import CLIP_SETS
from .labels import is_blank, normalize_text
from .prompts import get_class_names

KNOWN_CLASSES = ('imagenet1k', 'digits', *CLIP_SETS)


class ClassNames:
    """Mapping between class names and indices; names that are equal after normalisation are one class.

    Args:
        names (Sequence[str] | None): The names in the order of their indices. None: names are collected as
            :meth:`index` meets them, and sorted by :meth:`finish`.

    >>> names = ClassNames(['cat', 'Dog'])
    >>> names.index('dog'), names.index(0)
    (1, 0)
    """

    def __init__(self, names: Sequence[str] | None = None) -> None:
        self.given = names is not None
        self.names: list[str] = list(names or [])
        self._index: dict[str, list[int]] = {}
        for i, name in enumerate(self.names):
            problem = _name_problem(name)
            if problem:
                raise ValueError(f'class {i} of `classes` {problem}; give each class a name')
            self._index.setdefault(normalize_text(name), []).append(i)

    def index(self, value: str | int) -> int:
        """Return the index of a name, or check an index. While names are collected, a new name gets a new index.

        Raises:
            ValueError: the value is unknown or ambiguous; the message is only the reason, without file or line.
        """
        if is_whole(value):
            if not self.given:
                raise ValueError(f'class {value} is an index, but the data set has no `classes`; give the names')
            if not 0 <= value < len(self.names):
                raise ValueError(f'class {value} is outside 0 to {len(self.names) - 1}')
            return value
        if not isinstance(value, str):
            raise ValueError(f'the class must be a name or an index, but is {shown(value)}')
        problem = _name_problem(value)
        if problem:
            raise ValueError(f'the class name {problem}')
        key = normalize_text(value)
        indices = self._index.get(key, [])
        if len(indices) > 1:
            raise ValueError(f'the class name {value!r} stands for the classes {indices} alike; give the index')
        if indices:
            return indices[0]
        if self.given:
            raise ValueError(f'class {value!r} is not one of the {len(self.names)} names in `classes`')
        self._index[key] = [len(self.names)]
        self.names.append(value)
        return len(self.names) - 1

    def finish(self) -> np.ndarray:
        """Sort the collected names; return the map ``(K,)`` int64 from the indices given so far to the final ones."""
        ranks = np.arange(len(self.names))
        if not self.given:
            order = sorted(range(len(self.names)), key=self.names.__getitem__)
            ranks[order] = np.arange(len(self.names))
            self.names = [self.names[i] for i in order]
        return ranks


def _name_problem(name: object) -> str:
    """What is wrong with a class name, as a predicate; empty if nothing is."""
    if not isinstance(name, str):
        return f'is {shown(name)}, which is no text'
    if is_blank(name):
        return f'{shown(name)} is empty'
    if not is_encodable(name):
        return f'{shown(name)} is not valid UTF-8'
    return ''


def load_class_names(classes: str | Sequence[str] | None) -> list[str] | None:
    """Load class names from a list, the name of a known data set, or a text file with one name per line.

    Raises:
        ValueError: ``classes`` is none of these, or the file is empty or no text.
    """
    if classes is None:
        return None
    if not isinstance(classes, str):
        if not isinstance(classes, Sequence) or not classes:
            raise ValueError(f'classes is {classes!r}; give a list of names, a text file or a known data set')
        return list(classes)
    if classes in KNOWN_CLASSES:
        return get_class_names(classes)
    path = Path(classes)
    if '\0' in classes or not path.is_file():
        raise ValueError(f'classes={classes!r} is neither a file nor one of {", ".join(KNOWN_CLASSES)}')
    return read_lines(path, 'one class name a line')
