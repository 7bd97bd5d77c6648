import importlib.util
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from florence_mm.registry import MODELS
from florence_mm.smoke.detection import write_annotations

REPOSITORY = Path(__file__).parents[2]
TOY = REPOSITORY / 'tests'
sys.path.insert(0, str(TOY))

_number = itertools.count()


def as_file(config, folder) -> str:
    """The path of a config that is given as a dict or a path."""
    if not isinstance(config, dict):
        return str(config)
    path = folder / f'config_{next(_number)}.py'
    Config(config).dump(str(path))
    return str(path)


@pytest.fixture
def process(tmp_path):
    """Run a tool in another process; returns it, finished."""

    def run(name, config, *arguments, timeout=150, **environment):
        script = REPOSITORY / 'tools' / name
        line = [str(script)] if script.suffix == '.sh' else [sys.executable, str(script)]
        path = os.pathsep.join(filter(None, [str(TOY), os.environ.get('PYTHONPATH')]))
        env = {**os.environ, 'PYTHONPATH': path, 'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1', **environment}
        line += [as_file(config, tmp_path), *map(str, arguments)]
        return subprocess.run(line, capture_output=True, text=True, env=env, timeout=timeout, cwd=tmp_path)

    return run


@pytest.fixture
def tool(tmp_path, monkeypatch, capfd):
    """Run a tool's main() in this process; returns exit status, standard output and standard error."""

    def run(name, config, *arguments):
        path = REPOSITORY / 'tools' / name
        spec = importlib.util.spec_from_file_location(f'tool_{path.stem}', path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setattr(sys, 'argv', [str(path), as_file(config, tmp_path), *map(str, arguments)])
        monkeypatch.chdir(tmp_path)
        spec.loader.exec_module(module)
        capfd.readouterr()
        status = 0
        try:
            module.main()
        except SystemExit as end:
            status = end.code or 0
        written = capfd.readouterr()
        return status, written.out, written.err

    return run


@pytest.fixture
def small_detector(tmp_path):
    """Config of a detector of three classes with random weights in weights.pth, and of two pictures in data/."""
    (tmp_path / 'data').mkdir()
    write_annotations(tmp_path / 'data', 2, ['red', 'green', 'blue'], 3)
    strides = [4, 8, 16]
    anchors = {'type': 'mmdet.AnchorGenerator', 'ratios': [1.0], 'octave_base_scale': 5, 'scales_per_octave': 1}
    model = {
        'type': 'mmdet.ATSS',
        'data_preprocessor': {'type': 'mmdet.DetDataPreprocessor', 'mean': [127.0] * 3, 'std': [60.0] * 3},
        'backbone': {'type': 'florence_mm.CoSwin', 'arch': 'micro', 'img_size': 32, 'patch_size': 4,
                     'out_indices': (0, 1, 2)},
        'neck': {'type': 'mmdet.FPN', 'in_channels': [32, 64, 128], 'out_channels': 32, 'num_outs': 3},
        'bbox_head': {'type': 'florence_mm.DynamicHead', 'num_classes': 3, 'in_channels': 32, 'feat_channels': 32,
                      'num_blocks': 1, 'anchor_generator': {**anchors, 'strides': strides, 'center_offset': 0.5}},
        # random weights score everything near 0.01
        'test_cfg': {'nms_pre': 100, 'min_bbox_size': 0, 'score_thr': 1e-5,
                     'nms': {'type': 'nms', 'iou_threshold': 0.6}, 'max_per_img': 20},
    }  # fmt: skip
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('florence_mm'):
        built = MODELS.build(Config({'model': model}).model)
        built.init_weights()
    torch.save({'state_dict': built.state_dict()}, tmp_path / 'weights.pth')
    load = [{'type': 'mmdet.LoadImageFromFile'}, {'type': 'mmdet.LoadAnnotations', 'with_bbox': True}]
    resize = {'type': 'mmdet.Resize', 'scale': (128, 128), 'keep_ratio': True}
    return {
        'default_scope': 'florence_mm',
        'model': model,
        'test_dataloader': {
            'batch_size': 1,
            'num_workers': 0,
            'sampler': {'type': 'florence_mm.ResumableSampler', 'shuffle': False, 'round_up': False},
            'dataset': {
                'type': 'florence_mm.DetectionDataset',
                'data_root': str(tmp_path / 'data'),
                'ann_file': 'annotations.json',
                'data_prefix': {'img': 'images'},
                'metainfo': {'classes': ['red', 'green', 'blue']},
                'test_mode': True,
                'pipeline': [*load, resize, {'type': 'mmdet.PackDetInputs'}],
            },
        },
        'test_evaluator': {'type': 'florence_mm.DetectionMetric'},
        'test_cfg': {},
    }
