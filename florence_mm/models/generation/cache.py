"""Key-value caches of attention layers in text generation, so that each token is computed once.

Shape legend: ``B`` rows (texts, or beams of texts), ``H`` heads, ``L`` cached tokens, ``D`` channels per head.
"""

import torch
from torch import Tensor

_FIRST_ROOM = 32  # tokens of the first buffer; it is doubled whenever it is full


class KeyValueCache:
    """Cached keys and values of one attention layer."""

    def __init__(self) -> None:
        self.length = 0
        self._room: Tensor | None = None  # (2, B, H, room, D)

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append keys and values of new tokens.

        Args:
            key: ``(B, H, n, D)``, keys of the next n tokens.
            value: ``(B, H, n, D)``, their values.

        Returns:
            keys and values of all cached tokens, ``(B, H, L, D)`` each: views, valid until the next call.

        Raises:
            ValueError: the number of rows or heads differs from the cache's.
        """
        end = self.length + key.shape[2]
        if self._room is None or end > self._room.shape[3]:
            room = key.new_empty(2, *key.shape[:2], max(_FIRST_ROOM, 2 * end), key.shape[3])
            if self._room is not None:
                room[:, :, :, : self.length] = self._room[:, :, :, : self.length]
            self._room = room
        if self._room.shape[1:3] != key.shape[:2]:
            raise ValueError(
                f'the cache holds keys of {tuple(self._room.shape[1:3])} (rows, heads) and got {tuple(key.shape[:2])}; '
                'call select() when rows change'
            )
        self._room[0, :, :, self.length : end] = key
        self._room[1, :, :, self.length : end] = value
        self.length = end
        return self._room[0, :, :, :end], self._room[1, :, :, :end]

    def select(self, rows: Tensor) -> None:
        """Replace row i of the cache by its row ``rows[i]``.

        Args:
            rows: ``(B',)`` int64.
        """
        if self._room is None:
            return
        held = self._room[:, :, :, : self.length].index_select(1, rows)
        if len(rows) != self._room.shape[1]:
            self._room = self._room.new_empty(2, len(rows), *self._room.shape[2:])
        self._room[:, :, :, : self.length] = held


class CacheStack:
    """Caches of a stack of layers, created at first use."""

    def __init__(self) -> None:
        self._layers: dict[int, KeyValueCache] = {}

    def layer(self, number: int) -> KeyValueCache:
        """Return the cache of a layer."""
        return self._layers.setdefault(number, KeyValueCache())

    @property
    def length(self) -> int:
        """Number of cached tokens of the first layer; between two forward passes it is the same for all layers."""
        return self.layer(0).length

    def select(self, rows: Tensor) -> None:
        """Replace row i of all caches by their row ``rows[i]``; ``rows`` is ``(B',)`` int64."""
        if len(self._layers):
            rows = rows.to(next((c._room.device for c in self._layers.values() if c._room is not None), rows.device))
        for cache in self._layers.values():
            cache.select(rows)


def causal_mask(queries: int, keys: int, device: torch.device) -> Tensor | None:
    """Causal mask ``(1, 1, queries, keys)`` bool of the last ``queries`` of ``keys`` tokens; None for one query."""
    if queries == 1:
        return None
    mask = torch.ones(queries, keys, dtype=torch.bool, device=device)
    return mask.tril(keys - queries)[None, None]
