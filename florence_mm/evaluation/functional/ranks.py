"""Ranks of the best correct items of a gallery, in one direction or both, from similarities made in pieces.

An image may be described by several vectors, as in BLIP-2; its similarity with a text is that of the nearest.

Shape legend: ``Q`` queries, ``G`` gallery items, ``N`` images, ``M`` texts, ``V`` vectors of an image, ``P`` correct
pairs, ``D`` channels.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from florence_mm.utils.progress import ProgressLog

from .zero_shot import UNRANKED


def retrieval_ranks(
    queries: Tensor, gallery: Tensor, positives: Sequence[Sequence[int]], max_elements: int = 1 << 24
) -> Tensor:
    """Rank the best correct gallery item of each query: the number of wrong items before it, 0 for the first place.

    Wrong items with the similarity of the best correct one come before it, so that constant features do not score well.
    NaN similarities count against the query.

    Args:
        queries (Tensor): ``(Q, D)``, or ``(Q, V, D)`` if they have several vectors.
        gallery (Tensor): ``(G, D)``, or ``(G, V, D)``; similarity is the dot product, of several vectors the largest.
        positives (Sequence[Sequence[int]]): Correct gallery items of each query, at least one.
        max_elements (int): Most similarities held at once, which bounds memory: 8 bytes each in fp32.

    Returns:
        Tensor: ``(Q,)`` int64 on the device of ``queries``; :data:`UNRANKED` if all similarities of correct items are
        NaN.

    Raises:
        ValueError: shapes do not fit, or a query has no correct item.

    >>> gallery = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    >>> retrieval_ranks(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), gallery, positives=[[0], [0, 1]])
    tensor([0, 1])
    """
    queries, gallery, pairs = _prepare(queries, gallery, positives)
    ranks = torch.empty(len(queries), dtype=torch.int64, device=queries.device)
    for start, end, similarity, spare, (rows, columns) in _pieces(queries, gallery, pairs, max_elements):
        ranks[start:end] = _rank_rows(similarity, rows, columns, spare)
    return ranks


def two_way_ranks(
    images: Tensor,
    texts: Tensor,
    texts_of: Sequence[Sequence[int]],
    images_of: Sequence[Sequence[int]],
    max_elements: int = 1 << 24,
) -> tuple[Tensor, Tensor]:
    """Rank in both directions from one product; both results are those of :func:`retrieval_ranks`.

    A piece of the product holds some images with all texts: their rows are whole, but the best correct similarity of a
    text, with which all others in its column must be compared, may come in a later piece. It is known to within a
    rounding, as correct pairs are few. So similarities are counted below both ends of a narrow interval. A text is
    ranked if its best correct similarity then was in the interval and no wrong one; the others, those with equal and
    almost equal similarities, are ranked as queries of their own.

    Args:
        images (Tensor): ``(N, D)``, or ``(N, V, D)`` if they have several vectors.
        texts (Tensor): ``(M, D)``.
        texts_of (Sequence[Sequence[int]]): Correct texts of each image, at least one.
        images_of (Sequence[Sequence[int]]): Correct images of each text, at least one: the same pairs.
        max_elements (int): See :func:`retrieval_ranks`.

    Returns:
        tuple[Tensor, Tensor]: ranks of images' texts ``(N,)`` and of texts' images ``(M,)``, int64.

    Raises:
        ValueError: see :func:`retrieval_ranks`; also if the two lists have different pairs, or there is no image
            or no text.

    >>> texts = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    >>> two_way_ranks(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), texts, [[0], [1, 2]], [[0], [1], [1]])
    (tensor([0, 0]), tensor([0, 0, 0]))
    """
    if not len(images) or not len(texts):
        numbers = f'{len(images)} images and {len(texts)} texts'
        raise ValueError(f'retrieval among {numbers} has no ranks; give at least one of each')
    given, (images, texts, pairs) = texts, _prepare(images, texts, texts_of)
    named = {(image, text) for text, row in enumerate(images_of) for image in row}
    if len(images_of) != len(texts) or named != set(map(tuple, pairs.T.tolist())):
        raise ValueError('texts_of and images_of have different pairs; give each pair of an image and a text in both')
    low, high = _intervals(images, texts, pairs)  # (M,)
    ranks = torch.empty(len(images), dtype=torch.int64, device=images.device)
    below_low, below_high = torch.zeros(2, len(texts), dtype=torch.int64, device=images.device)
    values = []
    for start, end, similarity, spare, (rows, columns) in _pieces(images, texts, pairs, max_elements):
        ranks[start:end] = _rank_rows(similarity, rows, columns, spare)
        below_low += _count(torch.lt(similarity, low, out=spare), 0)
        below_high += _count(torch.lt(similarity, high, out=spare), 0)
        values.append(similarity[rows, columns])
    values, owners = torch.cat(values), pairs[1]  # (P,)
    best = _best(values, owners, len(texts))
    below_low.index_add_(0, owners, -(values < low[owners]).long())
    below_high.index_add_(0, owners, -(values < high[owners]).long())
    text_ranks = len(images) - torch.bincount(owners, minlength=len(texts)) - below_high
    sure = (below_low == below_high) & (low <= best) & (best < high)
    left = ~(sure & low.isfinite() & high.isfinite())
    if left.any():
        chosen = left.nonzero()[:, 0]
        known = [images_of[text] for text in chosen.tolist()]
        text_ranks[chosen] = retrieval_ranks(given[chosen], images, known, max_elements)
    return ranks, text_ranks


def nearest_similarity(queries: Tensor, gallery: Tensor, out: Tensor | None = None) -> Tensor:
    """Multiply queries ``(Q, D)`` or ``(Q, V, D)`` and items ``(G, D)`` or ``(G, V, D)`` to similarities ``(Q, G)``.

    Of several vectors the largest product counts. ``out`` gets the result.

    >>> nearest_similarity(torch.eye(2)[None], torch.tensor([[0.6, 0.8], [-1.0, 0.0]]))
    tensor([[0.8000, 0.0000]])
    """
    if queries.ndim == gallery.ndim == 2:
        return torch.mm(queries, gallery.T, out=out)
    product = queries.flatten(0, -2) @ gallery.flatten(0, -2).T
    if queries.ndim == 3:
        return torch.amax(product.unflatten(0, queries.shape[:2]), 1, out=out)
    return torch.amax(product.unflatten(1, gallery.shape[:2]), 2, out=out)


def _prepare(queries: Tensor, gallery: Tensor, positives: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Both features in fp32 or more, and indices ``(2, P)`` of queries and their correct items, by query."""
    kinds = sorted((queries.ndim, gallery.ndim))
    if kinds not in ([2, 2], [2, 3]) or queries.shape[-1] != gallery.shape[-1]:
        raise ValueError(
            f'queries {tuple(queries.shape)} and gallery {tuple(gallery.shape)} must be (Q, D) and (G, D), or one of '
            'them (Q, V, D) or (G, V, D)'
        )
    if len(positives) != len(queries):
        raise ValueError(f'{len(queries)} queries, but correct items for {len(positives)}')
    dtype = torch.promote_types(torch.promote_types(queries.dtype, gallery.dtype), torch.float32)
    pairs = [(query, item) for query, row in enumerate(positives) for item in dict.fromkeys(row)]
    for query, row in enumerate(positives):
        if not len(row):
            raise ValueError(f'query {query} has no correct item')
    indices = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T.contiguous()
    return queries.to(dtype), gallery.to(dtype), indices.to(queries.device)


def _pieces(
    queries: Tensor, gallery: Tensor, pairs: Tensor, max_elements: int
) -> Iterator[tuple[int, int, Tensor, Tensor, Tensor]]:
    """Multiply some queries with the whole gallery at a time, in the same memory.

    Yields:
        the first query and the one after the last, similarities ``(q, G)``, another tensor of this shape to write to,
        and indices ``(2, p)`` of the correct pairs in it.
    """
    vectors = queries.shape[1:-1].numel() * gallery.shape[1:-1].numel()
    step = max(1, min(len(queries), max_elements // max(1, len(gallery) * vectors)))
    memory = queries.new_empty(2, step, len(gallery))
    progress = ProgressLog('ranking', len(queries))
    for start in range(0, len(queries), step):
        end = min(start + step, len(queries))
        similarity, spare = memory[:, : end - start]
        nearest_similarity(queries[start:end], gallery, out=similarity)
        first, last = torch.searchsorted(pairs[0], pairs.new_tensor([start, end])).tolist()
        yield start, end, similarity, spare, pairs[:, first:last] - pairs.new_tensor([[start], [0]])
        progress.update(end)


def _rank_rows(similarity: Tensor, rows: Tensor, columns: Tensor, spare: Tensor) -> Tensor:
    """Ranks ``(q,)`` from similarities ``(q, G)`` and indices ``(p,)`` of correct pairs; ``spare`` is overwritten."""
    values = similarity[rows, columns]  # (p,)
    best = _best(values, rows, len(similarity))
    # "not below" instead of "at least", so that NaN counts as before too
    ranks = similarity.shape[1] - _count(torch.lt(similarity, best[:, None], out=spare), 1)
    ranks.index_add_(0, rows, -(~(values < best[rows])).long())
    return ranks.masked_fill_(best == -torch.inf, UNRANKED)


def _best(values: Tensor, owners: Tensor, count: int) -> Tensor:
    """Highest value ``(count,)`` of each owner; NaN counts as -inf."""
    lowest = values.new_full((count,), -torch.inf)
    return lowest.scatter_reduce(0, owners, values.nan_to_num(-torch.inf, torch.inf, -torch.inf), 'amax')


def _count(ones: Tensor, dim: int) -> Tensor:
    """Number of ones along ``dim``. Sums of floats are many times as fast as those of bool, and exact to 2**24."""
    return ones.sum(dim, dtype=ones.dtype if ones.shape[dim] <= 1 << 24 else torch.float64).long()


def _intervals(images: Tensor, texts: Tensor, pairs: Tensor, pairs_at_once: int = 4096) -> tuple[Tensor, Tensor]:
    """Both ends ``(M,)`` of where the best correct similarity of each text is expected.

    They are ``sqrt(D)`` roundings of the largest similarity possible on either side, which a sum of D products seldom
    exceeds; empty if a feature is not finite.
    """
    parts = pairs.split(max(1, pairs_at_once // images.shape[1:-1].numel()), 1)
    several = images if images.ndim == 3 else images[:, None]  # (N, V, D)
    values = [(several[rows].double() * texts[columns, None].double()).sum(-1).amax(1) for rows, columns in parts]
    best = _best(torch.cat(values), pairs[1], len(texts))
    largest = torch.linalg.vector_norm(images, dim=-1).amax() * torch.linalg.vector_norm(texts, dim=1)
    width = images.shape[-1] ** 0.5 * torch.finfo(images.dtype).eps * largest.double()
    return (best - width).to(images.dtype), (best + width).to(images.dtype)
