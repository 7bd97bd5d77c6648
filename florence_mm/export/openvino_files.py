"""OpenVINO files from programs of ``torch.export``."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from florence_mm.errors import UsageError

from .onnx_files import KEY
from .parts import Part

#: Written out, a deformable convolution is about 150 nodes; OpenVINO takes minutes to read more than this.
LARGEST_PROGRAM = 12_000


def write_openvino(program: ExportedProgram, part: Part, path: Path, metadata: Mapping[str, Any]) -> int:
    """Write a program as OpenVINO's ``.xml`` and, with the weights, ``.bin``.

    Args:
        program: the program, without whole operators.
        part: what it is of.
        path: the .xml file.
        metadata: facts that are kept in the file.

    Returns:
        the number of nodes.

    Raises:
        UsageError: the program is too large.
    """
    import openvino

    if len(program.graph.nodes) > LARGEST_PROGRAM:
        raise UsageError(
            f'the {part.kind} part has {len(program.graph.nodes)} steps without the operator for deformable '
            f'convolution, which OpenVINO lacks, and it reads up to {LARGEST_PROGRAM}; export to .onnx'
        )
    with torch.no_grad():
        model = openvino.convert_model(program)
    for port, name in zip(model.inputs, part.inputs, strict=True):
        port.get_tensor().set_names({name})
    for port, name in zip(model.outputs, part.outputs, strict=True):
        port.get_tensor().set_names({name})
    model.set_rt_info(json.dumps(metadata), KEY)
    openvino.save_model(model, str(path), compress_to_fp16=False)
    return len(model.get_ops())
