"""Self-attention of texts that begin alike, whose common tokens are computed once.

Shape legend: ``B`` texts, ``L`` tokens per text, ``N`` different tokens, ``G`` groups of ``Q`` queries, ``C`` channels,
``H`` heads, ``D = C / H``.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from florence_mm.ops.attention import attention, written_out_attention

#: Q: most texts have as many tokens that no other text before them has.
QUERIES = 4


def find_beginnings(ids: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Number the different beginnings of texts; their last tokens are the N different tokens.

    Args:
        ids: ``(B, L)`` int64, token ids from 0 to ``2**32 - 1``, on the CPU.
        real: ``(B, L)`` bool, True where a token is real.

    Returns:
        positions ``(N,)`` of the tokens among the ``B * L``, and the number ``(B * L,)`` of each token among the N.
    """
    rows = torch.empty_like(ids)
    previous, count, index = torch.zeros_like(ids[:, 0]), 0, []
    for place in range(ids.shape[1]):
        # the same beginning up to here and the same token; -1 for padding, which nothing looks at
        keys = torch.where(real[:, place], previous * (1 << 32) + ids[:, place], -1)
        _, first, inverse = np.unique(keys.numpy(), return_index=True, return_inverse=True)
        previous = torch.from_numpy(inverse)
        rows[:, place] = count + previous
        index.append(torch.from_numpy(first) * ids.shape[1] + place)
        count += len(first)
    return torch.cat(index), rows.flatten()


class SharedTokens(NamedTuple):
    """The different tokens of a batch as queries, each once, in groups of one text.

    Attributes:
        queries: ``(G * Q,)`` numbers of the tokens among the N; a group of fewer is filled up.
        keys: ``(G * L,)`` numbers of all tokens of each group's text.
        mask: ``(G, 1, Q, L)`` bool, True for each query's own token and those before it.
        places: ``(N,)`` of each token among the queries.
    """

    queries: Tensor
    keys: Tensor
    mask: Tensor
    places: Tensor

    @classmethod
    def of(cls, index: Tensor, rows: Tensor, length: int) -> 'SharedTokens':
        """Group the tokens of a layout.

        Args:
            index: ``(N,)`` positions of the tokens among the ``B * L``.
            rows: ``(B * L,)`` number of each token among the N.
            length: L.
        """
        order = index.argsort()  # by text and place
        texts = index[order] // length
        before = torch.arange(len(order)) - torch.searchsorted(texts, texts)  # in the same text
        is_first = before % QUERIES == 0
        first = order[is_first]  # (G,)
        places = (is_first.cumsum(0) - 1) * QUERIES + before % QUERIES
        queries = first.repeat_interleave(QUERIES)
        queries[places] = order
        mask = torch.arange(length) <= (index[queries] % length)[:, None]
        keys = rows.view(-1, length)[texts[is_first]].flatten()
        by_token = torch.empty_like(places).scatter_(0, order, places)
        return cls(queries, keys, mask.view(-1, 1, QUERIES, length), by_token)


def attend_once(qkv: Tensor, shared: SharedTokens, num_heads: int) -> Tensor:
    """Multi-head self-attention, queries, keys and values ``(N, 3 C)`` to ``(N, C)``."""
    groups, _, queries, length = shared.mask.shape
    dims = qkv.shape[1] // 3
    query = qkv[:, :dims].index_select(0, shared.queries).view(groups, queries, num_heads, -1).transpose(1, 2)
    keys_values = qkv[:, dims:].index_select(0, shared.keys).view(groups, length, 2, num_heads, -1)
    key, value = keys_values.permute(2, 0, 3, 1, 4)  # (G, H, L, D) each
    # torch's kernel takes three times as long for few queries of bfloat16 on a CPU
    slow = qkv.dtype == torch.bfloat16 and qkv.device.type == 'cpu'
    x = (written_out_attention if slow else attention)(query, key, value, shared.mask)  # (G, H, Q, D)
    return x.transpose(1, 2).reshape(-1, dims).index_select(0, shared.places)
