"""Suggestions for misspelt names."""

import difflib
from collections.abc import Iterable


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """Find the candidate that ``name`` is probably a misspelling of; None if none is near.

    Case is ignored. A candidate is near if its edit distance is 1, or if four fifths of the letters of both match
    (:class:`difflib.SequenceMatcher`'s ratio).
    """
    lowered = {candidate.lower(): candidate for candidate in candidates}
    close = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)
    if not close:
        return None
    ratio = difflib.SequenceMatcher(None, name.lower(), close[0]).ratio()
    return lowered[close[0]] if ratio >= 0.8 or edit_distance(name.lower(), close[0]) <= 1 else None


def did_you_mean(name: str, candidates: Iterable[str], otherwise: str = '') -> str:
    """End an error message with ``; did you mean 'width'?``, or with ``otherwise`` if no candidate is near."""
    near = nearest(name, candidates)
    return otherwise if near is None else f'; did you mean {near!r}?'


def edit_distance(a: str, b: str) -> int:
    """Edit distance of ``a`` and ``b``: letters deleted, inserted, replaced or swapped with their neighbour."""
    before, row = [], list(range(len(b) + 1))
    for i, letter in enumerate(a, start=1):
        before_that, before, row = before, row, [i]
        for j, other in enumerate(b, start=1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and a[i - 2] == other and letter == b[j - 2]:
                cost = min(cost, before_that[j - 2] + 1)
            row.append(cost)
    return row[-1]


def near_or_all(name: str, candidates: Iterable[str]) -> str:
    """End a message with the nearest candidate, or with all candidates if they are few."""
    names = sorted(candidate for candidate in candidates if not candidate.startswith('_'))
    return did_you_mean(name, candidates, f'; it has {", ".join(names)}' if 0 < len(names) <= 40 else '')
