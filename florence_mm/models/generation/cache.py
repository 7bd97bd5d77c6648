"""Key-value caches of attention layers in text generation, so that each token is computed once.

Shape legend: ``B`` rows (texts, or beams of texts), ``H`` heads, ``L`` cached tokens, ``D`` channels per head.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

_FIRST_ROOM = 32  # tokens of the first buffer; it is doubled whenever it is full


class KeyValueCache:
    """Cached keys and values of one attention layer."""

    def __init__(self) -> None:
        self.length = 0
        self._room: Tensor | None = None  # (2, B, H, room, D)

    def append(self, keys_values: Tensor) -> tuple[Tensor, Tensor]:
        """Append keys and values of new tokens.

        Args:
            keys_values: ``(2, B, H, n, D)``, keys and values of the next n tokens.

        Returns:
            keys and values of all cached tokens, ``(B, H, L, D)`` each: views, valid until the next call.

        Raises:
            ValueError: the number of rows or heads differs from the cache's, or gradients are recorded.
        """
        if keys_values.requires_grad:
            raise ValueError(
                'keys and values are kept in place, which autograd cannot follow; write under torch.no_grad(), or '
                'train without a cache'
            )
        end = self.length + keys_values.shape[3]
        rows_heads = keys_values.shape[1:3]
        if self._room is not None and self._room.shape[1:3] != rows_heads:
            raise ValueError(
                f'the cache holds keys of {tuple(self._room.shape[1:3])} (rows, heads) and got {tuple(rows_heads)}; '
                'call select() when rows change'
            )
        if self._room is None or end > self._room.shape[3]:
            room = keys_values.new_empty(2, *rows_heads, max(_FIRST_ROOM, 2 * end), keys_values.shape[4])
            if self._room is not None:
                room[:, :, :, : self.length] = self._room[:, :, :, : self.length]
            self._room = room
        self._room[:, :, :, self.length : end] = keys_values
        self.length = end
        keys, values = self._room[:, :, :, :end].unbind()
        return keys, values


class CacheStack:
    """Caches of a stack of layers, created at first use."""

    def __init__(self) -> None:
        self._layers: dict[int, KeyValueCache] = {}
        self._rooms: Tensor | None = None  # (layers, 2, B, H, room, D), of which each layer's room is a part

    def __getstate__(self) -> dict:
        """For pickles and copies: a layer's room comes back as memory of its own, no part of the common one."""
        return {'_layers': self._layers, '_rooms': None}

    def layer(self, number: int) -> KeyValueCache:
        """Return the cache of a layer."""
        return self._layers.setdefault(number, KeyValueCache())

    @property
    def length(self) -> int:
        """Number of cached tokens of the first layer; between two forward passes it is the same for all layers."""
        return self.layer(0).length

    def select(self, rows: Tensor) -> None:
        """Replace row i of all caches by their row ``rows[i]``.

        Args:
            rows: ``(B',)`` int64.
        """
        caches = list(self._layers.values())
        if not self.length:
            return
        if self._rooms is None or any(c._room is not own for c, own in zip(caches, self._views, strict=True)):
            self._share(torch.stack([cache._room for cache in caches]))
        rows = rows.to(self._rooms.device)
        held = self._rooms[..., : self.length, :].index_select(2, rows)
        if len(rows) != self._rooms.shape[2]:
            shape = self._rooms.shape
            self._share(self._rooms.new_empty(*shape[:2], len(rows), *shape[3:]))
        self._rooms[..., : self.length, :] = held

    def _share(self, rooms: Tensor) -> None:
        self._rooms, self._views = rooms, list(rooms.unbind())
        for cache, view in zip(self._layers.values(), self._views, strict=True):
            cache._room = view


class TokenCache(Protocol):
    """Keys and values of earlier tokens."""

    @property
    def length(self) -> int:
        """Number of tokens."""

    def select(self, rows: Tensor) -> None:
        """Replace row i by row ``rows[i]``."""


@dataclass
class CacheBehind:
    """Cache of texts that stand behind tokens whose keys it holds too and does not count.

    Attributes:
        inner: cache of all tokens.
        before: number of tokens before the texts.
    """

    inner: TokenCache
    before: int = 0

    @property
    def length(self) -> int:
        """Number of cached tokens of the texts."""
        return max(self.inner.length - self.before, 0)

    def select(self, rows: Tensor) -> None:
        """Replace row i by row ``rows[i]``."""
        self.inner.select(rows)


def causal_mask(queries: int, keys: int, device: torch.device) -> Tensor | None:
    """Causal mask ``(1, 1, queries, keys)`` bool of the last ``queries`` of ``keys`` tokens; None for one query."""
    if queries == 1:
        return None
    mask = torch.ones(queries, keys, dtype=torch.bool, device=device)
    return mask.tril(keys - queries)[None, None]
