"""Speed of exported files in their runtimes, compared with the model in eager mode.

OMP_WAIT_POLICY=PASSIVE python tools/benchmarks/export.py [--only NAME] [--rounds N] [--out FILE]

"Ours" is the file in onnxruntime or OpenVINO with one thread, "peer" the model with one thread of torch; random
weights. Files go to a temporary folder, and outputs are compared before anything is timed; bf16 may differ by more.
Nodes of each file and seconds of its export are printed; names of cases end in the batch.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import Case, Pair, main
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

import florence_mm  # noqa: F401  (patches the stack before other packages are imported)
from florence_mm.config.load import load_config
from florence_mm.config.pretrained import drop_pretrained
from florence_mm.export.exporting import export_part
from florence_mm.export.parts import Part, parts_of
from florence_mm.export.runtimes import open_runtime
from florence_mm.models.protocol import dense_head
from florence_mm.registry import MODELS

_CONFIGS = Path(__file__).parents[2] / 'configs'


def _model(config: str, **changes: object) -> nn.Module:
    cfg: Config = load_config(_CONFIGS / config)
    drop_pretrained(cfg.model, 'model')
    cfg.merge_from_dict({f'model.{key}': value for key, value in changes.items()})
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('florence_mm'):
        model = MODELS.build(cfg.model)
    head = dense_head(model)
    if head is not None:
        nn.init.normal_(head.atss_cls.weight, std=0.1)  # so that there are boxes
    return model.requires_grad_(False).eval()


def _tower(part: str, size: tuple[int, int] | None) -> Part:
    return parts_of(_model('unicl/unicl_coswin-t_8xb512-32e_in21k-yfcc14m.py'), size, only=part)[0]


def _detector(config: str, size: tuple[int, int]) -> Part:
    return parts_of(_model(f'dynamic_head/{config}'), size, free_size=False)[0]


def _pair(make: Callable[[], Part], suffix: str, batch: int, precision: str = 'fp32') -> Pair:
    part = make()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f'file{suffix}'
        examples = None
        if precision == 'int8':
            pictures = (part.example(2, part.size, seed) for seed in range(4))
            examples = [{name: value.numpy() for name, value in one.items()} for one in pictures]
        made = export_part(part, file, {}, precision=precision, examples=examples)
        print(f'  {made.nodes} nodes, exported in {made.seconds:.0f} s', flush=True)
        opened = open_runtime(file, threads=1)
    size = (8,) if part.kind == 'text' else part.size  # a caption has eight tokens
    inputs = part.example(batch, size)
    arrays = {name: value.numpy() for name, value in inputs.items()}

    def eager() -> list[torch.Tensor]:
        with torch.inference_mode():
            found = part.module(*inputs.values())
        return list(found) if isinstance(found, tuple) else [found]

    def runtime() -> list[torch.Tensor]:
        return [torch.from_numpy(np.asarray(value)) for value in opened.run(arrays).values()]

    return Pair(runtime, eager, tolerance=1e-4 if precision == 'fp32' else 0.05)


def cases() -> list[Case]:
    """The comparisons of this file, with the bars the project set itself."""

    def image() -> Part:
        return _tower('image', (224, 224))

    def text() -> Part:
        return _tower('text', None)

    def micro() -> Part:
        return _detector('atss_coswin-micro_fpn_dyhead_2xb4-8e_scenes.py', (128, 160))

    def tiny() -> Part:
        return _detector('atss_coswin-t_fpn_dyhead_8xb4-1x_coco.py', (320, 320))

    return [
        Case('onnxruntime_coswin_t_1', 1.2, lambda: _pair(image, '.onnx', 1), rounds=15),
        Case('onnxruntime_detector_micro_1', 2.5, lambda: _pair(micro, '.onnx', 1), rounds=25),
        Case('onnxruntime_caption_1', 1.5, lambda: _pair(text, '.onnx', 1), rounds=25),
        Case('openvino_coswin_t_1', 1.35, lambda: _pair(image, '.xml', 1), rounds=15),
        Case('openvino_coswin_t_bf16_1', 2.4, lambda: _pair(image, '.xml', 1, 'bf16'), rounds=15),
        Case('onnxruntime_coswin_t_int8_1', 2.5, lambda: _pair(image, '.onnx', 1, 'int8'), rounds=15),
        Case('openvino_coswin_t_int8_1', 3.3, lambda: _pair(image, '.xml', 1, 'int8'), rounds=15),
        Case('onnxruntime_detector_t_1', 1.0, lambda: _pair(tiny, '.onnx', 1), rounds=7),
        Case('openvino_detector_micro_1', 1.0, lambda: _pair(micro, '.xml', 1), rounds=25),
    ]


if __name__ == '__main__':
    sys.exit(main(cases()))
