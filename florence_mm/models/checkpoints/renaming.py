"""What a format of checkpoints is, and the renaming of keys that all of them do."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

StateDict = dict[str, Tensor]
Skipped = dict[str, str]

#: Ends of the keys of buffers that a model computes: they belong to a window or a resolution, not to what was learned.
COMPUTED = ('relative_position_index', 'attn_mask', 'position_ids', 'relative_coords_table')


@dataclass(frozen=True)
class Format:
    """A public layout.

    Attributes:
        name: what reports and errors call it.
        detect: whether a set of keys is of this format.
        convert: from its tensors to ours, and the keys left out with the reason.
    """

    name: str
    detect: Callable[[set[str]], bool]
    convert: Callable[[StateDict], tuple[StateDict, Skipped]]


def has(keys: Iterable[str], pattern: str) -> bool:
    """Whether a key contains the regular expression."""
    return any(re.search(pattern, key) for key in keys)


def rename(state: StateDict, rules: list[tuple[str, str | Callable[[re.Match], str]]]) -> StateDict:
    """Each key after all rules (regular expression, replacement), applied in order."""
    renamed = {}
    for key, value in state.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed


def split(state: StateDict, pattern: str, reason: str) -> tuple[StateDict, Skipped]:
    """Leave out the keys that do not match."""
    kept = {key: value for key, value in state.items() if re.search(pattern, key)}
    return kept, {key: reason for key in state if key not in kept}


def take(state: StateDict, prefix: str) -> StateDict:
    """Remove from ``state`` the keys that begin with the regular expression, and give them without it."""
    found = {key: m.end() for key in state if (m := re.match(prefix, key))}
    return {key[end:]: state.pop(key) for key, end in found.items()}
