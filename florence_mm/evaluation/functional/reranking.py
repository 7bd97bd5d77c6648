"""Candidates of each query, and ranks after they are re-ranked.

Shape legend: ``Q`` queries, ``G`` gallery items, ``k`` candidates a query, ``D`` channels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .ranks import nearest_similarity


def best_candidates(queries: Tensor, gallery: Tensor, k: int, max_elements: int = 1 << 24) -> tuple[Tensor, Tensor]:
    """Find the gallery items with the highest similarity (dot product) to each query.

    Args:
        queries (Tensor): ``(Q, D)``, or ``(Q, V, D)`` of several vectors, of which the nearest counts.
        gallery (Tensor): ``(G, D)``, or ``(G, V, D)``.
        k (int): Items per query; all if the gallery has fewer.
        max_elements (int): Most similarities held at once.

    Returns:
        tuple[Tensor, Tensor]: items ``(Q, k)`` int64 and their similarities ``(Q, k)`` in fp32, best first.
    """
    vectors = queries.shape[1:-1].numel() * gallery.shape[1:-1].numel()
    k, step = min(k, len(gallery)), max(1, max_elements // max(1, len(gallery) * vectors))
    parts = [nearest_similarity(chunk.float(), gallery.float()).topk(k, dim=1) for chunk in queries.split(step)]
    return torch.cat([part.indices for part in parts]), torch.cat([part.values for part in parts])


def reranked_ranks(ranks: Tensor, candidates: Tensor, scores: Tensor, positives: Sequence[Sequence[int]]) -> Tensor:
    """Rank the best correct item of each query after its candidates are sorted by new scores, before all other items.

    A query without correct item among its candidates keeps its rank. As in :func:`.ranks.retrieval_ranks`, wrong
    items with an equal score come first, and NaN counts against the query.

    Args:
        ranks (Tensor): ``(Q,)`` ranks before, from :func:`.ranks.retrieval_ranks`.
        candidates (Tensor): ``(Q, k)`` gallery items, each at most once in a row.
        scores (Tensor): ``(Q, k)``, higher is better.
        positives (Sequence[Sequence[int]]): Correct gallery items of each query.

    Returns:
        Tensor: ``(Q,)`` int64.

    Raises:
        ValueError: lengths differ.
    """
    if not len(ranks) == len(candidates) == len(positives) or candidates.shape != scores.shape:
        raise ValueError(
            f'{len(ranks)} ranks, correct items for {len(positives)} queries, candidates {tuple(candidates.shape)} and '
            f'scores {tuple(scores.shape)}; the numbers must agree'
        )
    correct = torch.stack(
        [torch.isin(row, torch.tensor(wanted)) for row, wanted in zip(candidates, positives, strict=True)]
    )  # (Q, k)
    best = scores.masked_fill(~correct, -torch.inf).nan_to_num(-torch.inf, torch.inf, -torch.inf).amax(1)  # (Q,)
    before = (~(scores < best[:, None]) & ~correct).sum(1)
    return torch.where(correct.any(1), before, ranks)
