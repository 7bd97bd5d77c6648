"""ONNX files from programs of ``torch.export``.

Three operators are translated here: deformable convolution and the suppression of boxes, which ONNX has and torch's
translation does not know, and bilinear resizing, where torch writes four nodes for one.
"""

import contextlib
import io
import json
import logging
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from florence_mm.errors import UsageError

from .parts import Part

#: ``DeformConv`` is in ONNX from 19 on; torch 2.13 writes up to 23 and onnxruntime 1.32 reads up to 26.
OPSETS = range(19, 24)
DEFAULT_OPSET = 20
#: Larger weights are written to a second file: one of protobuf holds 2 GB.
_ONE_FILE = 1_900_000_000
KEY = 'florence_mm'


def check_opset(opset: int) -> None:
    """Check that an opset has all operators.

    Raises:
        UsageError: it has not, or torch cannot write it.
    """
    if opset not in OPSETS:
        raise UsageError(f'opset {opset} cannot be written; give one from {OPSETS[0]} to {OPSETS[-1]}')


def write_onnx(
    program: ExportedProgram, part: Part, path: Path, metadata: Mapping[str, Any], opset: int = DEFAULT_OPSET
) -> int:
    """Write a program as ONNX.

    Weights of more than 1.9 GB go to a second file, ``NAME.onnx.data``.

    Args:
        program: the program, with whole operators.
        part: what it is of.
        path: the file.
        metadata: facts that are kept in the file.
        opset: version of the operators.

    Returns:
        the number of nodes.

    Raises:
        UsageError: the opset is not supported.
    """
    check_opset(opset)
    with _quiet():
        made = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=opset,
            custom_translation_table=_translations(opset),
            input_names=list(part.inputs),
            output_names=list(part.outputs),
            verbose=False,
        )
    graph = made.model.graph
    made.model.metadata_props[KEY] = json.dumps(metadata)
    _name_axes(graph, part)
    size = sum(t.numel() * t.element_size() for t in program.state_dict.values())
    made.save(str(path), external_data=size > _ONE_FILE)
    return sum(1 for _ in graph.all_nodes())


@contextlib.contextmanager
def _quiet() -> Any:
    """Without torch's report of its steps, and onnxscript's of what it could not fold."""
    names = ('torch.onnx', 'onnxscript', 'onnx_ir')
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter('ignore')
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _name_axes(graph: Any, part: Part) -> None:
    """Name the free axes as users know them, in place of torch's symbols and their formulas."""
    names = {
        str(given.shape[axis]): name
        for given, axes in zip(graph.inputs, part.axes.values(), strict=True)
        for axis, name in axes.items()
    }

    def renamed(size: Any) -> Any:
        if isinstance(size, int) or not str(size):
            return size
        text = re.sub(r'\b[su]\d+\b', lambda found: names.get(found[0], found[0]), str(size))
        return text if text.isidentifier() or text in names.values() else None

    for value in (*graph.inputs, *graph.outputs):
        value.shape = type(value.shape)([renamed(size) for size in value.shape])
    for node in graph.all_nodes():
        for value in node.outputs:
            if not value.is_graph_output():  # a runtime infers them; torch's symbols would be other names for the same
                value.shape = None


def _translations(opset: int) -> dict[Any, Callable]:
    import onnxscript

    op = getattr(onnxscript, f'opset{opset}')

    def ints(values: Sequence[int]) -> Any:
        return op.Constant(value_ints=list(values))

    def deform_conv2d(
        input: Any,
        offset: Any,
        mask: Any,
        weight: Any,
        bias: Any,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        groups: int,
        deform_groups: int,
    ) -> Any:
        return op.DeformConv(
            input,
            weight,
            offset,
            bias,
            mask,
            strides=list(stride),
            pads=[*padding, *padding],
            dilations=list(dilation),
            group=groups,
            offset_group=deform_groups,
        )

    def kept_by_nms(boxes: Any, scores: Any, iou_threshold: float) -> Any:
        everything = op.Shape(scores, start=1, end=2)
        threshold, lowest = op.Constant(value_floats=[iou_threshold]), op.Constant(value_floats=[0.0])
        # rows of (image, class, box); classes are apart already, so there is one
        picked = op.NonMaxSuppression(boxes, op.Unsqueeze(scores, ints([1])), everything, threshold, lowest)
        places = op.Gather(picked, ints([0, 2]), axis=1)
        ones = op.Expand(op.Constant(value_float=1.0), op.Shape(places, start=0, end=1))
        nothing = op.Mul(scores, op.Constant(value_float=0.0))
        return op.Cast(op.ScatterND(nothing, places, ones), to=9)  # to bool

    def upsample_bilinear2d(
        input: Any, output_size: Any, align_corners: bool, scale_factors: Sequence[float] | None = None
    ) -> Any:
        mode = 'align_corners' if align_corners else 'half_pixel'
        options = {'mode': 'linear', 'coordinate_transformation_mode': mode, 'axes': [2, 3]}
        if output_size is None:
            return op.Resize(input, None, op.Constant(value_floats=list(scale_factors)), None, **options)
        if all(isinstance(size, int) for size in output_size):
            return op.Resize(input, None, None, ints(output_size), **options)
        sizes = [ints([s]) if isinstance(s, int) else op.Reshape(s, ints([1])) for s in output_size]
        return op.Resize(input, None, None, op.Concat(*sizes, axis=0), **options)

    return {
        torch.ops.florence_mm.deform_conv2d.default: deform_conv2d,
        torch.ops.florence_mm.kept_by_nms.default: kept_by_nms,
        torch.ops.aten.upsample_bilinear2d.vec: upsample_bilinear2d,
    }
