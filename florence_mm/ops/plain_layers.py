"""Whether layers may be computed from their weights, past their ``forward``.

Others replace what is inside a model: ``torch.ao.quantization`` and LoRA put other classes in the place of
``nn.Linear``, torchao other tensors in the place of weights, and hooks look at, or change, what goes through a layer.
A fast path that reads weights is for layers that nobody has touched.
"""

from torch import Tensor, nn
from torch.nn.modules import module as all_modules

_LAYERS = (nn.Linear, nn.Conv2d, nn.Conv3d)
_HOOKS = ('_forward_hooks', '_forward_pre_hooks', '_backward_hooks', '_backward_pre_hooks')
_GLOBAL_HOOKS = (
    '_global_forward_hooks',
    '_global_forward_pre_hooks',
    '_global_backward_hooks',
    '_global_backward_pre_hooks',
)


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
    return all(value is None or type(value) in (Tensor, nn.Parameter) for value in layer._parameters.values()) and (
        'weight' in layer._parameters
    )


def is_gelu(module: nn.Module) -> bool:
    """Whether a module is the exact GELU of PyTorch, and untouched."""
    return type(module) is nn.GELU and module.approximate == 'none' and is_untouched(module)
