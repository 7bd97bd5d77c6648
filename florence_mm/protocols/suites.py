"""Suites: the lists of protocols that one command evaluates.

A module of protocols has two tuples, ``FLORENCE`` (the paper's) and ``EMBEDDED`` (every kind on the embedded data), of
:class:`~florence_mm.protocols.base.Entry`, or of protocols that evaluate the two towers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatchcase

from florence_mm.errors import UsageError
from florence_mm.utils.nearest import did_you_mean

from . import classification, detection, questions, retrieval, video
from .base import GROUPS, Entry, Partible, Protocol

_MODULES = (classification, retrieval, detection, questions, video)


def _entries(listed: Iterable[Entry | Protocol]) -> list[Entry]:
    entries = [item if isinstance(item, Entry) else Entry(item) for item in listed]
    return sorted(entries, key=lambda entry: GROUPS.index(entry.protocol.group))


#: Entries by name of the suite, in the order of the table.
SUITES = {
    'florence': _entries(entry for module in _MODULES for entry in module.FLORENCE),
    'embedded': _entries(entry for module in _MODULES for entry in module.EMBEDDED),
}
#: Config of the two towers that a suite evaluates unless another is named.
TOWERS = {
    'florence': 'florence_mm::unicl/unicl_coswin-h_512xb48-80k_fld900m-384.py',
    'embedded': 'florence_mm::unicl/unicl_coswin-micro_1xb64-22e_digits.py',
}


def select(suite: str, patterns: Iterable[str] = (), allow_partial: bool = False) -> list[Entry]:
    """Select the entries of a suite whose names match one of the patterns; none: all.

    Args:
        suite: one of :data:`SUITES`.
        patterns: names with ``*``, or beginnings up to a slash, as in ``zero-shot``.
        allow_partial: evaluate what is there of sets that are not complete.

    Raises:
        UsageError: there is no such suite, or a pattern matches nothing.
    """
    if suite not in SUITES:
        raise UsageError(f'there is no suite {suite!r}{did_you_mean(suite, SUITES)}; suites are {", ".join(SUITES)}')
    entries, patterns = SUITES[suite], list(patterns)
    names = [entry.protocol.name for entry in entries]
    for pattern in patterns:
        if not any(matches(name, pattern) for name in names):
            raise UsageError(
                f'no protocol of the suite {suite} matches {pattern!r}{did_you_mean(pattern, names)}; --list shows all'
            )
    chosen = [entry for entry in entries if not patterns or any(matches(entry.protocol.name, p) for p in patterns)]
    return [_partial(entry) for entry in chosen] if allow_partial else chosen


def _partial(entry: Entry) -> Entry:
    protocol = entry.protocol
    return replace(entry, protocol=protocol.partial()) if isinstance(protocol, Partible) else entry


def matches(name: str, pattern: str) -> bool:
    """Whether a protocol's name matches a pattern with ``*``, or lies below it.

    >>> matches('detection/full/bccd', 'detection/full'), matches('vqa/vqav2-test', 'vqa/vqav2')
    (True, False)
    """
    return fnmatchcase(name, pattern) or name.startswith(f'{pattern.rstrip("/")}/')
