"""Parameters and multiply-adds of a model by module."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from florence_mm.utils.numbers import readable


def count_macs(model: nn.Module, run: Callable[[], Any]) -> dict[str, int]:
    """Count the multiply-adds of matrix products and convolutions by module.

    Element-wise operations (norms, activations, softmax) are not counted, as in published figures; both matrix products
    of attention are.

    Args:
        model (nn.Module): The model; it is set to evaluation mode.
        run (Callable): Calls the model once.

    Returns:
        dict[str, int]: multiply-adds by dotted module name (``''`` for the whole model).
    """
    model.eval()
    macs = dict.fromkeys([name for name, _ in model.named_modules()], 0)
    # With gradients enabled our modules do not use in-place inference code, and with the math backend attention is not
    # fused: the counter does not know those operators.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        handles = []
        for name, module in model.named_modules():
            handles += _count_calls(module, name, macs, counter)
        run()
    for handle in handles:
        handle.remove()
    # lists of modules, and modules used by other methods than forward(), get the sum of their children
    for name, module in reversed(list(model.named_modules())):
        inside = sum(macs.get(f'{name}.{child}' if name else child, 0) for child, _ in module.named_children())
        macs[name] = max(macs[name], inside)
    return {**macs, '': counter.get_total_flops() // 2}


def _count_calls(module: nn.Module, name: str, macs: dict[str, int], counter: FlopCounterMode) -> list:
    """Register hooks that add the count during calls of ``module`` to ``macs[name]``."""
    before = []

    def enter(*_: Any) -> None:
        before.append(counter.get_total_flops())

    def leave(*_: Any) -> None:
        macs[name] += (counter.get_total_flops() - before.pop()) // 2

    return [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Count parameters by dotted module name (``''`` for the whole model); a shared one counts once per module."""
    return {name: sum(p.numel() for p in module.parameters()) for name, module in model.named_modules()}


def table(model: nn.Module, macs: dict[str, int], depth: int) -> str:
    """Format a table of parameters and multiply-adds of modules down to ``depth`` levels of names."""
    parameters = count_parameters(model)
    rows = [
        (name or type(model).__name__, parameters[name], macs.get(name, 0))
        for name in parameters
        if not name or name.count('.') < depth
    ]
    width = max(len(row[0]) for row in rows)
    lines = [f'{"module":<{width}}  {"parameters":>12}  {"multiply-adds":>14}']
    lines += [f'{name:<{width}}  {readable(p):>12}  {readable(m):>14}' for name, p, m in rows if p or m]
    return '\n'.join(lines)
