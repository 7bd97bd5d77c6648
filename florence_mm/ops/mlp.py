"""An MLP that ends in a residual stream, with a short cut where nothing needs a gradient.

Fresh memory is the cost a CPU feels most beside the matrix products themselves: every new page is a trip through the
operating system. Without gradients the result is therefore added to the stream in place, and the hidden layer is worked
off in pieces that stay in the cache.

Shapes: ``x`` and ``stream`` are ``(..., C)``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_HIDDEN_ELEMENTS = 1_200_000  # of an MLP's hidden layer at a time: 4.8 MB in float32
_FEW_ROWS, _WIDE = 8, 16  # rows, and outputs in multiples of the inputs, from which a product is turned round


def without_autograd(*tensors: Tensor) -> bool:
    """Whether plain CPU arithmetic without gradients is going on, so that results may be written into given memory."""
    return (
        not torch.is_grad_enabled()
        and all(t.device.type == 'cpu' and t.dtype == tensors[0].dtype for t in tensors)
        and not torch.is_autocast_enabled('cpu')
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # operators are being counted or exported
    )


def add_mlp(stream: Tensor, x: Tensor, fc1: nn.Linear, fc2: nn.Linear) -> Tensor:
    """``stream + fc2(gelu(fc1(x)))``; may overwrite ``stream``, so hand over one that nobody else reads."""
    if not without_autograd(stream, x, fc1.weight) or not stream.is_contiguous():
        return stream + fc2(F.gelu(fc1(x)))
    rows, out = x.reshape(-1, x.shape[-1]), stream.view(-1, stream.shape[-1])
    out.add_(fc2.bias)
    step = max(1, _HIDDEN_ELEMENTS // fc1.out_features)
    hidden = x.new_empty(min(step, len(rows)), fc1.out_features)
    for part, target in zip(rows.split(step), out.split(step), strict=True):
        piece = hidden[: len(part)]
        torch.addmm(fc1.bias, part, fc1.weight.t(), out=piece)
        torch.ops.aten.gelu_(piece)
        target.addmm_(piece, fc2.weight.t())
    return stream


def few_rows_linear(x: Tensor, weight: Tensor) -> Tensor:
    """``x @ weight.T`` of few rows with a very wide weight, such as the next token's logits.

    Args:
        x: ``(N, C)``.
        weight: ``(V, C)``.

    Returns:
        ``(N, V)``. On a CPU without gradients by the product the other way round, which takes less than half of the
        time.
    """
    few = x.ndim == 2 and len(x) <= _FEW_ROWS and len(weight) >= _WIDE * x.shape[1]
    if not few or not without_autograd(x, weight):
        return F.linear(x, weight)
    return torch.mm(weight, x.t()).t().contiguous()
