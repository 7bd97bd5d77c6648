"""Export of one part of a model to one file, which is compared with the model before it takes its place."""

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from florence_mm.errors import UsageError

from .comparing import TOLERANCE, largest_difference
from .onnx_files import DEFAULT_OPSET, KEY, check_opset, write_onnx
from .openvino_files import write_openvino
from .parts import Part
from .placing import format_of, placed, require_packages
from .programs import Limits, make_program
from .quantizing import quantize_onnx, quantize_openvino
from .runtimes import Opened, open_runtime

PRECISIONS = ('fp32', 'bf16', 'int8')
#: A file with 8-bit weights is written from one without; what it may differ is measured, not bounded.
_EXACT = 'fp32'


@dataclass(frozen=True)
class Check:
    """One comparison of a file with the model.

    Attributes:
        shape: of the first input.
        difference: the largest between their outputs; boxes in shares of the longest side of the picture.
        boxes: number of boxes that were compared; None for other outputs.
    """

    shape: tuple[int, ...]
    difference: float
    boxes: int | None = None


@dataclass(frozen=True)
class Exported:
    """A written file.

    Attributes:
        path: the file.
        part: what it holds.
        nodes: its number of nodes.
        seconds: time of the export, without the comparison.
        limits: smallest and largest size of its free axes.
        checks: the comparisons with the model.
    """

    path: Path
    part: Part
    nodes: int
    seconds: float
    limits: Limits
    checks: tuple[Check, ...]


def export_part(
    part: Part,
    target: str | Path,
    facts: Mapping[str, Any],
    opset: int = DEFAULT_OPSET,
    precision: str = _EXACT,
    examples: Iterable[Mapping[str, np.ndarray]] | None = None,
) -> Exported:
    """Write a part to a file, run it in its runtime, and compare.

    Args:
        part: the part.
        target: ``.onnx``, ``.xml`` or ``.pt2``; what is there is replaced.
        facts: what the file tells about itself, beside its inputs and outputs.
        opset: version of ONNX's operators.
        precision: ``'fp32'``; ``'bf16'``, arithmetic of an OpenVINO file; or ``'int8'``, weights of an ONNX or
            OpenVINO file, which is compared before. Differences of the latter two are told, not bounded.
        examples: inputs by which activations are quantized to 8 bits (:mod:`.quantizing`); an OpenVINO file of
            ``'int8'`` needs them.

    Raises:
        UsageError: the part cannot be exported to this format, there are no examples in the iterable, or the file
            differs by more than :data:`TOLERANCE`; it is not left behind then.
    """
    file_format = format_of(target)
    require_packages(file_format, precision)
    check_opset(opset)
    for name, formats, suffix in (('bf16', ('openvino',), '.xml'), ('int8', ('onnx', 'openvino'), '.onnx or .xml')):
        if precision == name and file_format not in formats:
            raise UsageError(f'{target} cannot be of {name}, which {file_format} files have not; name a file {suffix}')
    if examples is not None and precision == 'int8':
        examples = iter(examples)
        first = next(examples, None)
        if first is None:
            raise UsageError('there are no pictures for the calibration; give some')
        examples = chain([first], examples)
    if precision == 'int8' and file_format == 'openvino' and examples is None:
        raise UsageError(f'{target} cannot be of int8 without pictures; give --calibration, or name a file .onnx')
    with placed(target) as path:
        started = time.monotonic()
        program, limits = make_program(part)
        metadata = {
            **facts,
            'kind': part.kind,
            'precision': precision,
            'inputs': list(part.inputs),
            'outputs': list(part.outputs),
            'limits': limits,
            'input_size': list(part.size),
        }
        nodes = _write(program, part, path, metadata, opset)
        seconds = time.monotonic() - started
        del program
        whole = 'fp32' if precision == 'int8' and file_format == 'openvino' else None
        checks = compare(part, open_runtime(path, precision=whole), limits)
        worst = max(check.difference for check in checks)
        if precision != 'bf16' and not worst <= TOLERANCE:
            where = next(check.shape for check in checks if not check.difference <= TOLERANCE)
            raise UsageError(
                f'{target} was not written: for an input of shape {where} it differs from the model by {worst:.1e}, '
                f'and {TOLERANCE:g} is allowed; try another format or opset, and report this with the config'
            )
        if precision == 'int8':
            if file_format == 'onnx':
                quantize_onnx(path, examples)
            else:
                quantize_openvino(path, examples)
            checks = compare(part, open_runtime(path), limits)
    return Exported(Path(target), part, nodes, seconds, limits, tuple(checks))


def _write(program: ExportedProgram, part: Part, path: Path, metadata: Mapping[str, Any], opset: int) -> int:
    if path.suffix == '.onnx':
        return write_onnx(program, part, path, metadata, opset)
    if path.suffix == '.xml':
        return write_openvino(program, part, path, metadata, opset)
    torch.export.save(program, str(path), extra_files={KEY: json.dumps(metadata)})
    return len(program.graph.nodes)


def compare(part: Part, opened: Opened, limits: Limits) -> list[Check]:
    """Compare a file with the model at several batches, and sizes if they are free.

    Args:
        part: the part.
        opened: its file in a runtime.
        limits: sizes that the file takes.
    """
    checks = []
    for number, (batch, size) in enumerate(_shapes(part, limits)):
        inputs = part.example(batch, size, number, part.longest - number)
        with torch.no_grad():
            outputs = part.module(*inputs.values())
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        expected = {name: value.numpy() for name, value in zip(part.outputs, outputs, strict=True)}
        found = opened.run({name: value.numpy() for name, value in inputs.items()})
        boxes = int((expected['labels'] >= 0).sum()) if 'labels' in expected else None
        difference = largest_difference(expected, found, max(size))
        checks.append(Check(tuple(inputs[part.inputs[0]].shape), difference, boxes))
    return checks


def _shapes(part: Part, limits: Limits) -> list[tuple[int, tuple[int, ...]]]:
    """Batches and sizes to compare at."""
    shapes = [(batch, part.size) for batch in (1, 2, 3)]
    if part.kind == 'text':
        low, high = limits['length']
        return [*shapes, (2, (max(low, 2),)), (1, (high or 2 * part.size[0],))]
    if part.free_size:
        *frames, height, width = part.size
        rounded = [-(-limits[name][0] // 32) * 32 for name in ('height', 'width')]
        shapes += [(1, (*frames, max(width, rounded[0]), max(height, rounded[1])))]
        shapes += [(2, (*frames, *(max(low, 32) for low in rounded)))]
    return shapes
