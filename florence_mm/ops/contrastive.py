"""The unified contrastive loss of UniCL, exact, distributed, with memory linear in the batch.

Florence (arXiv 2111.11432), equations 1 to 3. For image features ``u``, text features ``v``, temperature
multiplier ``tau`` and ``P(i)``, the pairs whose label equals that of pair ``i``,

    L_i2t = mean_i( -1/|P(i)| sum_{k in P(i)} log softmax_k(tau u_i . v_k) ),   L_t2i with the roles swapped.

Three facts keep it cheap. The softmax needs one log-sum-exp per row and per column, both accumulated over row
chunks of the logits, so one matrix product serves both directions. The sum over positives is a product with the sum
of a class's features, so no ``B x B`` target is built. The gradient has a closed form in these numbers, so the
backward pass recomputes the chunks instead of storing them.

Shape legend: ``b`` pairs on this process, ``W`` processes, ``B = W * b`` pairs in all, ``D`` channels,
``n`` rows of a chunk.
"""

from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from .collectives import Peers

# one chunk of logits should stay in a CPU's cache, and fill an accelerator
CHUNK_BYTES = {'cpu': 8 << 20}
CHUNK_BYTES_ACCELERATOR = 256 << 20
KEEP_BYTES = 64 << 20


def unified_contrastive_loss(
    image_feat: Tensor,
    text_feat: Tensor,
    labels: Tensor,
    logit_scale: Tensor,
    chunk_size: int | None = None,
    group: dist.ProcessGroup | None = None,
    keep_bytes: int = KEEP_BYTES,
) -> tuple[Tensor, Tensor]:
    """Compute both terms of the unified contrastive loss (UniCL) over the batches of all processes.

    The terms are means over the ``B`` pairs of all processes and equal on each of them. Their gradients are
    scaled so that *averaging* parameter gradients over processes, as DistributedDataParallel does, gives the
    gradient of one process that holds all pairs. Arithmetic is at least fp32, also under autocast.

    Args:
        image_feat: ``(b, D)`` image features, L2-normalised by the caller.
        text_feat: ``(b, D)`` text features, L2-normalised by the caller.
        labels: ``(b,)`` integers; pairs with equal labels, on any process, are each other's positives.
        logit_scale: one number, the factor on the cosines (``exp`` of the trained parameter).
        chunk_size: rows of logits held at a time; None: by the device.
        group: the processes that share the batch; None means all.
        keep_bytes: bytes of logits kept for the backward pass, which need not be recomputed; a constant, so that
            memory stays linear in the batch.

    Returns:
        ``(loss_i2t, loss_t2i)``, 0-d tensors; the paper's loss is their sum.

    Raises:
        ValueError: shapes do not fit, or the batches of the processes differ in size.

    Two pairs with different labels, then with equal labels, so that both texts are positives:

    >>> image_feat = text_feat = torch.eye(2)
    >>> unified_contrastive_loss(image_feat, text_feat, torch.tensor([0, 1]), torch.tensor(1.0))  # ln(1 + 1 / e)
    (tensor(0.3133), tensor(0.3133))
    >>> unified_contrastive_loss(image_feat, text_feat, torch.tensor([0, 0]), torch.tensor(1.0))
    (tensor(0.8133), tensor(0.8133))
    """
    if image_feat.ndim != 2 or image_feat.shape != text_feat.shape or not image_feat.numel():
        raise ValueError(
            f'image_feat has shape {tuple(image_feat.shape)} and text_feat {tuple(text_feat.shape)}; '
            'give two non-empty matrices of one shape (pairs, channels)'
        )
    if labels.shape != image_feat.shape[:1] or labels.is_floating_point():
        raise ValueError(
            f'labels has shape {tuple(labels.shape)} and type {labels.dtype}; '
            f'give one integer a pair, shape ({image_feat.shape[0]},)'
        )
    if logit_scale.numel() != 1:
        raise ValueError(f'logit_scale has shape {tuple(logit_scale.shape)}; give one number')
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f'chunk_size is {chunk_size}; give at least 1, or None')
    peers = Peers(group)
    peers.check_equal_shapes(image_feat)
    return _UnifiedContrastive.apply(
        image_feat, text_feat, labels.long(), logit_scale.reshape(()), chunk_size, peers, keep_bytes
    )


class _UnifiedContrastive(torch.autograd.Function):
    @staticmethod
    def forward(ctx, image, text, labels, scale, chunk_size, peers, keep_bytes):
        texts = peers.gather_rows(text)  # (B, D)
        ids, counts = _classes(peers.gather_rows(labels))
        dtype = torch.promote_types(torch.promote_types(image.dtype, text.dtype), torch.float32)
        with torch.autocast(image.device.type, enabled=False):
            a, t = image.to(dtype), texts.to(dtype)
            b, B = len(a), len(t)
            tau = scale.to(dtype)
            row_lse = a.new_empty(b)
            col_lse = a.new_full((B,), -torch.inf)
            chunks = list(_chunks(b, B, chunk_size, a))
            keep = keep_bytes // (chunks[0].stop * B * a.element_size())
            kept: list[Tensor] = []
            for index, rows in enumerate(chunks):
                logits = (a[rows] * tau) @ t.T  # (n, B)
                row_lse[rows] = logits.logsumexp(1)
                col_lse = torch.logaddexp(col_lse, logits.logsumexp(0))
                if index < keep:
                    kept.append(logits)
            col_lse = peers.logsumexp(col_lse)
            mine = slice(peers.rank * b, (peers.rank + 1) * b)
            positive = tau * (a * _class_means(t, ids, counts)[mine]).sum()
            row_sum, positive = peers.sum(torch.stack([row_lse.sum(), positive]))
        ctx.save_for_backward(image, texts, ids, counts, scale, row_lse, col_lse, *kept)
        ctx.chunks, ctx.peers, ctx.dtype, ctx.text_dtype = chunks, peers, dtype, text.dtype
        return (row_sum - positive) / B, (col_lse.sum() - positive) / B

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_i2t, grad_t2i):
        image, texts, ids, counts, scale, row_lse, col_lse, *kept = ctx.saved_tensors
        peers: Peers = ctx.peers
        with torch.autocast(image.device.type, enabled=False):
            a, t, tau = image.to(ctx.dtype), texts.to(ctx.dtype), scale.to(ctx.dtype)
            b, B = len(a), len(t)
            # dL/d(a t^T) = tau * (grad_i2t P_row + grad_t2i P_col - (grad_i2t + grad_t2i) target) / B
            grad_a = torch.empty_like(a)
            grad_t = torch.zeros_like(t) if ctx.needs_input_grad[1] else None
            for index, rows in enumerate(ctx.chunks):
                logits = kept[index] if index < len(kept) else (a[rows] * tau) @ t.T  # (n, B)
                p = (logits - row_lse[rows, None]).exp_().mul_(grad_i2t)
                p.addcmul_((logits - col_lse).exp_(), grad_t2i)
                torch.mm(p, t, out=grad_a[rows])
                if grad_t is not None:
                    grad_t.addmm_(p.T, a[rows])
            mine = slice(peers.rank * b, (peers.rank + 1) * b)
            both = grad_i2t + grad_t2i
            grad_a -= both * _class_means(t, ids, counts)[mine]
            # W undoes the average over processes, of which each holds one part of the gradient
            grad_a *= peers.size / B
            grad_tau = (a * grad_a).sum()
            if grad_t is not None:
                grad_t -= both * _class_means(a, ids[mine], counts, ids)
                grad_t = (peers.scatter_sum(grad_t) * (tau * peers.size / B)).to(ctx.text_dtype)
            grad_a *= tau
        return grad_a.to(image.dtype), grad_t, None, grad_tau.to(scale.dtype), None, None, None


def _classes(labels: Tensor) -> tuple[Tensor, Tensor]:
    """For each pair a number of its class, below ``B``, and how many pairs are in it; no size depends on values.

    The number is the place of the class's first pair in sorted order. ``torch.unique`` would wait for the device.
    """
    ordered = labels.sort().values
    ids = torch.searchsorted(ordered, labels)
    return ids, torch.searchsorted(ordered, labels, right=True) - ids


def _class_means(x: Tensor, ids: Tensor, counts: Tensor, pair_ids: Tensor | None = None) -> Tensor:
    """For each pair: the sum of the rows of ``x (m, D)`` that share its class, over the class's size in the batch.

    ``ids (m,)`` are the classes of the rows, ``pair_ids (B,)`` those of the pairs (``ids`` if None) and ``counts (B,)``
    the class sizes of the pairs.
    """
    pair_ids = ids if pair_ids is None else pair_ids
    sums = x.new_zeros(len(counts), x.shape[1]).index_add_(0, ids, x)
    return sums[pair_ids] / counts[:, None]


def _chunks(b: int, B: int, chunk_size: int | None, x: Tensor) -> Iterator[slice]:
    if chunk_size is None:
        size = CHUNK_BYTES.get(x.device.type, CHUNK_BYTES_ACCELERATOR)
        chunk_size = max(16, size // (B * x.element_size()))
    for start in range(0, b, chunk_size):
        yield slice(start, min(start + chunk_size, b))
