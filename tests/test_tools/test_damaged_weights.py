"""A checkpoint with 64 wrong bytes within a tensor is refused by everything that reads weights, with one sentence."""

import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel, BaseModule
from torch import nn

from florence_mm.apis import DetectionInferencer, MultimodalInferencer, VideoInferencer
from florence_mm.formats.video import encode_mp4
from florence_mm.models.checkpoints import load_checkpoint, write_safetensors

TOOLS = Path(__file__).parents[2] / 'tools'
SENTENCE = {
    'w.pth': 'w.pth is damaged: w/data/0 in it is not as it was written; download or write it again',
    'w.safetensors': 'w.safetensors is damaged: its tensors do not have the checksum in its header; download or write '
    'it again',
}


class Weights(BaseModule):
    """A thousand numbers, whichever config they are in."""

    def __init__(self, init_cfg=None):
        super().__init__(init_cfg)
        self.weight = nn.Parameter(torch.zeros(1000))


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1000))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        raise AssertionError('a model without its weights was used')


@pytest.fixture(params=list(SENTENCE))
def damaged(request, tmp_path):
    """A file of which the reading libraries give other numbers than were written."""
    state, path = {'weight': torch.arange(1000.0)}, tmp_path / request.param
    if path.suffix == '.pth':
        torch.save({'state_dict': state}, path)
    else:
        write_safetensors(path, state)
    load_checkpoint(Weights(), path, strict=True)  # whole, it loads
    content = bytearray(path.read_bytes())
    start = content.index(state['weight'].numpy().tobytes()) + 400
    content[start : start + 64] = bytes(byte ^ 0xFF for byte in content[start : start + 64])
    path.write_bytes(content)
    return path


def test_pretrained(damaged):
    init_cfg = {'type': 'florence_mm.Pretrained', 'checkpoint': str(damaged)}
    module = Weights(init_cfg)
    with pytest.raises(ValueError, match=SENTENCE[damaged.name]):
        module.init_weights()
    assert not module.weight.any()


PICTURES = [{'type': 'mmdet.LoadImageFromFile'}, {'type': 'mmdet.PackDetInputs'}]
CLIPS = [
    {'type': 'florence_mm.VideoInit'},
    {'type': 'mmaction.SampleFrames', 'clip_len': 1, 'num_clips': 1, 'test_mode': True},
    {'type': 'florence_mm.VideoDecode'},
    {'type': 'mmaction.FormatShape', 'input_format': 'NCTHW'},
    {'type': 'mmaction.PackActionInputs'},
]
QUESTIONS = [{'type': 'florence_mm.LoadImage'}, {'type': 'florence_mm.PackVQA'}]
READERS = [
    ('detect.py', DetectionInferencer, 'mmdet.CocoDataset', PICTURES, 'a.png', []),
    ('video.py', VideoInferencer, 'florence_mm.VideoList', CLIPS, 'a.mp4', []),
    ('vqa.py', MultimodalInferencer, 'florence_mm.VQADataset', QUESTIONS, 'a.png', ['--question', 'why?']),
]


@pytest.mark.parametrize(('tool', 'inferencer', 'dataset', 'pipeline', 'file', 'options'), READERS)
def test_inferencers_and_their_tools(
    damaged, tmp_path, monkeypatch, capsys, tool, inferencer, dataset, pipeline, file, options
):
    data = {'dataset': {'type': dataset, 'ann_file': 'nowhere', 'pipeline': pipeline}}
    cfg = Config({'default_scope': 'florence_mm', 'model': {'type': Model}, 'test_dataloader': data})
    with pytest.raises(ValueError, match=SENTENCE[damaged.name]):
        inferencer(cfg, damaged, 'cpu')
    image = np.zeros((32, 32, 3), np.uint8)
    (tmp_path / 'a.mp4').write_bytes(encode_mp4([image, image]))
    cv2.imwrite(str(tmp_path / 'a.png'), image)
    main = runpy.run_path(str(TOOLS / tool))['main']
    monkeypatch.setattr('florence_mm.config.load.load_config', lambda path, changes: cfg)
    monkeypatch.setattr(sys, 'argv', [tool, 'config.py', str(damaged), str(tmp_path / file), *options])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main()
    shown = capsys.readouterr()
    assert end.value.code == 2 and shown.err == f'error: {damaged.parent}/{SENTENCE[damaged.name]}\n'


@pytest.mark.parametrize('tool', ['convert_checkpoint.py', 'publish_model.py'])
def test_converters(damaged, tmp_path, monkeypatch, capsys, tool):
    target = tmp_path / 'new.safetensors'
    monkeypatch.setattr(sys, 'argv', [tool, str(damaged), str(target)])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(TOOLS / 'model_converters' / tool), run_name='__main__')
    assert end.value.code == 2 and not list(tmp_path.glob('new*'))
    assert capsys.readouterr().err == f'error: {damaged.parent}/{SENTENCE[damaged.name]}\n'


def test_test_tool(damaged, tool, small_detector):
    status, _, error = tool('test.py', small_detector, damaged)
    sentence = f'error: {damaged.parent}/{SENTENCE[damaged.name]}'
    assert status == 2 and error.splitlines()[-1].startswith(sentence)
    assert error.splitlines()[-1].removeprefix(sentence) in ('', ', or take one of weights.pth beside it')
