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
    """Copies of modules, whose weights and statistics are moving averages of theirs, without gradient and dropout.

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

    def train(self, mode: bool = True) -> 'MomentumCopies':
        """Stay in evaluation mode."""
        return super().train(False)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        """Load; copies of which a checkpoint has a part alone take over the weights of the modules once more."""
        super()._load_from_state_dict(state_dict, prefix, *args)
        missing, own = _missing(self, state_dict, prefix)
        if 0 < len(missing) < own:
            self.started.fill_(False)
            print_log(
                f'the momentum model in the checkpoint is of another model, which lacks {len(missing)} of the {own} '
                f'tensors or has them in another shape, among them {missing[0]}; all of the momentum model begins as '
                'a copy of the model',
                'current',
                logging.WARNING,
            )

    @torch.no_grad()
    def follow(self, modules: Mapping[str, nn.Module]) -> None:
        """Move the weights towards those of the modules, once a training step."""
        keep = torch.where(self.started, self.momentum, 0.0)
        for name, module in modules.items():
            # a copy may lack some; statistics of batches are averaged as the weights that they belong to
            others = {**dict(module.named_parameters()), **dict(module.named_buffers())}
            for key, own in (*self[name].named_parameters(), *self[name].named_buffers()):
                _follow(_local(own), _local(others[key]), keep)
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

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        """Load; a queue of which a checkpoint has a part alone, or another size, begins without pairs."""
        super()._load_from_state_dict(state_dict, prefix, *args)
        missing, own = _missing(self, state_dict, prefix)
        if 0 < len(missing) < own:
            self.label.fill_(NO_LABEL)
            self.place.zero_()

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


def _missing(module: nn.Module, state_dict: Mapping[str, Tensor], prefix: str) -> tuple[list[str], int]:
    """Keys of a module's tensors that a state lacks or has in another shape, and how many tensors the module has."""
    own = {f'{prefix}{name}': x for name, x in module.state_dict().items() if name != 'started'}
    lacking = [key for key, x in own.items() if key not in state_dict or state_dict[key].shape != x.shape]
    return lacking, len(own)


def _follow(own: Tensor, other: Tensor, keep: Tensor) -> None:
    """Move a tensor towards another one; what has no fractions, such as a number of batches, becomes the other's."""
    if not own.is_floating_point():
        own.copy_(other)
        return
    # on the device, where the flag lies, so that nothing waits for it
    own.copy_(other + keep.to(own.dtype) * (own - other))


def _local(x: Tensor) -> Tensor:
    """This process's part of a sharded tensor; another one as it is."""
    return x.detach().to_local() if hasattr(x, 'to_local') else x.detach()
