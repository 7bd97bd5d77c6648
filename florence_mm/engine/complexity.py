"""Parameters and multiply-adds of a model, module by module."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count_macs(model: nn.Module, run: Callable[[], Any]) -> dict[str, int]:
    """Multiply-adds of matrix products and convolutions, by module.

    Element-wise work (norms, activations, softmax) is left out, as in published figures; two products of
    attention are counted.

    Args:
        model (nn.Module): The model; it is put into eval mode.
        run (Callable): Calls the model once.

    Returns:
        dict[str, int]: dotted module name (``''`` for the whole) to multiply-adds of the call.
    """
    model.eval()
    macs = dict.fromkeys([name for name, _ in model.named_modules()], 0)
    # Gradients keep our modules from in-place inference code, and the plain attention kernel keeps attention from
    # fused ones: operators that the counter does not know.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        handles = []
        for name, module in model.named_modules():
            handles += _count_calls(module, name, macs, counter)
        run()
    for handle in handles:
        handle.remove()
    # lists of modules, and modules whose methods are called past their forward(), count what is inside them
    for name, module in reversed(list(model.named_modules())):
        inside = sum(macs.get(f'{name}.{child}' if name else child, 0) for child, _ in module.named_children())
        macs[name] = max(macs[name], inside)
    return {**macs, '': counter.get_total_flops() // 2}


def _count_calls(module: nn.Module, name: str, macs: dict[str, int], counter: FlopCounterMode) -> list:
    """Hooks that add to ``macs[name]`` what is counted while ``module`` runs."""
    before = []

    def enter(*_: Any) -> None:
        before.append(counter.get_total_flops())

    def leave(*_: Any) -> None:
        macs[name] += (counter.get_total_flops() - before.pop()) // 2

    return [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Parameters by dotted module name (``''`` for the whole); one that is shared counts once a module."""
    return {name: sum(p.numel() for p in module.parameters()) for name, module in model.named_modules()}


def readable(number: float) -> str:
    """``28288354`` as ``'28.29 M'``."""
    for size, unit in ((1e12, 'T'), (1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
        if abs(number) >= size:
            return f'{number / size:.2f} {unit}'
    return f'{number:.0f}'


def table(model: nn.Module, macs: dict[str, int], depth: int) -> str:
    """Lines of module, parameters and multiply-adds, down to ``depth`` names."""
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
