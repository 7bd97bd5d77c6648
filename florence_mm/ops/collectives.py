"""Collective operations that the losses need; with one process they return their input.

Shape legend: ``b`` rows on this process, ``W`` processes, ``B = W * b`` rows in all.
"""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


class Peers:
    """The processes that share one batch.

    Args:
        group: a process group; None: all processes, or only this one if torch.distributed is not set up.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        ready = dist.is_available() and dist.is_initialized()
        self.size = dist.get_world_size(group) if ready else 1
        self.rank = dist.get_rank(group) if ready else 0

    @classmethod
    def alone(cls) -> 'Peers':
        """This process as the only one."""
        peers = cls.__new__(cls)
        peers.group, peers.size, peers.rank = None, 1, 0
        return peers

    def check_equal_shapes(self, x: Tensor) -> None:
        """Raise on every process if the shapes of ``x`` differ between them.

        Raises:
            ValueError: the shapes differ; the sentence lists them by rank.
        """
        if self.size == 1:
            return
        shapes = self.gather_rows(torch.tensor([x.shape], device=x.device)).tolist()  # (W, ndim)
        if any(shape != shapes[0] for shape in shapes):
            raise ValueError(
                f'batches differ between processes, shapes by rank are {shapes}; every process must hold equally many '
                'pairs: drop the last incomplete batch (drop_last=True)'
            )

    def row_numbers(self, count: int) -> range:
        """Number this rank's ``count`` rows among those of all processes, which hold equally many, in rank order."""
        return range(self.rank * count, (self.rank + 1) * count)

    def gather_rows(self, x: Tensor) -> Tensor:
        """Gather the rows of all processes, ``(b, ...) -> (B, ...)``, ordered by rank. No gradient."""
        if self.size == 1:
            return x
        out = x.new_empty(self.size * x.shape[0], *x.shape[1:])
        # torch 2.13 renamed the call and warns on the old name
        gather = getattr(dist, 'all_gather_single', None) or dist.all_gather_into_tensor
        gather(out, x.contiguous(), group=self.group)
        return out

    def gather_learned_rows(self, x: Tensor) -> Tensor:
        """Gather the rows of all processes, ``(b, ...) -> (B, ...)``, ordered by rank, with gradient.

        The gradient of a row is the sum of those that it has in the losses of all processes. If each loss is a mean
        over a process's own items, averaging parameter gradients over processes gives those of the mean over all items.
        """
        return x if self.size == 1 else _GatherRows.apply(x, self)

    def scatter_sum(self, x: Tensor) -> Tensor:
        """Sum over processes and keep this rank's rows (reduce-scatter), ``(B, ...) -> (b, ...)``. No gradient."""
        if self.size == 1:
            return x
        out = x.new_empty(x.shape[0] // self.size, *x.shape[1:])
        scatter = getattr(dist, 'reduce_scatter_single', None) or dist.reduce_scatter_tensor
        scatter(out, x.contiguous(), group=self.group)
        return out

    def sum(self, x: Tensor) -> Tensor:
        """Sum ``x`` over processes, in place (all-reduce)."""
        if self.size > 1:
            dist.all_reduce(x, group=self.group)
        return x

    def logsumexp(self, x: Tensor) -> Tensor:
        """Compute ``log(sum over processes of exp(x))`` of each element without overflow."""
        if self.size == 1:
            return x
        top = x.clone()
        dist.all_reduce(top, op=dist.ReduceOp.MAX, group=self.group)
        return self.sum((x - top).exp()).log_() + top


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, peers):
        ctx.peers = peers
        return peers.gather_rows(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return ctx.peers.scatter_sum(grad.contiguous()), None
