"""Recall of image-text retrieval.

Shape legend: ``Q`` queries, ``G`` gallery items, ``N`` images, ``M`` captions, ``D`` channels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...utils.progress import ProgressLog
from ...utils.text import normalize_text
from .zero_shot import NEVER


def retrieval_ranks(
    queries: Tensor, gallery: Tensor, positives: Sequence[Sequence[int]], max_elements: int = 1 << 24
) -> Tensor:
    """How many wrong gallery items come before the best right one, for each query; 0 is a hit at 1.

    A wrong item that scores the same as the best right one comes before it, so that constant features do not
    pass for good ones. NaN similarities count against the query.

    Args:
        queries (Tensor): ``(Q, D)``.
        gallery (Tensor): ``(G, D)``; similarity is the dot product.
        positives (Sequence[Sequence[int]]): For each query the right gallery items, at least one.
        max_elements (int): Similarities held at once, which bounds memory: 9 bytes for each in fp32.

    Returns:
        Tensor: ``(Q,)`` int64 on the device of ``queries``; :data:`NEVER` where all similarities of
        right items are NaN.

    Raises:
        ValueError: shapes do not fit, or a query has no right item.
    """
    if queries.ndim != 2 or gallery.ndim != 2 or queries.shape[1] != gallery.shape[1]:
        raise ValueError(f'queries {tuple(queries.shape)} and gallery {tuple(gallery.shape)} must be (Q, D) and (G, D)')
    if len(positives) != len(queries):
        raise ValueError(f'{len(queries)} queries, but right items for {len(positives)}')
    dtype = torch.promote_types(queries.dtype, torch.float32)
    queries, gallery = queries.to(dtype), gallery.to(dtype)
    ranks = torch.empty(len(queries), dtype=torch.int64, device=queries.device)
    step = max(1, max_elements // max(1, len(gallery)))
    progress = ProgressLog('ranking', len(queries))
    for start in range(0, len(queries), step):
        chunk = queries[start : start + step]  # (q, D)
        rows = positives[start : start + step]
        if not all(rows):
            raise ValueError(f'query {start + [bool(row) for row in rows].index(False)} has no right item')
        right = torch.zeros(len(chunk), len(gallery), dtype=torch.bool, device=chunk.device)
        for i, row in enumerate(rows):
            right[i, list(row)] = True
        similarity = chunk @ gallery.T  # (q, G)
        best = similarity.masked_fill(~right, -torch.inf).nan_to_num(-torch.inf, torch.inf, -torch.inf).amax(1)
        # "not below" and not "at least", so that NaN comes before as well
        ranks[start : start + step] = (~(similarity < best[:, None]) & ~right).sum(1)
        ranks[start : start + step][best == -torch.inf] = NEVER
        progress.update(start + len(chunk))
    return ranks


def image_text_recall(
    image_feats: Tensor,
    text_feats: Tensor,
    owners: Sequence[int],
    texts: Sequence[str] | None = None,
    topk: Sequence[int] = (1, 5, 10),
    max_elements: int = 1 << 24,
) -> dict[str, float]:
    """Recall of captions by image and of images by caption.

    R@k from image to text is the fraction of images with at least one of their captions among the k best
    texts; from text to image, the fraction of texts with an image of theirs among the k best images.

    With ``texts``, captions that are equal after normalisation are one item: it is right for every image that
    has it, it is one query, and its first feature stands for it. Without, each caption is right for its own
    image alone, as in the published COCO and Flickr30K protocol.

    Args:
        image_feats (Tensor): ``(N, D)``, L2-normalised.
        text_feats (Tensor): ``(M, D)``, L2-normalised.
        owners (Sequence[int]): The image of each of the M captions; every image has one.
        texts (Sequence[str] | None): The M captions.
        topk (Sequence[int]): The k.
        max_elements (int): See :func:`retrieval_ranks`.

    Returns:
        dict[str, float]: ``'i2t_R@k'`` and ``'t2i_R@k'``, from 0 to 1.

    Raises:
        ValueError: numbers do not fit, or an image has no caption.
    """
    if len(owners) != len(text_feats) or texts is not None and len(texts) != len(text_feats):
        raise ValueError(
            f'{len(text_feats)} text features, {len(owners)} owners and '
            f'{"no" if texts is None else len(texts)} texts; the numbers must agree'
        )
    keys = range(len(owners)) if texts is None else map(normalize_text, texts)
    items: dict[int | str, int] = {}
    first: list[int] = []
    images_of: list[set[int]] = []
    texts_of: list[set[int]] = [set() for _ in range(len(image_feats))]
    for caption, (key, owner) in enumerate(zip(keys, owners, strict=True)):
        item = items.setdefault(key, len(items))
        if item == len(first):
            first.append(caption)
            images_of.append(set())
        images_of[item].add(owner)
        texts_of[owner].add(item)
    if not all(texts_of):
        raise ValueError(f'image {texts_of.index(set())} has no caption; retrieval needs at least one an image')
    item_feats = text_feats[first]  # (items, D)
    i2t = retrieval_ranks(image_feats, item_feats, [sorted(row) for row in texts_of], max_elements)
    t2i = retrieval_ranks(item_feats, image_feats, [sorted(row) for row in images_of], max_elements)
    ranks = {'i2t': i2t, 't2i': t2i}
    return {f'{way}_R@{k}': (ranks[way] < k).double().mean().item() for way in ranks for k in topk}
