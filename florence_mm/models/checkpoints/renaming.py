"""The description of a checkpoint format, and functions to rename and select keys."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from florence_mm.moved import moved_names

from .settings import Setting

StateDict = dict[str, Tensor]
Skipped = dict[str, str]

#: Endings of the keys of buffers that a model computes itself, from its window size or resolution.
COMPUTED = ('relative_position_index', 'attn_mask', 'position_ids', 'relative_coords_table')


_RENAMED = {'has': 'any_key', 'split': 'keep_matching', 'take': 'pop_prefix'}
__getattr__ = moved_names(__name__, {old: f'{__name__}:{new}' for old, new in _RENAMED.items()})


@dataclass(frozen=True)
class Source:
    """The checkpoint whose settings are asked for.

    Attributes:
        path: the file.
        keys: the keys in it.
        meta: the metadata in it.
    """

    path: str | Path
    keys: set[str] = field(default_factory=set)
    meta: Mapping[str, Any] = field(default_factory=dict)


Settings = Callable[[Source], Iterable[Setting]]


@dataclass(frozen=True)
class Format:
    """A public checkpoint format.

    Attributes:
        name: name for reports and errors.
        detect: function that tells whether a set of keys has this format.
        convert: function that returns its tensors under our names, and the skipped keys with the reason.
        priority: of two formats that match, the one of higher priority is used.
        settings: function that returns the settings that the weights need and no tensor's shape tells.
        optional_parts: regular expression of keys of parts that not every model has -> the argument that makes the
            part. Weights with the part give other features without it.
        fixed_shapes: regular expression of keys of tensors that no rule fits to another shape and without which all
            others are worthless -> the argument that makes the shape.
        more_rows: regular expression of keys of tensors with a row a word, of which a model may have more than the
            file: those of its own words behind the file's, which keep their initial values.
    """

    name: str
    detect: Callable[[set[str]], bool]
    convert: Callable[[StateDict], tuple[StateDict, Skipped]]
    priority: int = 0
    settings: Settings | None = None
    optional_parts: Mapping[str, str] = field(default_factory=dict)
    fixed_shapes: Mapping[str, str] = field(default_factory=dict)
    more_rows: str | None = None


#: Registered formats by name.
FORMATS: dict[str, Format] = {}


def register_format(
    name: str,
    detect: Callable[[set[str]], bool],
    priority: int = 0,
    settings: Settings | None = None,
    optional_parts: Mapping[str, str] | None = None,
    fixed_shapes: Mapping[str, str] | None = None,
    more_rows: str | None = None,
) -> Callable:
    """Register the decorated function as the conversion of a format; any module under ``florence_mm.models`` may.

    Args:
        name: name for reports and errors.
        detect: function that tells whether a set of keys has this format.
        priority: below 0 for a format whose keys more specific formats have too, which are then tried first.
        settings: see :class:`Format`.
        optional_parts: see :class:`Format`.
        fixed_shapes: see :class:`Format`.
        more_rows: see :class:`Format`.

    Raises:
        ValueError: the name is taken.
    """

    def register(
        convert: Callable[[StateDict], tuple[StateDict, Skipped]],
    ) -> Callable[[StateDict], tuple[StateDict, Skipped]]:
        if name in FORMATS:
            raise ValueError(f'a checkpoint format named {name!r} is registered already; choose another name')
        parts = (optional_parts or {}, fixed_shapes or {}, more_rows)
        FORMATS[name] = Format(name, detect, convert, priority, settings, *parts)
        return convert

    return register


class Names:
    """Names of tensors in a public layout and in ours, from which keys are renamed in either direction.

    Args:
        pairs: parts of keys, theirs and ours, applied in this order to public keys and in reverse order to ours. ``#``
            stands for a number, ``^`` at the front for the beginning of a key and ``$`` at the back for its end.

    >>> names = Names(('^stages.#.', '^layers.#.'), ('.ffn.', '.mlp.'))
    >>> names.to_ours({'stages.1.ffn.bias': 0}), names.to_theirs({'layers.1.mlp.bias': 0})
    ({'layers.1.mlp.bias': 0}, {'stages.1.ffn.bias': 0})
    """

    def __init__(self, *pairs: tuple[str, str]) -> None:
        self._to_ours = [(_pattern(theirs), _replacement(ours)) for theirs, ours in pairs]
        self._to_theirs = [(_pattern(ours), _replacement(theirs)) for theirs, ours in reversed(pairs)]

    def to_ours(self, state: StateDict) -> StateDict:
        """Rename public keys to ours."""
        return rename(state, self._to_ours)

    def to_theirs(self, state: StateDict) -> StateDict:
        """Rename our keys to those of the public layout."""
        return rename(state, self._to_theirs)


def _pattern(part: str) -> str:
    begin, end = '^' * part.startswith('^'), '$' * part.endswith('$')
    return begin + re.escape(part.strip('^$')).replace(r'\#', r'(\d+)') + end


def _replacement(part: str) -> str:
    numbers = iter(range(1, 10))
    return re.sub('#', lambda _: rf'\g<{next(numbers)}>', part.strip('^$'))


def any_key(keys: Iterable[str], pattern: str) -> bool:
    """Whether the regular expression occurs in any key."""
    return any(re.search(pattern, key) for key in keys)


def rename(state: StateDict, rules: list[tuple[str, str | Callable[[re.Match], str]]]) -> StateDict:
    """Apply rules (regular expression, replacement) to all keys, in order.

    Raises:
        ValueError: two tensors would have the same name.
    """
    renamed = {}
    for key, value in state.items():
        before = key
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        if key in renamed:
            raise ValueError(f'it has two tensors for {key}, one of them as {before}; keep one of them')
        renamed[key] = value
    return renamed


def keep_matching(state: StateDict, pattern: str, reason: str) -> tuple[StateDict, Skipped]:
    """Keep the keys that the regular expression matches; returns them, and the other keys with the reason."""
    kept = {key: value for key, value in state.items() if re.search(pattern, key)}
    return kept, {key: reason for key in state if key not in kept}


def add_prefix(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Put a prefix before all keys."""
    return {prefix + key: value for key, value in state.items()}


def pop_prefix(state: StateDict, prefix: str) -> StateDict:
    """Remove the keys that begin with the regular expression from ``state``; return them without that beginning."""
    found = {key: m.end() for key in state if (m := re.match(prefix, key))}
    return {key[end:]: state.pop(key) for key, end in found.items()}
