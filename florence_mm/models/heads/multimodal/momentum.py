"""Momentum copies of towers and queues of their features, for contrastive learning (arXiv 1911.05722, 2107.07651).

Shape legend: ``B`` pairs of all processes, ``Q`` pairs in the queue, ``D`` embedding width.
"""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.nn import functional as F

#: Label of a place of the queue that no pair has filled yet; labels of pairs are at least 0.
NO_LABEL = -1


class MomentumCopies(nn.ModuleDict):
    """Copies of modules whose weights are moving averages of theirs; they have no gradient and no dropout.

    Args:
        copies: modules by name, of the architectures of those that they follow.
        momentum: share of a copy's old weights that each step keeps.

    Attributes:
        started (Tensor): whether the copies have weights of their own; they take over those of the modules once.
    """

    def __init__(self, copies: Mapping[str, nn.Module], momentum: float) -> None:
        super().__init__(copies)
        self.momentum = momentum
        self.register_buffer('started', torch.tensor(False))
        self.requires_grad_(False).eval()
        self.register_load_state_dict_pre_hook(_start_with_all)

    def train(self, mode: bool = True) -> 'MomentumCopies':
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def follow(self, modules: Mapping[str, nn.Module]) -> None:
        """Move the weights towards those of the modules, once a training step."""
        keep = torch.where(self.started, self.momentum, 0.0)
        for name, module in modules.items():
            others = dict(module.named_parameters())  # a copy may lack some
            for key, parameter in self[name].named_parameters():
                own, other = _local(parameter), _local(others[key])
                # on the device, where the flag lies, so that nothing waits for it
                own.copy_(other + keep.to(own.dtype) * (own - other))
        self.started.fill_(True)


class FeatureQueue(nn.Module):
    """The features of the last Q pairs that all processes have seen, and their labels; equal on every process.

    Args:
        size: Q.
        embed_dims: D.

    Attributes:
        image (Tensor): ``(Q, D)``, L2-normalised; random until filled.
        text (Tensor): ``(Q, D)``, L2-normalised; random until filled.
        label (Tensor): ``(Q,)`` int64; -1 until filled.
        place (Tensor): 0-d int64, where the next pairs go.
    """

    def __init__(self, size: int, embed_dims: int) -> None:
        super().__init__()
        self.size = size
        for name in ('image', 'text'):
            self.register_buffer(name, F.normalize(torch.randn(size, embed_dims), dim=1))
        self.register_buffer('label', torch.full((size,), NO_LABEL))
        self.register_buffer('place', torch.tensor(0))

    def check_batch(self, count: int) -> None:
        """Check that whole batches fill the queue.

        Raises:
            ValueError: the number of pairs of all processes does not divide Q.
        """
        if self.size % count:
            raise ValueError(
                f'queue_size is {self.size}, which the {count} pairs of the batch (of all processes) do not divide; '
                'set queue_size to a multiple of them, and drop the last incomplete batch (drop_last=True)'
            )

    @torch.no_grad()
    def push(self, image: Tensor, text: Tensor, label: Tensor) -> None:
        """Replace the oldest B pairs by features ``(B, D)`` and labels ``(B,)``; B divides Q."""
        self.check_batch(len(label))
        rows = (self.place + torch.arange(len(label), device=self.place.device)) % self.size
        for name, new in (('image', image), ('text', text), ('label', label)):
            buffer = getattr(self, name)
            buffer.index_copy_(0, rows, new.to(buffer.dtype))
        self.place.add_(len(label)).remainder_(self.size)


def _start_with_all(copies: MomentumCopies, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Let copies of which a checkpoint lacks some start as copies of the modules, and say so."""
    needed = [f'{prefix}{name}' for name, _ in copies.named_parameters()]
    missing = [key for key in needed if key not in state]
    if missing and len(missing) < len(needed):
        state[f'{prefix}started'] = torch.tensor(False)
        print_log(
            f'the momentum model in the checkpoint is of another model, which lacks {len(missing)} of the '
            f'{len(needed)} tensors or has them in another shape, among them {missing[0]}; all of the momentum model '
            'begins as a copy of the model',
            'current',
            logging.WARNING,
        )


def _local(x: Tensor) -> Tensor:
    """This process's part of a sharded tensor; another one as it is."""
    return x.detach().to_local() if hasattr(x, 'to_local') else x.detach()
