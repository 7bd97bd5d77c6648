"""Recall and ranks of retrieval between texts and images or videos.

Shape legend: ``Q`` queries, ``G`` gallery items, ``N`` images, ``M`` captions, ``D`` channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from florence_mm.language.labels import normalize_text

from .ranks import two_way_ranks

#: names of the two directions: from image or video to text, and back
DIRECTIONS = {'image': ('i2t', 't2i'), 'video': ('v2t', 't2v')}


def summarize_ranks(ranks: Tensor, gallery_size: int, topk: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """Compute recall, median rank and mean rank.

    Args:
        ranks (Tensor): ``(Q,)`` from :func:`.ranks.retrieval_ranks`, 0 for the first place.
        gallery_size (int): G.
        topk (Sequence[int]): The k of recall.

    Returns:
        dict[str, float]: ``'R@k'``, the fraction of ranks below k; ``'MdR'`` and ``'MnR'``, median and mean of the
        ranks counted from 1. The median of an even number is the mean of the middle two; what has no rank counts as the
        last place, G.

    >>> import torch
    >>> summarize_ranks(torch.tensor([0, 0, 2, 7]), gallery_size=10, topk=(1, 5))
    {'R@1': 0.5, 'R@5': 0.75, 'MdR': 2.0, 'MnR': 3.25}
    """
    scores = {f'R@{k}': (ranks < k).double().mean().item() for k in topk}
    places = ranks.clamp(max=gallery_size - 1).cpu().numpy() + 1
    return {**scores, 'MdR': float(np.median(places)), 'MnR': float(np.mean(places))}


@dataclass(frozen=True)
class CaptionItems:
    """Captions as gallery items, and their images.

    Attributes:
        first: index of each item's first caption, whose feature represents it.
        images_of: correct images of each item.
        items_of: correct items of each image.
    """

    first: list[int]
    images_of: list[list[int]]
    items_of: list[list[int]]


def group_captions(
    owners: Sequence[int], texts: Sequence[str] | None, num_images: int, modality: str = 'image'
) -> CaptionItems:
    """Merge captions that are equal after normalisation into one item; without ``texts`` each caption is its own item.

    Args:
        owners (Sequence[int]): Image of each of the M captions.
        texts (Sequence[str] | None): The M captions.
        num_images (int): N.
        modality (str): Name of the images in messages.

    Raises:
        ValueError: an image has no caption.
    """
    keys = range(len(owners)) if texts is None else map(normalize_text, texts)
    items: dict[int | str, int] = {}
    first: list[int] = []
    images_of: list[set[int]] = []
    items_of: list[set[int]] = [set() for _ in range(num_images)]
    for caption, (key, owner) in enumerate(zip(keys, owners, strict=True)):
        item = items.setdefault(key, len(items))
        if item == len(first):
            first.append(caption)
            images_of.append(set())
        images_of[item].add(owner)
        items_of[owner].add(item)
    if not all(items_of):
        raise ValueError(f'{modality} {items_of.index(set())} has no caption; retrieval needs at least one for each')
    return CaptionItems(first, [sorted(row) for row in images_of], [sorted(row) for row in items_of])


def image_text_recall(
    image_feats: Tensor,
    text_feats: Tensor,
    owners: Sequence[int],
    texts: Sequence[str] | None = None,
    topk: Sequence[int] = (1, 5, 10),
    max_elements: int = 1 << 24,
    modality: str = 'image',
) -> dict[str, float]:
    """Compute recall and ranks of image-to-text and text-to-image retrieval (or with videos).

    R@k from image to text is the fraction of images with at least one of their captions among the k best texts; from
    text to image, the fraction of texts with one of their images among the k best images. MdR and MnR are median and
    mean of the rank of the best correct item among the wrong ones, counted from 1.

    With ``texts``, captions that are equal after normalisation are one item: one query, correct for every image that
    has it, represented by its first feature. Without, each caption is correct only for its own image, as in the
    published COCO and Flickr30K protocol.

    Args:
        image_feats (Tensor): ``(N, D)``, L2-normalised, or ``(N, V, D)`` of V vectors, of which the nearest counts.
        text_feats (Tensor): ``(M, D)``, L2-normalised.
        owners (Sequence[int]): Image of each of the M captions; every image has at least one.
        texts (Sequence[str] | None): The M captions.
        topk (Sequence[int]): The k of recall.
        max_elements (int): See :func:`.ranks.retrieval_ranks`.
        modality (str): 'image', or 'video' for the names ``v2t`` and ``t2v``.

    Returns:
        dict[str, float]: ``'i2t_R@k'`` and ``'t2i_R@k'``, from 0 to 1; ``'i2t_MdR'``, ``'i2t_MnR'``, ``'t2i_MdR'`` and
        ``'t2i_MnR'``, from 1. See :func:`summarize_ranks`.

    Raises:
        ValueError: lengths differ, an image has no caption, or the modality is unknown.
    """
    if modality not in DIRECTIONS:
        raise ValueError(f'modality={modality!r} of retrieval must be one of {", ".join(DIRECTIONS)}')
    if len(owners) != len(text_feats) or texts is not None and len(texts) != len(text_feats):
        raise ValueError(
            f'{len(text_feats)} text features, {len(owners)} owners and '
            f'{"no" if texts is None else len(texts)} texts; the numbers must agree'
        )
    items = group_captions(owners, texts, len(image_feats), modality)
    item_feats = text_feats[items.first]  # (items, D)
    ranks = two_way_ranks(image_feats, item_feats, items.items_of, items.images_of, max_elements)
    scores = {}
    for direction, found, gallery in zip(DIRECTIONS[modality], ranks, (item_feats, image_feats), strict=True):
        summary = summarize_ranks(found, len(gallery), topk)
        scores.update({f'{direction}_{name}': value for name, value in summary.items()})
    return scores
