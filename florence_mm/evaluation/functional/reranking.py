"""Ranks after the best items of each query were put in another order.

Shape legend: ``Q`` queries, ``G`` gallery items, ``k`` candidates a query, ``D`` channels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def best_candidates(queries: Tensor, gallery: Tensor, k: int, max_elements: int = 1 << 24) -> tuple[Tensor, Tensor]:
    """The gallery items with the greatest dot products.

    Args:
        queries (Tensor): ``(Q, D)``.
        gallery (Tensor): ``(G, D)``.
        k (int): Items a query; all where the gallery has fewer.
        max_elements (int): Similarities held at once.

    Returns:
        tuple[Tensor, Tensor]: items ``(Q, k)`` int64 and their similarities ``(Q, k)`` in fp32, best first.
    """
    k, step = min(k, len(gallery)), max(1, max_elements // max(1, len(gallery)))
    parts = [(chunk.float() @ gallery.float().T).topk(k, dim=1) for chunk in queries.split(step)]
    return torch.cat([part.indices for part in parts]), torch.cat([part.values for part in parts])


def reranked_ranks(ranks: Tensor, candidates: Tensor, scores: Tensor, positives: Sequence[Sequence[int]]) -> Tensor:
    """How many wrong items come before the best right one, when candidates go by new scores, before all others.

    Where no right item is among a query's candidates, its rank stays. As in :func:`.retrieval.retrieval_ranks` a wrong
    item with the score of the best right one comes before it, and NaN counts against the query.

    Args:
        ranks (Tensor): ``(Q,)`` before, from :func:`.retrieval.retrieval_ranks`.
        candidates (Tensor): ``(Q, k)`` gallery items, each at most once in a row.
        scores (Tensor): ``(Q, k)``, greater is better.
        positives (Sequence[Sequence[int]]): For each query the right gallery items.

    Returns:
        Tensor: ``(Q,)`` int64.

    Raises:
        ValueError: numbers do not fit.
    """
    if not len(ranks) == len(candidates) == len(positives) or candidates.shape != scores.shape:
        raise ValueError(
            f'{len(ranks)} ranks, right items for {len(positives)} queries, candidates {tuple(candidates.shape)} and '
            f'scores {tuple(scores.shape)}; the numbers must agree'
        )
    right = torch.stack(
        [torch.isin(row, torch.tensor(wanted)) for row, wanted in zip(candidates, positives, strict=True)]
    )  # (Q, k)
    best = scores.masked_fill(~right, -torch.inf).nan_to_num(-torch.inf, torch.inf, -torch.inf).amax(1)  # (Q,)
    before = (~(scores < best[:, None]) & ~right).sum(1)
    return torch.where(right.any(1), before, ranks)
