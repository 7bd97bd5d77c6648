"""The layout of padded batches of token sequences: which tokens are real, and which see which.

Padding is not computed: linear layers and norms see only the real tokens of a batch, concatenated ("packed"), and
attention sees sequences padded to the longest. Padding masks stay ``(B, 1, 1, L)``.

Shape legend: ``B`` sequences, ``L`` tokens per sequence, ``N`` real tokens of the batch, ``C`` channels.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from florence_mm.ops.inference import is_recorded

from .shared_tokens import SharedTokens, find_beginnings

#: Texts of so many tokens must have half in common: what gathering keys and values costs grows with the length.
_SHARING_PAYS = 128


@dataclass(frozen=True)
class TokenLayout:
    """Positions of the real tokens of a padded batch, and its attention mask.

    Attributes:
        batch: B.
        length: L.
        index: ``(N,)`` positions of the real tokens among the ``B * L``; None if all are real.
        mask: ``(B, 1, 1, L)`` bool, True where attention may look; None if no mask is needed.
        causal: each token sees itself and those before it; this hides the padding too, which is at the end.
        rows: ``(B * L,)``, number of each token among the N, where texts that begin alike share tokens; None: none are
            shared.
        shared: these tokens as queries.
    """

    batch: int
    length: int
    index: Tensor | None = None
    mask: Tensor | None = None
    causal: bool = False
    rows: Tensor | None = None
    shared: SharedTokens | None = None

    @classmethod
    def of(
        cls,
        real: Tensor,
        causal: bool = False,
        device: torch.device | str | None = None,
        prefix: int | Tensor = 0,
    ) -> 'TokenLayout':
        """Make the layout of a padding mask.

        While a model is exported, traced or compiled, padding is computed like tokens, and is not 0 behind :meth:`pad`.

        Args:
            real: ``(B, L)`` bool, True where a token is real. Best on the CPU, as its values are read here, which would
                wait for an accelerator.
            causal: each token sees itself and those before it.
            device: device of the layout; by default that of ``real``.
            prefix: with ``causal``, number of tokens, or ``(B,)`` one of each sequence, that see each other
                nevertheless, as in a prefix language model; 0: none.

        Raises:
            ValueError: another shape or type, a sequence without tokens, or with ``causal`` padding before tokens or a
                prefix longer than its sequence.
        """
        if real.dtype != torch.bool or real.ndim != 2:
            raise ValueError(
                f'the padding mask is {real.dtype} of shape {tuple(real.shape)}; give bool of shape (texts, tokens), '
                'True where a token is real'
            )
        device = real.device if device is None else device
        prefixed = isinstance(prefix, Tensor) or prefix != 0
        if prefixed:
            return cls._of_prefix(real, causal, device, prefix)
        if is_recorded():  # no size may depend on values
            mask = None if causal else real[:, None, None].to(device, non_blocking=True)
            return cls(*real.shape, mask=mask, causal=causal)
        _check_rows(real, causal)
        index = real.flatten().nonzero().squeeze(1)  # (N,)
        if len(index) == real.numel():
            return cls(*real.shape, causal=causal)
        mask = None if causal else real[:, None, None].to(device, non_blocking=True)  # (B, 1, 1, L)
        return cls(*real.shape, index=index.to(device, non_blocking=True), mask=mask, causal=causal)

    @classmethod
    def _of_prefix(cls, real: Tensor, causal: bool, device: torch.device | str, prefix: int | Tensor) -> 'TokenLayout':
        prefix = torch.as_tensor(prefix).reshape(-1, 1, 1, 1).to(real.device)  # (B or 1, 1, 1, 1)
        if not is_recorded():
            _check_rows(real, causal)
            lengths = real.sum(1).view(-1, 1, 1, 1)
            if not causal or len(prefix) not in (1, len(real)) or bool(((prefix < 0) | (prefix > lengths)).any()):
                raise ValueError(
                    f'prefix is {prefix.flatten().tolist()} for sequences of {real.sum(1).tolist()} tokens and causal '
                    f'is {causal}; give causal layouts one number, or one of each sequence, of at most its length'
                )
        places = torch.arange(real.shape[1], device=real.device)
        mask = (places <= places[:, None]) | (places < prefix)  # (B or 1, 1, L, L)
        index = None if is_recorded() or bool(real.all()) else real.flatten().nonzero().squeeze(1).to(device)
        return cls(*real.shape, index=index, mask=mask.to(device, non_blocking=True))

    @classmethod
    def of_prefixes(cls, ids: Tensor, real: Tensor, device: torch.device | str | None = None) -> 'TokenLayout':
        """Make the layout of a causal encoder that computes what texts have in common at their beginning once.

        A token's feature depends on the tokens up to it alone, so N is the number of different beginnings, and of the
        places at which a text has padding. If texts have little in common, the layout is that of :meth:`of`.

        Args:
            ids: ``(B, L)`` int64, token ids from 0 to ``2**32 - 1``, on the CPU.
            real: ``(B, L)`` bool, True where a token is real; padding is at the end.
            device: device of the layout; by default that of ``ids``.
        """
        device = ids.device if device is None else device
        index, rows = find_beginnings(ids, real)
        if int(real.sum()) < len(index) * (1 + ids.shape[1] / _SHARING_PAYS):
            return cls.of(real, causal=True, device=device)
        shared = SharedTokens(*(x.to(device) for x in SharedTokens.of(index, rows, ids.shape[1])))
        return cls(*ids.shape, index=index.to(device), causal=True, rows=rows.to(device), shared=shared)

    def pad(self, x: Tensor) -> Tensor:
        """Unpack ``(N, C)`` to ``(B, L, C)``, with zeros at padding, or any values if texts share tokens."""
        if self.rows is not None:
            return x.index_select(0, self.rows).view(self.batch, self.length, x.shape[1])
        if self.index is not None:
            x = x.new_zeros(self.batch * self.length, x.shape[1]).index_copy(0, self.index, x)
        return x.view(self.batch, self.length, x.shape[1])

    def pack(self, x: Tensor) -> Tensor:
        """Pack ``(B, L, C)`` to the real tokens ``(N, C)``."""
        x = x.flatten(0, 1)
        return x if self.index is None else x.index_select(0, self.index)


class LastTokens(NamedTuple):
    """The last token of each sequence, whose output is wanted alone.

    Attributes:
        rows: ``(B,)`` their numbers among the N.
        mask: ``(B, 1, 1, L)`` bool, True where a token is real; None: all are.
    """

    rows: Tensor
    mask: Tensor | None


def layout_of(x: Tensor, mask: Tensor | None, causal: bool = False, prefix: int | Tensor = 0) -> TokenLayout:
    """Make the layout of ``x (B, L, C)`` with a padding mask ``(B, L)``, True where a token is real; None: all are."""
    if mask is None and isinstance(prefix, int) and not prefix:
        return TokenLayout(*x.shape[:2], causal=causal)
    if mask is None:
        mask = torch.ones(x.shape[:2], dtype=torch.bool)
    if mask.shape != x.shape[:2]:
        raise ValueError(f'the padding mask has shape {tuple(mask.shape)} and the tokens {tuple(x.shape[:2])}')
    return TokenLayout.of(mask, causal, x.device, prefix)


def _check_rows(real: Tensor, causal: bool) -> None:
    if not bool(real.any(1).all()):
        raise ValueError('a row of the padding mask has no real token; attention over nothing is not defined')
    if causal and bool((real[:, 1:] & ~real[:, :-1]).any()):
        raise ValueError('the padding mask has padding before tokens; causal attention needs it behind them')
