"""Contrastive loss of images with several vectors: the similarity is that of the nearest (BLIP-2, arXiv 2301.12597).

Source: section 3.2 of the paper; LAVIS ``lavis/models/blip2_models/blip2_qformer.py``.

Shape legend: ``b`` pairs on this process, ``B`` pairs of all processes, ``Q`` vectors of an image, ``D`` channels.
"""

import torch
import torch.distributed as dist
from torch import Tensor

from .collectives import Peers
from .precision import at_least_float32


def nearest_similarities(image_feat: Tensor, text_feat: Tensor) -> Tensor:
    """Compute the similarities ``(n, m)`` of images and texts, of an image's vectors that of the nearest one.

    Args:
        image_feat: ``(n, Q, D)``, or ``(n, D)`` for one vector an image.
        text_feat: ``(m, D)``.
    """
    if image_feat.ndim == 2:
        return image_feat @ text_feat.T
    return (image_feat @ text_feat.T).amax(1)  # (n, Q, m) -> (n, m)


def nearest_contrastive_loss(
    image_feat: Tensor,
    text_feat: Tensor,
    labels: Tensor,
    logit_scale: Tensor,
    label_smoothing: float = 0.0,
    group: dist.ProcessGroup | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute the cross-entropy of similarities in both directions, over the batches of all processes.

    With smoothing s the target of item k for query i is ``(1 - s) [k is a positive of i] / |positives of i| + s / B``.
    The terms are means over this process's pairs; features of other processes are gathered with gradient, so that
    averaging parameter gradients over processes gives the gradient of one process that holds all pairs.

    Args:
        image_feat: ``(b, Q, D)`` or ``(b, D)``, L2-normalised by the caller.
        text_feat: ``(b, D)``, L2-normalised by the caller.
        labels: ``(b,)`` integers; pairs with equal labels, on any process, are each other's positives.
        logit_scale: one number, the factor on the cosines.
        label_smoothing: s.
        group: the processes that share the batch; None means all.

    Returns:
        ``(loss_i2t, loss_t2i)``, 0-d tensors.

    Raises:
        ValueError: shapes do not fit, or the batches of the processes differ in size.

    Two images with two vectors each, of which one equals the own text and the other is far from both:

    >>> text = torch.eye(3)[:2]
    >>> image = torch.stack([text, -torch.eye(3)[2:].expand(2, -1)], 1)
    >>> nearest_contrastive_loss(image, text, torch.tensor([0, 1]), torch.tensor(1.0))  # ln(1 + 1 / e)
    (tensor(0.3133), tensor(0.3133))
    """
    if image_feat.ndim not in (2, 3) or text_feat.shape != (len(image_feat), image_feat.shape[-1]):
        raise ValueError(
            f'image_feat has shape {tuple(image_feat.shape)} and text_feat {tuple(text_feat.shape)}; give '
            '(pairs, vectors, channels) and (pairs, channels)'
        )
    peers = Peers(group)
    peers.check_equal_shapes(image_feat)
    image_feat, text_feat = at_least_float32(image_feat), at_least_float32(text_feat)
    with torch.autocast(image_feat.device.type, enabled=False):
        labels_of_all = peers.gather_rows(labels)  # (B,)
        positives = labels[:, None] == labels_of_all  # (b, B)
        targets = positives.to(image_feat.dtype) * (1 - label_smoothing) / positives.sum(1, keepdim=True)
        targets = targets + label_smoothing / len(labels_of_all)
        i2t = nearest_similarities(image_feat, peers.gather_learned_rows(text_feat))  # (b, B)
        t2i = nearest_similarities(peers.gather_learned_rows(image_feat), text_feat).T  # (b, B)
        losses = [-(targets * (logit_scale * one).log_softmax(1)).sum(1).mean() for one in (i2t, t2i)]
    return losses[0], losses[1]
