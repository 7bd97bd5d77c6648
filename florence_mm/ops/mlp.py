"""MLP with residual connection, and a CPU fast path for inference.

After the matrix products, allocating memory is what costs a CPU most: every new page goes through the operating
system. The fast path therefore adds the result to the residual in place and computes the hidden layer in chunks that
stay in the cache.

Shapes: ``x`` and ``residual`` are ``(..., C)``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_HIDDEN_ELEMENTS = 1_200_000  # of an MLP's hidden layer at a time: 4.8 MB in float32
# the product of at most so many rows and a weight of at least so many numbers is computed transposed
_FEW_ROWS, _LARGE = 6, 4_000_000


def fast_path_allowed(*tensors: Tensor) -> bool:
    """Whether results may be written in place: eager CPU inference of one dtype, without gradients or autocast."""
    return (
        not torch.is_grad_enabled()
        and all(t.device.type == 'cpu' and t.dtype == tensors[0].dtype for t in tensors)
        and not torch.is_autocast_enabled('cpu')
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # operators are being counted or exported
    )


def add_mlp(residual: Tensor, x: Tensor, fc1: nn.Linear, fc2: nn.Linear) -> Tensor:
    """Add an MLP to the residual: ``residual + fc2(gelu(fc1(x)))``. May overwrite ``residual``."""
    if not fast_path_allowed(residual, x, fc1.weight) or not residual.is_contiguous():
        return residual + fc2(F.gelu(fc1(x)))
    rows, out = x.reshape(-1, x.shape[-1]), residual.view(-1, residual.shape[-1])
    out.add_(fc2.bias)
    step = max(1, _HIDDEN_ELEMENTS // fc1.out_features)
    hidden = x.new_empty(min(step, len(rows)), fc1.out_features)
    for part, target in zip(rows.split(step), out.split(step), strict=True):
        chunk = hidden[: len(part)]
        torch.addmm(fc1.bias, part, fc1.weight.t(), out=chunk)
        torch.ops.aten.gelu_(chunk)
        target.addmm_(chunk, fc2.weight.t())
    return residual


def few_rows_linear(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply few rows by a large weight, ``x @ weight.T``, such as for the next token's logits.

    Args:
        x: ``(N, C)``.
        weight: ``(V, C)``.

    Returns:
        ``(N, V)``. On the fast path the transposed product is computed, which takes less than half the time.
    """
    few = x.ndim == 2 and len(x) <= _FEW_ROWS and weight.numel() >= _LARGE
    if not few or not fast_path_allowed(x, weight):
        return F.linear(x, weight)
    return torch.mm(weight, x.t()).t().contiguous()
