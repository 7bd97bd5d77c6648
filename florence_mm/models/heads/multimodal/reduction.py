"""Means over the batch of all processes."""

import torch
from torch import Tensor

from florence_mm.ops.collectives import Peers


def mean_of_all(total: Tensor, count: int) -> Tensor:
    """The part of this process in a mean over all processes, so that averaged gradients are those of one process.

    Args:
        total: 0-d, the sum over what this process holds.
        count: how many that are; processes may differ, and hold none.

    Returns:
        ``total`` over the mean count of the processes: their mean is the sum of all totals over the sum of all counts.
        Zero where nobody holds any.
    """
    peers = Peers()
    counts = peers.sum(torch.tensor(float(count), device=total.device))
    return total * peers.size / counts.clamp(min=1)
