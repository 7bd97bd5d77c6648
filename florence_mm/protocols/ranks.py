"""Work that the processes of one evaluation share: each does its part, and all have all of it in order.

Processes that work on the same protocol take the same steps. An error of one is an error of all, so that none waits for
what will not come: every exchange carries whether a process has left the protocol. One process alone is the same code
without exchange.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from mmengine.dist import all_gather_object, get_dist_info

from florence_mm.errors import DataError, UsageError, user_sentence

T = TypeVar('T')


class _Said(NamedTuple):
    """What a process says in an exchange: a value or an error, and whether it has left the protocol."""

    value: Any
    error: tuple[type[Exception], str] | None
    left: bool


def number_of_processes() -> int:
    """Return how many processes evaluate together."""
    return get_dist_info()[1]


def is_first() -> bool:
    """Whether this process writes files and tells the progress."""
    return get_dist_info()[0] == 0


def my_part(number: int) -> slice:
    """Return this process's part of ``number`` items: parts are neighbours, in the order of the processes."""
    rank, world = get_dist_info()
    return slice(number * rank // world, number * (rank + 1) // world)


def gather(work: Callable[[], T]) -> list[T]:
    """Do work in each process, and return what all of them have, in the order of the processes.

    Raises:
        Exception: the error of the first process that had one.
    """
    value, error = _tried(work)
    if number_of_processes() == 1:
        if error is not None:
            raise error
        return [value]
    said = all_gather_object(_Said(value, _in_words(error), left=False))
    _raise_first(said, error, exchanged=any(one.left for one in said))
    return [one.value for one in said]


def from_first(work: Callable[[], T]) -> T:
    """Do work in the first process, and return what it has to all.

    Raises:
        Exception: the error of the first process.
    """
    return gather(lambda: work() if is_first() else None)[0]


def together(work: Callable[[], T]) -> T:
    """Do a piece of work that consists of such steps to its end, in all processes or none.

    Raises:
        Exception: its error, or that of another process.
    """
    value, error = _tried(work)
    if number_of_processes() == 1 or getattr(error, 'exchanged', False):
        if error is not None:
            raise error
        return value
    _raise_first(all_gather_object(_Said(None, _in_words(error), left=True)), error, exchanged=True)
    return value


def _tried(work: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return work(), None
    except Exception as error:
        return None, error


def _in_words(error: Exception | None) -> tuple[type[Exception], str] | None:
    if error is None:
        return None
    sentence = user_sentence(error)
    if sentence is None:
        return RuntimeError, f'{type(error).__name__}: {error}'
    return (UsageError if isinstance(error, UsageError) else DataError), sentence


def _raise_first(said: list[_Said], own: Exception | None, exchanged: bool) -> None:
    """Raise the first error that was said, the own one as it is."""
    rank = get_dist_info()[0]
    for place, one in enumerate(said):
        if one.error is not None:
            kind, sentence = one.error
            error = own if place == rank and own is not None else kind(sentence)
            error.exchanged = exchanged
            raise error
    if exchanged and not all(one.left for one in said):
        raise RuntimeError('the processes did not take the same steps')
