"""Declare torchvision's operators by name where they cannot load (a CUDA build beside a CPU torch)."""

import importlib.util
from pathlib import Path

import torch
from torch import library

from .gap import Gap

_LIBRARY = None
_SCHEMAS = (
    'nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor',
    'qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor',
)


def _operators_cannot_load() -> bool:
    if hasattr(torch.ops.torchvision, 'nms'):
        return False
    folder = Path(importlib.util.find_spec('torchvision').origin).parent
    for file in (*folder.glob('_C*.so'), *folder.glob('_C*.pyd')):
        try:
            torch.ops.load_library(str(file))
            return False
        except OSError:
            continue
    return True


def _declare() -> None:
    # torchvision registers fake kernels for these two names at import; a schema alone lets it do so. The
    # operators stay without a kernel, so a call raises torch's NotImplementedError, which names the operator.
    global _LIBRARY
    _LIBRARY = library.Library('torchvision', 'FRAGMENT')
    for schema in _SCHEMAS:
        _LIBRARY.define(schema)


GAP = Gap(
    name='torchvision operators',
    package='torchvision',
    why='its compiled operators do not load beside this torch, and without their names its import fails',
    needed=_operators_cannot_load,
    patch=_declare,
)
