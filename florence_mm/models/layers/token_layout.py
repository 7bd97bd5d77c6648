"""Where the real tokens of a padded batch of texts lie, so that layers need not compute the others.

Shape legend: ``B`` texts, ``L`` tokens of the longest text, ``N`` real tokens of the batch, ``C`` channels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenLayout:
    """Where the real tokens of a batch lie, and where attention may look.

    Attributes:
        batch: B.
        length: L.
        index: ``(N,)`` places of the real tokens among the ``B * L``, or None where all are real.
        mask: ``(B, 1, 1, L)`` bool, True where attention may look, or None where nothing needs to be hidden.
        causal: each token sees itself and those before it; as texts end before their padding begins, that hides the
            padding too.
    """

    batch: int
    length: int
    index: Tensor | None = None
    mask: Tensor | None = None
    causal: bool = False

    @classmethod
    def of(cls, real: Tensor, causal: bool = False, device: torch.device | str | None = None) -> 'TokenLayout':
        """The layout of a padding mask.

        Args:
            real: ``(B, L)`` bool, True where a token is real. Give it on the CPU where there is a choice: an
                accelerator need not be waited for to know the places.
            causal: see the class.
            device: where the layout shall lie; by default that of ``real``.

        Raises:
            ValueError: a mask of another kind, a text without tokens, or with ``causal`` padding before tokens.
        """
        if real.dtype != torch.bool or real.ndim != 2:
            raise ValueError(
                f'the padding mask is {real.dtype} of shape {tuple(real.shape)}; give bool of shape (texts, tokens), '
                'True where a token is real'
            )
        if not bool(real.any(1).all()):
            raise ValueError('a row of the padding mask has no real token; attention over nothing is not defined')
        if causal and bool((real[:, 1:] & ~real[:, :-1]).any()):
            raise ValueError('the padding mask has padding before tokens; causal attention needs it behind them')
        device = real.device if device is None else device
        index = real.flatten().nonzero().squeeze(1)  # (N,)
        if len(index) == real.numel():
            return cls(*real.shape, causal=causal)
        mask = None if causal else real[:, None, None].to(device, non_blocking=True)  # (B, 1, 1, L)
        return cls(*real.shape, index=index.to(device, non_blocking=True), mask=mask, causal=causal)

    def pad(self, x: Tensor) -> Tensor:
        """``(N, C) -> (B, L, C)``, zeros where no token is."""
        if self.index is not None:
            x = x.new_zeros(self.batch * self.length, x.shape[1]).index_copy(0, self.index, x)
        return x.view(self.batch, self.length, -1)

    def pack(self, x: Tensor) -> Tensor:
        """``(B, L, C) -> (N, C)``."""
        x = x.flatten(0, 1)
        return x if self.index is None else x.index_select(0, self.index)


def layout_of(x: Tensor, mask: Tensor | None, causal: bool = False) -> TokenLayout:
    """The layout of ``x (B, L, C)``."""
    if mask is None:
        return TokenLayout(*x.shape[:2], causal=causal)
    if mask.shape != x.shape[:2]:
        raise ValueError(f'the padding mask has shape {tuple(mask.shape)} and the tokens {tuple(x.shape[:2])}')
    return TokenLayout.of(mask, causal, x.device)
