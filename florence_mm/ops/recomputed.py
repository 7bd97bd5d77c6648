"""Linear layers in training that keep little for the backward pass and compute the rest again.

A branch of a pre-norm block begins with LayerNorm and a linear layer. Plain operators keep the norm's output for the
gradient of the weight, and for an MLP the hidden layer before and after its activation. Here norm and activation are
computed again in the backward pass: a few operations a number, beside hundreds of the matrix products. Under autocast,
matrix products are in its type, the norm and its gradients in the input's.

Shapes: ``x`` is ``(..., C)``, in windows ``(B, L, C)`` in map order; ``N`` rows of it, ``D`` outputs, ``F`` hidden
channels.
"""

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from .inference import QUICK_GELU_FACTOR, is_plain, is_recorded, is_untouched
from .linear import product
from .mkldnn_products import prefers_onednn
from .windows import WindowPlan, from_windows, to_windows

_ONEDNN_MULTIPLICATIONS = 2**24  # of a linear layer of rows, from which on oneDNN's kernels are worth making


def recomputing_allowed(x: Tensor, block: nn.Module, *layers: nn.Module) -> bool:
    """Whether a block may train by these functions: eagerly, on a CPU, and nobody has touched what is in it.

    Args:
        x: its input.
        block: the block, whose parts are not called.
        layers: its linear layers and norms.
    """
    return (
        block.training
        and torch.is_grad_enabled()
        and x.device.type == 'cpu'
        and not is_recorded()
        and all(_is_norm(layer) or is_plain(layer) for layer in layers)
        and is_untouched(*list(block.modules())[1:])
    )


def _is_norm(layer: nn.Module) -> bool:
    return type(layer) is nn.LayerNorm and type(layer.weight) is type(layer.bias) is nn.Parameter


def _product_dtype(x: Tensor) -> torch.dtype:
    # autocast leaves float64 as it is
    lowered = torch.is_autocast_enabled('cpu') and x.dtype != torch.float64
    return torch.get_autocast_dtype('cpu') if lowered else x.dtype


def _cast(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.to(dtype)


# --- LayerNorm, partition into windows, linear layer ------------------------------------------------------------------


def norm_linear(
    x: Tensor, norm: nn.LayerNorm, weight: Tensor, bias: Tensor | None, plan: WindowPlan | None = None
) -> Tensor:
    """Compute a linear layer of the norm, ``norm(x) @ weight.T + bias``.

    Args:
        x: ``(..., C)``; with ``plan`` ``(B, L, C)``.
        norm: LayerNorm.
        weight: ``(D, C)``.
        bias: ``(D,)`` or None.
        plan: partition of the result into windows; zeros of padding get the bias.

    Returns:
        ``(..., D)``; with ``plan`` in window order.
    """
    return _NormLinear.apply(x, norm.weight, norm.bias, weight, bias, norm.eps, plan, _product_dtype(x))


class _NormLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        scale: Tensor,
        shift: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        eps: float,
        plan: WindowPlan | None,
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.eps, ctx.plan, ctx.dtype = eps, plan, dtype
        weight = weight.to(dtype)
        with torch.autocast('cpu', enabled=False):
            normed, mean, rstd = torch.native_layer_norm(x, scale.shape, scale, shift, eps)
            rows = _in_windows(normed.to(dtype), plan)
            ctx.save_for_backward(x, scale, shift, weight, mean, rstd, _worth_keeping(rows, x))
            return product(rows, weight, _cast(bias, dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, shift, weight, mean, rstd, rows = ctx.saved_tensors
        with torch.autocast('cpu', enabled=False):
            grad_weight = None
            if ctx.needs_input_grad[3]:
                if rows is None:
                    normed = torch.native_layer_norm(x, scale.shape, scale, shift, ctx.eps)[0]
                    rows = _in_windows(normed.to(ctx.dtype), ctx.plan)
                grad_weight = _weight_gradient(grad, rows)
            grad_bias = grad.flatten(0, -2).sum(0) if ctx.needs_input_grad[4] else None
            grad_normed = _from_windows(product(grad, weight.t()), ctx.plan)
            grads = _norm_backward(grad_normed, x, scale, shift, mean, rstd, ctx.needs_input_grad)
        return *grads, grad_weight, grad_bias, None, None, None


def _worth_keeping(normed: Tensor, x: Tensor) -> Tensor | None:
    """The norm's output if it has a smaller type than the input: then it takes less memory than time."""
    return normed if normed.element_size() < x.element_size() else None


def _weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    return grad.flatten(0, -2).t() @ x.flatten(0, -2)


def _in_windows(x: Tensor, plan: WindowPlan | None) -> Tensor:
    return x if plan is None else to_windows(x, plan)


def _from_windows(x: Tensor, plan: WindowPlan | None) -> Tensor:
    return x if plan is None else from_windows(x, plan)


def _norm_backward(
    grad: Tensor, x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, rstd: Tensor, needed: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """Gradients of ``x``, ``scale`` and ``shift``, as far as needed."""
    return torch.ops.aten.native_layer_norm_backward(
        grad.to(x.dtype), x, scale.shape, mean, rstd, scale, shift, needed[:3]
    )


# --- LayerNorm and MLP ------------------------------------------------------------------------------------------------


def norm_mlp(x: Tensor, norm: nn.LayerNorm, fc1: nn.Linear, fc2: nn.Linear, act: str = 'gelu') -> Tensor:
    """Compute ``fc2(act(fc1(norm(x))))``, ``(..., C)`` to ``(..., C)``.

    Args:
        x: ``(..., C)``.
        norm: LayerNorm before the MLP.
        fc1: first layer of the MLP.
        fc2: second layer.
        act: ``'gelu'`` or ``'quick_gelu'``.
    """
    weights = norm.weight, norm.bias, fc1.weight, fc1.bias, fc2.weight, fc2.bias
    return _NormMlp.apply(x, *weights, norm.eps, act, _product_dtype(x))


class _NormMlp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        scale: Tensor,
        shift: Tensor,
        weight1: Tensor,
        bias1: Tensor | None,
        weight2: Tensor,
        bias2: Tensor | None,
        eps: float,
        act: str,
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.eps, ctx.act, ctx.dtype = eps, act, dtype
        weight1, weight2 = weight1.to(dtype), weight2.to(dtype)
        with torch.autocast('cpu', enabled=False):
            normed, mean, rstd = torch.native_layer_norm(x, scale.shape, scale, shift, eps)
            normed = normed.to(dtype)
            hidden = product(normed, weight1, _cast(bias1, dtype))  # (..., F)
            kept = _worth_keeping(normed, x)
            del normed
            if act == 'quick_gelu':
                hidden.mul_(QUICK_GELU_FACTOR)
            ctx.save_for_backward(x, scale, shift, weight1, weight2, mean, rstd, hidden, kept)
            return product(_activate(hidden, act), weight2, _cast(bias2, dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, shift, weight1, weight2, mean, rstd, hidden, normed = ctx.saved_tensors
        needed = ctx.needs_input_grad
        with torch.autocast('cpu', enabled=False):
            grad_weight2 = _weight_gradient(grad, _activate(hidden, ctx.act)) if needed[5] else None
            grad_bias2 = grad.flatten(0, -2).sum(0) if needed[6] else None
            grad_hidden = product(grad, weight2.t())
            activation = torch.ops.aten.gelu_backward if ctx.act == 'gelu' else torch.ops.aten.silu_backward
            activation.grad_input(grad_hidden, hidden, grad_input=grad_hidden)
            grad_weight1 = None
            if needed[3]:
                if normed is None:
                    normed = torch.native_layer_norm(x, scale.shape, scale, shift, ctx.eps)[0].to(ctx.dtype)
                grad_weight1 = _weight_gradient(grad_hidden, normed)
            grad_bias1 = grad_hidden.flatten(0, -2).sum(0) if needed[4] else None
            grad_normed = product(grad_hidden, weight1.t())
            grads = _norm_backward(grad_normed, x, scale, shift, mean, rstd, needed)
        return *grads, grad_weight1, grad_bias1, grad_weight2, grad_bias2, None, None, None


def _activate(hidden: Tensor, act: str) -> Tensor:
    """GELU; or QuickGELU of an input that has its factor."""
    if act == 'gelu':
        return torch.nn.functional.gelu(hidden)
    return torch.nn.functional.silu(hidden).div_(QUICK_GELU_FACTOR)


# --- one linear layer -------------------------------------------------------------------------------------------------


def trained_linear(x: Tensor, linear: nn.Linear) -> Tensor:
    """Compute ``linear(x)``, ``(..., C)`` to ``(..., D)``, with products of :mod:`.linear`."""
    return _Linear.apply(x, linear.weight, linear.bias, _product_dtype(x))


def fastest_linear(x: Tensor, linear: nn.Linear) -> Tensor:
    """Compute ``linear(x)`` in training: by oneDNN where that is faster.

    Args:
        x: ``(N, C)``.
        linear: ``C`` to ``D`` channels.

    Returns:
        ``(N, D)``.
    """
    if x.dtype != torch.float32 or not prefers_onednn():
        return linear(x)
    large = x.numel() * linear.out_features >= _ONEDNN_MULTIPLICATIONS and _product_dtype(x) == x.dtype
    return trained_linear(x, linear) if large and recomputing_allowed(x, linear, linear) else linear(x)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
        ctx.dtype = x.dtype
        x, weight = x.to(dtype), weight.to(dtype)
        ctx.save_for_backward(x, weight)
        with torch.autocast('cpu', enabled=False):
            return product(x, weight, _cast(bias, dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needed = ctx.needs_input_grad
        with torch.autocast('cpu', enabled=False):
            grad_x = product(grad, weight.t()).to(ctx.dtype) if needed[0] else None
            grad_weight = _weight_gradient(grad, x) if needed[1] else None
            grad_bias = grad.flatten(0, -2).sum(0) if needed[2] else None
        return grad_x, grad_weight, grad_bias, None
