"""Means over the batches of all processes."""

import torch
from torch import Tensor

from florence_mm.ops.collectives import Peers


def mean_over_processes(total: Tensor, count: int) -> Tensor:
    """Scale a sum of losses so that gradients averaged over processes are those of the mean over all processes' items.

    Args:
        total: 0-d, the sum over the items of this process.
        count: number of these items; it may differ between processes and be 0.

    Returns:
        ``total`` divided by the mean count of the processes, so that its mean over processes is the sum of all totals
        divided by the sum of all counts; 0 if all counts are 0.
    """
    peers = Peers()
    counts = peers.sum(total.new_full((), count, dtype=torch.float32))
    return total * peers.size / counts.clamp(min=1)
