"""Keys and values that attention layers keep while a text is written, so that each token is computed once.

Shape legend: ``B`` rows (texts, or beams of texts), ``H`` heads, ``L`` tokens held, ``D`` channels of a head.
"""

import torch
from torch import Tensor

_FIRST_ROOM = 32  # tokens; the room doubles whenever it is full


class KeyValueCache:
    """Keys and values of one attention layer."""

    def __init__(self) -> None:
        self.length = 0
        self._room: Tensor | None = None  # (2, B, H, room, D)

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add those of new tokens.

        Args:
            key: ``(B, H, n, D)`` of the n tokens after those held.
            value: ``(B, H, n, D)``.

        Returns:
            keys and values of all tokens held, ``(B, H, L, D)`` each: views, valid until the next call.

        Raises:
            ValueError: another number of rows or heads than those held.
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
        """Let row i go on from what row ``rows[i]`` holds.

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
    """The caches of a stack of layers, made when a layer first asks for its own."""

    def __init__(self) -> None:
        self._layers: dict[int, KeyValueCache] = {}

    def layer(self, number: int) -> KeyValueCache:
        """The cache of a layer."""
        return self._layers.setdefault(number, KeyValueCache())

    @property
    def length(self) -> int:
        """Tokens that the first layer holds; between two forward passes all layers hold as many."""
        return self.layer(0).length

    def select(self, rows: Tensor) -> None:
        """Let row i go on from what row ``rows[i]`` holds, ``(B',)`` int64."""
        if len(self._layers):
            rows = rows.to(next((c._room.device for c in self._layers.values() if c._room is not None), rows.device))
        for cache in self._layers.values():
            cache.select(rows)


def causal_mask(queries: int, keys: int, device: torch.device) -> Tensor | None:
    """Where the last ``queries`` of ``keys`` tokens may look, ``(1, 1, queries, keys)`` bool; None for one query."""
    if queries == 1:
        return None
    mask = torch.ones(queries, keys, dtype=torch.bool, device=device)
    return mask.tril(keys - queries)[None, None]
