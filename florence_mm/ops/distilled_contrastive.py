"""The contrastive loss of ALBEF and BLIP: keys from a momentum model, soft targets (arXiv 2107.07651, equation 6).

Shape legend: ``b`` queries on this process, ``N`` keys (those of the batch on all processes, then a queue), ``D``
channels.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .precision import at_least_float32


def distilled_contrastive_loss(
    queries: Tensor,
    teacher_queries: Tensor,
    keys: Tensor,
    positives: Tensor,
    temperature: Tensor,
    alpha: float | Tensor,
) -> Tensor:
    """Compute the cross-entropy of similarities with soft targets, a mean over the queries of this process.

    With ``s(q, k) = q . k / temperature``, the target of key k for query i is
    ``alpha softmax_k s(teacher_i, k) + (1 - alpha) [k is a positive of i] / |positives of i|``. No gradient reaches
    teacher, keys and targets.

    Args:
        queries: ``(b, D)``, L2-normalised features of one modality.
        teacher_queries: ``(b, D)``, the momentum model's features of the same items.
        keys: ``(N, D)``, the momentum model's features of the other modality.
        positives: ``(b, N)`` bool, at least one True in each row.
        temperature: one number.
        alpha: weight of the teacher's similarities, from 0 to 1.

    Raises:
        ValueError: the shapes do not fit.

    Two queries that equal their keys, at temperature 1, without and with a teacher that sees no difference:

    >>> eye, positives = torch.eye(2), torch.eye(2, dtype=torch.bool)
    >>> distilled_contrastive_loss(eye, eye, eye, positives, torch.tensor(1.0), 0.0)  # ln(1 + 1 / e)
    tensor(0.3133)
    >>> distilled_contrastive_loss(eye, 0 * eye, eye, positives, torch.tensor(1.0), 0.5)
    tensor(0.5633)
    """
    if queries.shape != teacher_queries.shape or queries.shape[1:] != keys.shape[1:]:
        raise ValueError(
            f'queries have shape {tuple(queries.shape)}, those of the teacher {tuple(teacher_queries.shape)} and keys '
            f'{tuple(keys.shape)}; give (queries, channels) twice and (keys, channels)'
        )
    if positives.shape != (len(queries), len(keys)) or positives.dtype != torch.bool:
        raise ValueError(
            f'positives have shape {tuple(positives.shape)} and type {positives.dtype}; give bool of shape '
            f'({len(queries)}, {len(keys)})'
        )
    queries, teacher_queries, keys = (at_least_float32(x) for x in (queries, teacher_queries.detach(), keys.detach()))
    with torch.autocast(queries.device.type, enabled=False):
        scale = 1 / temperature.to(queries.dtype)
        with torch.no_grad():
            hard = positives.to(queries.dtype)
            hard = hard / hard.sum(1, keepdim=True)
            soft = ((teacher_queries * scale) @ keys.T).softmax(1)
            targets = hard + alpha * (soft - hard)  # (b, N)
        return F.cross_entropy((queries * scale) @ keys.T, targets)
