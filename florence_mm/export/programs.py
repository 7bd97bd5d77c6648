"""Programs of ``torch.export``, from which every other format is made."""

import warnings
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from florence_mm.errors import UsageError
from florence_mm.ops.exported import kept_whole

from .parts import Part

Limits = dict[str, tuple[int, int | None]]


def make_program(part: Part) -> tuple[ExportedProgram, Limits]:
    """Export a part with its free axes.

    Args:
        part: the part; operators of :mod:`florence_mm.ops.exported` are kept whole.

    Returns:
        the program, and the smallest and largest size of each free axis, None for no largest.

    Raises:
        UsageError: an axis that should be free is not, or the model needs another size.
    """
    # not 1, which torch takes for fixed; height and width differ, or they would be taken for one number
    inputs = part.example(2)
    free = {name: dict.fromkeys(axes, Dim.AUTO) for name, axes in part.axes.items()}
    try:
        with kept_whole(), warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter('ignore')
            program = torch.export.export(part.module, tuple(inputs.values()), dynamic_shapes=tuple(free.values()))
    except Exception as error:
        # torch.export tells everything it cannot write down with many kinds of errors
        first = str(error).strip().partition('\n')[0]
        raise UsageError(
            f'torch.export cannot write down the {part.kind} part with inputs of size {tuple(part.size)} '
            f'({type(error).__name__}: {first}); try another --size'
        ) from error
    shapes = _input_shapes(program)
    limits: Limits = {}
    for axes, shape in zip(part.axes.values(), shapes, strict=True):
        limits |= {name: _limits(program, shape[axis]) for axis, name in axes.items() if name not in limits}
    # a side of pictures has a largest size only where its map must fit into a window
    fixed = [name for name, (low, high) in limits.items() if high == low or high and name in ('height', 'width')]
    if fixed:
        sides = all(name in ('height', 'width') for name in fixed)
        reason = ', where a map fits into its window; give a larger --size, or --fixed-size'
        raise UsageError(
            f'the {" and the ".join(fixed)} of the {part.kind} part cannot be free at size {tuple(part.size)}'
            + (reason if sides else ', as its code computes with the number itself; report the model')
        )
    # torch says 2 of every free axis that it has not compared with anything
    return program, limits | {name: (1, limits[name][1]) for name in ('batch', 'texts') if name in limits}


def _input_shapes(program: ExportedProgram) -> list[torch.Size]:
    nodes = {node.name: node for node in program.graph.nodes if node.op == 'placeholder'}
    return [nodes[name].meta['val'].shape for name in program.graph_signature.user_inputs]


def _limits(program: ExportedProgram, size: int | torch.SymInt) -> tuple[int, int | None]:
    """Smallest and largest size of an axis; the same number twice of one that is not free."""
    if not isinstance(size, torch.SymInt) or size.node.expr.is_number:
        return int(size), int(size)
    bounds: Any = program.range_constraints[size.node.expr]
    upper = int(bounds.upper) if bounds.upper.is_finite and bounds.upper < 2**31 else None
    return max(1, int(bounds.lower)), upper
