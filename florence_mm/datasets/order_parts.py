"""What a data set tells a sampler of where its samples are stored, so that few shards are in use at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class OrderPart:
    """A range of consecutive samples of a data set.

    Attributes:
        size: number of samples.
        ends: ``(S,)`` int64, the end of each shard's samples within the range; None: they may be read in any order.
        block: shards in use at a time.
        fetch: called with the numbers of shards that will soon be read; None: nothing is fetched.
    """

    size: int
    ends: np.ndarray | None = None
    block: int = 1
    fetch: Callable[[Sequence[int]], None] | None = None


def order_parts(dataset: Any) -> list[OrderPart]:
    """Ranges of a data set of any package; one that does not tell any is a single range, read in any order."""
    told = getattr(dataset, 'order_parts', None)
    return [OrderPart(len(dataset))] if told is None else told()
