"""OpenVINO files: of towers from their program, of detectors from their ONNX file.

OpenVINO's reader of programs knows no deformable convolution, and neither does that of ONNX files, which takes rules
for more operators; the runtime has one.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from .onnx_files import KEY, write_onnx
from .parts import Part


def write_openvino(program: ExportedProgram, part: Part, path: Path, metadata: Mapping[str, Any], opset: int) -> int:
    """Write a program as OpenVINO's ``.xml`` and, with the weights, ``.bin``.

    Args:
        program: the program.
        part: what it is of.
        path: the .xml file.
        metadata: facts that are kept in the file.
        opset: version of the ONNX operators on the way of a detector.

    Returns:
        the number of nodes.
    """
    import openvino

    if part.kind == 'detector':
        model = _by_onnx(program, part, opset)
    else:
        with torch.no_grad():
            model = openvino.convert_model(program)
    for ports, names in ((model.inputs, part.inputs), (model.outputs, part.outputs)):
        for port, name in zip(ports, names, strict=True):
            port.get_tensor().set_names({name})
    model.set_rt_info(json.dumps(metadata), KEY)
    openvino.save_model(model, str(path), compress_to_fp16=False)
    return len(model.get_ops())


def _by_onnx(program: ExportedProgram, part: Part, opset: int) -> Any:
    import openvino
    from openvino.frontend.onnx import ConversionExtension

    with TemporaryDirectory() as folder:
        file = Path(folder) / 'detector.onnx'
        write_onnx(program, part, file, {}, opset)
        return openvino.convert_model(file, extension=[ConversionExtension('DeformConv', '', _deform_conv)])


def _deform_conv(node: Any) -> Any:
    """OpenVINO's deformable convolution for ONNX's; offsets, masks and weights have the same layout."""
    from openvino import opset8

    data, weight, offset, bias, mask = (node.get_input(i) for i in range(5))
    pads = list(node.get_attribute('pads'))
    convolved = opset8.deformable_convolution(
        data,
        offset,
        weight,
        list(node.get_attribute('strides')),
        pads[:2],
        pads[2:],
        list(node.get_attribute('dilations')),
        mask,
        group=node.get_attribute('group'),
        deformable_group=node.get_attribute('offset_group'),
        bilinear_interpolation_pad=True,  # zero outside the map, as in DCN v2
    )
    bias = opset8.reshape(bias, opset8.constant(np.array([1, -1, 1, 1])), special_zero=False)
    return opset8.add(convolved, bias).outputs()
