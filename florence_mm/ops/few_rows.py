"""Products of few rows with large weights, as each step of writing has them: of next tokens, and of some words alone.

Reading the weight is what takes the time. MKL reads it several times for few rows, and once in the transposed product;
oneDNN is faster still, where it is fast (AMD with AVX-512), but for two or three rows.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .inference import fast_path_allowed, has_plain_weight
from .linear import product
from .mkldnn_products import prefers_onednn

# the product of so few rows and a weight of so many numbers is computed transposed; with more numbers, of more rows
_FEW_ROWS, _LARGE = 3, 500_000
_MORE_ROWS, _VERY_LARGE = 6, 4_000_000
# oneDNN takes products of so few rows with large weights, and others of so many multiplications, as it makes a kernel
# for each new number of rows; those with very large weights always
_ONEDNN_ROWS, _ONEDNN_MULTIPLICATIONS = 16, 2**28


def few_rows_linear(x: Tensor, layer: nn.Linear | nn.Embedding) -> Tensor:
    """Apply a large linear layer to few rows, such as those of the next token of a few texts.

    Args:
        x: ``(N, C)``.
        layer: its weight is ``(V, C)``; of embeddings, the products with all of them.

    Returns:
        ``(N, V)``. On the fast path the transposed product is computed, which takes less than half the time, or
        oneDNN's where that is faster, also of many rows.
    """
    tied = isinstance(layer, nn.Embedding)
    plain = x.ndim == 2 and fast_path_allowed(x) and has_plain_weight(layer) and fast_path_allowed(x, layer.weight)
    if not plain or layer.weight.numel() < _LARGE:
        return F.linear(x, layer.weight) if tied else layer(x)
    return _few_rows_product(x, layer.weight, None if tied else layer.bias)


def some_outputs(x: Tensor, layer: nn.Linear | nn.Embedding, outputs: range | Tensor) -> Tensor:
    """Compute some outputs of a linear layer that :func:`has_plain_weight`, without its bias and without gradients.

    Args:
        x: ``(N, C)``.
        layer: its weight is ``(V, C)``.
        outputs: their n places, ascending; those of a range are read without a copy.

    Returns:
        ``(N, n)``.
    """
    if isinstance(outputs, range):
        weight = layer.weight[outputs.start : outputs.stop]
    else:
        weight = layer.weight.index_select(0, outputs.to(layer.weight.device))
    return _few_rows_product(x, weight, None) if weight.numel() >= _LARGE else F.linear(x, weight)


def is_large_on_cpu(layer: nn.Linear | nn.Embedding) -> bool:
    """Whether some outputs of a layer are worth computing without the others: it is large, and this is inference."""
    return has_plain_weight(layer) and layer.weight.numel() >= _LARGE and fast_path_allowed(layer.weight)


def _few_rows_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    very_large = weight.numel() >= _VERY_LARGE
    if x.dtype == torch.float32 and prefers_onednn():
        # two or three rows are faster transposed, but for weights with more columns than rows
        is_transposed = 1 < len(x) <= _FEW_ROWS and weight.shape[0] >= weight.shape[1]
        is_worth_it = very_large or len(x) <= _ONEDNN_ROWS or x.numel() * weight.shape[0] >= _ONEDNN_MULTIPLICATIONS
        if is_worth_it and not is_transposed:
            return product(x, weight, bias)
    if len(x) > (_MORE_ROWS if very_large else _FEW_ROWS):
        return F.linear(x, weight, bias)
    if bias is None:
        return torch.mm(weight, x.t()).t().contiguous()
    return torch.addmm(bias[:, None], weight, x.t()).t().contiguous()
