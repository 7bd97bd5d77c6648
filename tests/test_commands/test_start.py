"""What commands import before their first result: a package that takes a second is a wait for everybody."""

import json
import subprocess
import sys

import pytest

#: never needed to classify or detect: compilers, exporters, distributed optimizers, other libraries of models
NOT_FOR_PICTURES = (
    *('transformers', 'torch.distributed.optim', 'torch.distributed.fsdp', 'torch._dynamo', 'torch.onnx', 'sympy'),
    *('torchvision.ops', 'torchvision.models', 'sklearn', 'pandas', 'timm', 'open_clip', 'onnx', 'gradio'),
)
HEAVY = ('torch', 'numpy', 'mmengine', 'cv2', 'PIL', *NOT_FOR_PICTURES)
_TELL = """
import json, runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name='__main__')
except SystemExit:
    pass
print('\\n' + json.dumps(sorted(sys.modules)))
"""
_BUILD = """
import json, sys
from florence_mm.apis import DetectionInferencer, ImageInferencer
from florence_mm.registry import MODELS, TRANSFORMS
from florence_mm.models.heads import DynamicHead
for name in ('UniCL', 'mmdet.ATSS', 'mmdet.FPN', 'mmdet.DetDataPreprocessor'):
    assert MODELS.get(name), name
for name in ('mmpretrain.ResizeEdge', 'mmdet.PackDetInputs'):
    assert TRANSFORMS.get(name), name
print('\\n' + json.dumps(sorted(sys.modules)))
"""


def modules_after(*command):
    ended = subprocess.run([sys.executable, '-c', *command], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return set(json.loads(ended.stdout.splitlines()[-1]))


@pytest.mark.parametrize('tool', ['train', 'test', 'classify', 'detect'])
def test_help_imports_no_library(tool):
    """Arguments are parsed before imports: help takes a tenth of a second."""
    assert not {*HEAVY} & modules_after(_TELL, f'tools/{tool}.py', '--help')


def test_pictures_need_no_compiler():
    imported = modules_after(_BUILD)
    assert {'torch', 'mmdet.models', 'mmpretrain.datasets.transforms'} <= imported
    assert not {*NOT_FOR_PICTURES} & imported
