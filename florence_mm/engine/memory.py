"""Memory of a training step on a GPU, from shapes alone: what autograd keeps, and what weights and optimizer take.

A model on the meta device computes shapes and no numbers. Whatever a forward pass keeps for the backward pass goes
through one hook, which counts each storage once. Mixed precision and attention are those of a GPU, which the meta
device has not: matrix products in bfloat16, norms and losses in float32, and the memory-efficient attention kernel,
which keeps its inputs, its output and one number a row instead of the probabilities.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

#: Bytes of a trained parameter: itself, its gradient, two moments of AdamW, and the bucket of data-parallel training.
BYTES_OF_STATE = 4 + 4 + 8 + 4
#: Blocks that ``with_cp`` recomputes.
BLOCKS = ('WindowBlock', 'TextBlock', 'DyHeadBlock')

_PRODUCTS = {
    F.linear,
    F.conv2d,
    F.conv3d,
    torch.matmul,
    torch.bmm,
    torch.baddbmm,
    torch.addmm,
    torch.mm,
    torch.Tensor.matmul,
    torch.Tensor.__matmul__,
    torch.Tensor.__rmatmul__,
    torch.Tensor.bmm,
}
_IN_FLOAT32 = {F.layer_norm, F.group_norm, F.softmax, F.normalize, F.cross_entropy, F.binary_cross_entropy_with_logits}


class GPUPrecision(TorchFunctionMode):
    """bfloat16 autocast and the attention kernel of a GPU, for models on the meta device."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return _attend(*_cast((args, kwargs), torch.bfloat16))
        if func in _PRODUCTS:
            args, kwargs = _cast((args, kwargs), torch.bfloat16)
        elif func in _IN_FLOAT32:
            args, kwargs = _cast((args, kwargs), torch.float32)
        return func(*args, **kwargs)


def _cast(values: tuple, dtype: torch.dtype) -> tuple:
    return tree_map(lambda x: x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x, values)


def _attend(args: tuple, kwargs: dict) -> Tensor:
    named = dict(zip(('query', 'key', 'value', 'attn_mask', 'dropout_p', 'is_causal'), args, strict=False)) | kwargs
    q, k, v, mask = named['query'], named['key'], named['value'], named.get('attn_mask')
    if mask is not None:
        mask = mask if mask.is_floating_point() else mask.to(q.dtype)
        mask = mask.expand(*q.shape[:-1], k.shape[-2])
    drop, causal = named.get('dropout_p', 0.0), named.get('is_causal', False)
    return torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, mask, True, drop, causal)[0]


@dataclass(frozen=True)
class StepMemory:
    """Bytes of a training step.

    Attributes:
        parameters: number of trained parameters.
        frozen: number of parameters without gradients.
        kept: what the forward pass keeps, all blocks included.
        blocks: for each block the bytes that it keeps, and those of its input.
    """

    parameters: int
    frozen: int
    kept: int
    blocks: tuple[tuple[str, int, int], ...]

    @property
    def states(self) -> int:
        """Weights, gradients, AdamW's moments and data-parallel buckets, all in fp32."""
        return BYTES_OF_STATE * self.parameters + 4 * self.frozen

    def activations(self, recomputed: Sequence[str] = ()) -> int:
        """What is kept at the end of the forward pass, and of a block while it is recomputed.

        Args:
            recomputed: classes of blocks that keep their input alone.
        """
        inside = [(kept, given) for kind, kept, given in self.blocks if kind in recomputed]
        largest = max((kept for kept, _ in inside), default=0)
        return self.kept - sum(kept for kept, _ in inside) + sum(given for _, given in inside) + largest


def count_step(model: nn.Module, run: Callable[[], Any]) -> StepMemory:
    """Count what a forward pass of a model on the meta device keeps for its backward pass.

    Args:
        model: the model, in training mode.
        run: calls the model once.
    """
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    held: dict[int, torch.UntypedStorage] = {}
    blocks: list[tuple[str, int, int]] = []
    begun: list[int] = []

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage._cdata not in own:
            held[storage._cdata] = storage  # kept, so that no other storage gets its number
        return x

    def total() -> int:
        return sum(storage.nbytes() for storage in held.values())

    def enter(module: nn.Module, inputs: tuple) -> None:
        begun.append(total())

    def leave(module: nn.Module, inputs: tuple, outputs: Any) -> None:
        given = sum(x.nbytes for x in tree_leaves(inputs) if isinstance(x, Tensor) and x.is_floating_point())
        blocks.append((type(module).__name__, total() - begun.pop(), given))

    handles = []
    for module in model.modules():
        if type(module).__name__ in BLOCKS:
            handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        with GPUPrecision(), torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            result = run()
    finally:
        for handle in handles:
            handle.remove()
    trained = [parameter.numel() for parameter in model.parameters() if parameter.requires_grad]
    frozen = sum(parameter.numel() for parameter in model.parameters()) - sum(trained)
    del result
    return StepMemory(sum(trained), frozen, total(), tuple(blocks))
