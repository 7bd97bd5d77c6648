"""Check of the ``topk`` argument of metrics."""

from collections.abc import Sequence


def check_topk(topk: Sequence[int], metric: str) -> tuple[int, ...]:
    """Check ``topk`` and return it as a tuple.

    Raises:
        ValueError: it is empty or holds a number below 1; the message names the metric.
    """
    if not topk or min(topk) < 1:
        raise ValueError(f'topk={topk!r} of {metric} must be positive numbers')
    return tuple(topk)
