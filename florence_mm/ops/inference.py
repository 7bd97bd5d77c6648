"""What inference may do and training may not: write results in place, and keep them until weights change.

Not while operators are recorded, to be exported, traced or compiled.

After the matrix products, allocating memory is what costs a CPU most: every new page goes through the operating
system. The fast path therefore adds the result to the residual in place and computes the hidden layer in chunks that
stay in the cache.

Shapes: ``x`` and ``residual`` are ``(..., C)``.
"""

from collections.abc import Iterable
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as all_modules

from .linear import product
from .mkldnn_products import gelu_linear, has_bfloat16_products, has_mkldnn, linear_add, prefers_onednn

#: Factor of QuickGELU: ``x * sigmoid(1.702 x)`` is ``silu(1.702 x) / 1.702``.
QUICK_GELU_FACTOR = 1.702
_HIDDEN_ELEMENTS = 1_200_000  # of an MLP's hidden layer at a time: 4.8 MB in float32
_ONEDNN_ELEMENTS = 100_000  # of a hidden layer in float32, from which on oneDNN's calls are worth their time
_DROPOUT_RATES = ('p', 'rate', 'dropout', 'attention_dropout', 'drop_prob', 'drop_rate', 'attn_drop_rate')
_SMALL = 16384  # elements; CPU tensors up to this size are compared element by element
_KEPT = 100_000  # numbers in the weight of a convolution, from which on keeping it is worth its check
_WORDS = 255  # words of 8 bytes in one partial sum; odd, so that flipping the highest bit of all of them changes it
_MIX = 0x1E3779B97F4A7C15  # odd, so that multiplying by it modulo 2**64 loses nothing
# products of so few (more) rows with so large (very large) weights are transposed, as MKL reads the weight once then
_FEW_ROWS, _LARGE = 3, 500_000
_MORE_ROWS, _VERY_LARGE = 6, 4_000_000
# oneDNN takes products of so few rows with large weights, and others of so many multiplications, as it makes a kernel
# for each new number of rows; those with very large weights always
_ONEDNN_ROWS, _ONEDNN_MULTIPLICATIONS = 16, 2**26
_LAYERS = (nn.Linear, nn.Conv2d, nn.Conv3d)
_TENSORS = (Tensor, nn.Parameter)
_HOOKS = ('_forward_hooks', '_forward_pre_hooks', '_backward_hooks', '_backward_pre_hooks')
_GLOBAL_HOOKS = (
    '_global_forward_hooks',
    '_global_forward_pre_hooks',
    '_global_backward_hooks',
    '_global_backward_pre_hooks',
)


def is_traced() -> bool:
    """Whether a model is being exported or traced, where only plain operators may be used."""
    return torch.compiler.is_exporting() or torch.jit.is_tracing()


def is_compiling() -> bool:
    """Whether a model is being compiled (``torch.compile``), and not exported."""
    return torch.compiler.is_compiling() and not torch.compiler.is_exporting()


def is_recorded() -> bool:
    """Whether a model is being exported, traced or compiled: no size may depend on values."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def drops_at_random(part: nn.Module) -> bool:
    """Whether a part drops values at random as it is now, so that equal inputs have different outputs.

    Any positive rate by a name that ours, torch and transformers use counts, as a layer may drop by a function.
    """
    rates = (getattr(module, name, None) for module in part.modules() if module.training for name in _DROPOUT_RATES)
    return any(isinstance(rate, int | float) and rate > 0 for rate in rates)


def quick_gelu(x: Tensor) -> Tensor:
    """Compute ``x * sigmoid(1.702 x)``, the approximate GELU of CLIP, for a tensor of any shape."""
    return F.silu(QUICK_GELU_FACTOR * x) / QUICK_GELU_FACTOR


def fast_path_allowed(*tensors: Tensor) -> bool:
    """Whether results may be written in place: eager CPU inference of one dtype, without gradients or autocast."""
    return (
        not torch.is_grad_enabled()
        and all(t.device.type == 'cpu' and t.dtype == tensors[0].dtype for t in tensors)
        and not torch.is_autocast_enabled('cpu')
        and not is_recorded()
    )


# --- layers that nobody has touched -----------------------------------------------------------------------------------
# Others replace what is inside a model: torch.ao.quantization and LoRA put other classes in the place of nn.Linear,
# torchao other tensors in the place of weights, and hooks look at, or change, what goes through a layer. A fast path
# that reads weights is for layers that nobody has touched.


def is_untouched(*modules: nn.Module) -> bool:
    """Whether calling modules runs their ``forward`` alone: no hooks, and no function in its place."""
    return not any(getattr(all_modules, name) for name in _GLOBAL_HOOKS) and all(
        'forward' not in vars(module) and not any(getattr(module, name) for name in _HOOKS) for module in modules
    )


def is_plain(*layers: nn.Module) -> bool:
    """Whether layers are linear layers or convolutions of PyTorch itself with common tensors, and untouched.

    >>> is_plain(nn.Linear(2, 3)), is_plain(nn.utils.parametrizations.weight_norm(nn.Linear(2, 3)))
    (True, False)
    """
    return all(type(layer) in _LAYERS and _has_tensors(layer) for layer in layers) and is_untouched(*layers)


def _has_tensors(layer: nn.Module) -> bool:
    # read past the attributes, which wrappers for distributed training may have replaced
    return all(value is None or type(value) in _TENSORS for value in layer._parameters.values()) and (
        'weight' in layer._parameters
    )


def has_plain_weight(layer: nn.Linear | nn.Embedding) -> bool:
    """Whether products with a layer's weight are what the layer computes: see :func:`is_plain`; embeddings have hooks.

    >>> has_plain_weight(nn.Embedding(5, 2)), has_plain_weight(nn.utils.parametrizations.weight_norm(nn.Linear(2, 3)))
    (True, False)
    """
    return _has_tensors(layer) if isinstance(layer, nn.Embedding) else is_plain(layer)


def is_gelu(module: nn.Module) -> bool:
    """Whether a module is the exact GELU of PyTorch, and untouched."""
    return type(module) is nn.GELU and module.approximate == 'none' and is_untouched(module)


# --- fast paths -------------------------------------------------------------------------------------------------------


def add_mlp(residual: Tensor, x: Tensor, fc1: nn.Linear, fc2: nn.Linear, act: str = 'gelu') -> Tensor:
    """Add an MLP to the residual: ``residual + fc2(act(fc1(x)))``. May overwrite ``residual``.

    Args:
        residual: ``(..., C)``.
        x: ``(..., C)``, the input of the MLP.
        fc1: its first layer.
        fc2: its second layer.
        act: ``'gelu'`` or ``'quick_gelu'``.
    """
    fast = residual.is_contiguous() and fast_path_allowed(residual, x) and is_plain(fc1, fc2)
    if fast and act == 'gelu' and x.dtype == torch.bfloat16:
        fast = has_bfloat16_products()  # what follows for others rounds more often than the layers
    if not fast or fc1.bias is None or fc2.bias is None or not fast_path_allowed(x, fc1.weight, fc2.weight):
        return residual + fc2((F.gelu if act == 'gelu' else quick_gelu)(fc1(x)))
    rows, out = x.reshape(-1, x.shape[-1]), residual.view(-1, residual.shape[-1])
    step = max(1, _HIDDEN_ELEMENTS // fc1.out_features)
    if act == 'gelu' and _by_onednn(x, len(rows) * fc1.out_features):
        step = -(-len(rows) // max(1, round(len(rows) / step)))  # equal parts, as short products are slow
        for part, target in zip(rows.split(step), out.split(step), strict=True):
            target.copy_(linear_add(gelu_linear(part, fc1), fc2, target))
        return residual
    out.add_(fc2.bias)
    hidden = x.new_empty(min(step, len(rows)), fc1.out_features)
    # the factor of QuickGELU before and after it costs nothing inside the products
    activate, factor = (torch.ops.aten.gelu_, 1.0) if act == 'gelu' else (torch.ops.aten.silu_, QUICK_GELU_FACTOR)
    for part, target in zip(rows.split(step), out.split(step), strict=True):
        chunk = hidden[: len(part)]
        torch.addmm(fc1.bias, part, fc1.weight.t(), beta=factor, alpha=factor, out=chunk)
        activate(chunk)
        target.addmm_(chunk, fc2.weight.t(), alpha=1 / factor)
    return residual


def _by_onednn(x: Tensor, hidden: int) -> bool:
    """Whether oneDNN computes an MLP of so many hidden numbers faster, or in bfloat16 more exactly."""
    if x.dtype == torch.bfloat16:
        return has_bfloat16_products()
    return x.dtype == torch.float32 and hidden >= _ONEDNN_ELEMENTS and prefers_onednn()


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


def rows_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute ``x @ weight.T + bias`` as :func:`few_rows_linear` does, of a weight that is in no linear layer.

    Args:
        x: ``(N, C)``.
        weight: ``(D, C)``, common or of a class of tensors that computes the product itself.
        bias: ``(D,)``; None: there is none.

    Returns:
        ``(N, D)``.
    """
    own = (weight,) if bias is None else (weight, bias)
    plain = x.ndim == 2 and fast_path_allowed(x, *own) and all(type(tensor) in _TENSORS for tensor in own)
    return _few_rows_product(x, weight, bias) if plain and weight.numel() >= _LARGE else F.linear(x, weight, bias)


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


# --- results that are kept --------------------------------------------------------------------------------------------


class WeightsSnapshot:
    """Snapshot of weights that tells later whether they have changed.

    Detects writes in place, optimizer steps, ``load_state_dict``, writes through ``.data`` (weight averaging), which no
    version counter sees, and a change of dtype, shape, device or memory. Small tensors are copied and compared; larger
    ones by a checksum, which misses only writes through ``.data`` that leave the sum of the bits of each 2 KB as it
    was: a permutation of values within them, or of the signs of two numbers in float64. Tensors without readable values
    (on the meta device, of tracers, of FSDP) are compared by identity and version only.

    On a CPU the check of the 63 million weights of CLIP's 12-layer text tower takes a fortieth of the time of encoding
    the 81 prompts of one class; that of CoSwin-T's bias tables takes less than a thousandth of encoding one image.

    Args:
        weights: tensors, always in the same order.
    """

    def __init__(self, weights: Iterable[Tensor]) -> None:
        weights = list(weights)
        self._facts = [_facts(weight) for weight in weights]
        self._small = [weight.detach().clone() if _is_small(weight) else None for weight in weights]
        self._sums = _checksums(weights)

    def matches(self, weights: Iterable[Tensor]) -> bool:
        """Whether these are the weights of the snapshot, with unchanged values."""
        weights = list(weights)
        return (
            [_facts(weight) for weight in weights] == self._facts
            and all(old is None or torch.equal(old, new) for old, new in zip(self._small, weights, strict=True))
            and _checksums(weights) == self._sums
        )


def _facts(weight: Tensor) -> tuple:
    version = None if weight.is_inference() else weight._version
    place = weight.data_ptr() if _has_values(weight) else id(weight)
    return place, version, weight.shape, weight.dtype, weight.device


def _has_values(weight: Tensor) -> bool:
    return type(weight) in _TENSORS and not weight.is_meta


def _is_small(weight: Tensor) -> bool:
    # on an accelerator each comparison would synchronize
    return _has_values(weight) and weight.device.type == 'cpu' and weight.numel() <= _SMALL


@torch.no_grad()
def _checksums(weights: list[Tensor]) -> list[int]:
    """One checksum, modulo 2**64, of the tensors that are not small, with one synchronization; [] if there are none."""
    sums = [_partial_sums(weight) for weight in weights if _has_values(weight) and not _is_small(weight)]
    if not sums:
        return []
    mixed = torch.cat([part.to(sums[0].device) for part in sums])
    mixed = mixed + torch.arange(1, len(mixed) + 1, device=mixed.device)
    # without mixing, the highest bits of two sums, such as the signs of float64, would cancel each other
    for _ in range(2):
        mixed = (mixed ^ (mixed >> 31)) * _MIX
    return [int((mixed ^ (mixed >> 29)).sum())]


def _partial_sums(weight: Tensor) -> Tensor:
    """Sums of 255 words of 8 bytes each, of the words left over, and of the bytes left over, int64 modulo 2**64."""
    flat = weight.detach().reshape(-1)
    if flat.storage_offset() * flat.element_size() % 8:
        flat = flat.clone()
    data = flat.view(torch.uint8)
    words = data[: len(data) // 8 * 8].view(torch.int64)
    whole = len(words) // _WORDS * _WORDS
    rest = torch.stack([words[whole:].sum(), data[len(words) * 8 :].sum()])
    return torch.cat([words[:whole].view(-1, _WORDS).sum(1), rest])


class _Packed(NamedTuple):
    """A weight in oneDNN's layout.

    Attributes:
        shape: shape of the input that it was laid out for.
        snapshot: of the weight.
        weight: the weight in that layout.
    """

    shape: torch.Size
    snapshot: WeightsSnapshot
    weight: Tensor


_packed: WeakKeyDictionary[nn.Module, _Packed] = WeakKeyDictionary()


def convolve(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a convolution; in inference on a CPU its weight is kept in oneDNN's layout, and the result is the same.

    Args:
        layer: the convolution.
        x: ``(B, C, H, W)``, fastest in channels-last memory.

    Returns:
        ``(B, N, H', W')``.
    """
    if type(layer) is not nn.Conv2d or not fast_path_allowed(x) or not is_plain(layer) or not _is_kept(layer, x):
        return layer(x)
    weight, padding, stride = layer.weight, list(layer.padding), list(layer.stride)
    settings = padding, stride, list(layer.dilation), layer.groups
    kept = _packed.get(layer)
    if kept is None or kept.shape != x.shape or not kept.snapshot.matches([weight]):
        laid_out = torch.ops.mkldnn._reorder_convolution_weight(weight.detach(), *settings, list(x.shape))
        kept = _packed[layer] = _Packed(x.shape, WeightsSnapshot([weight]), laid_out)
    return torch.ops.mkldnn._convolution_pointwise(x, kept.weight, layer.bias, *settings, 'none', [], '')


def _is_kept(layer: nn.Conv2d, x: Tensor) -> bool:
    weight = layer.weight
    return (
        weight.numel() >= _KEPT
        and layer.padding_mode == 'zeros'
        and not isinstance(layer.padding, str)
        and x.is_contiguous(memory_format=torch.channels_last)
        and weight.dtype == x.dtype
        and weight.device == x.device
        and ((x.dtype == torch.float32 and has_mkldnn()) or (x.dtype == torch.bfloat16 and has_bfloat16_products()))
    )
