"""Bad inputs: command lines of the tools that run trained models, and drawings."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from florence_mm.engine.predictions import SavePredictions, ShowPredictionsHook
from florence_mm.ops.boxes import box_iou
from florence_mm.visualization.canvas import font
from florence_mm.visualization.detections import draw_detections

from .case import ROOT, BadInput, command

AREA = 'command lines of inference, drawings'
DIGITS = ROOT / 'configs/unicl/unicl_coswin-micro_1xb64-36e_digits.py'


def _good(folder: Path) -> Path:
    cv2.imwrite(str(folder / 'good.png'), np.zeros((64, 64, 3), np.uint8))
    return folder / 'good.png'


def _flops_of(folder: Path, config: str) -> Any:
    (folder / 'c.py').write_text(config)
    return command('tools/analysis_tools/get_flops.py', 'c.py')


def _weights(folder: Path) -> Path:
    (folder / 'w.pth').write_bytes(b'weights')
    return folder / 'w.pth'


def _over(option: str) -> Callable[[Path], Any]:
    """A tool that would write over its checkpoint, config or image."""

    def run(folder: Path) -> Any:
        image = _good(folder)
        for name in ('c.json', 'w.pt'):
            (folder / name).write_text('{}')
        if option == '--attention':
            return command('tools/vqa.py', 'c.json', 'w.pt', image, '--question', 'why?', option, 'why', image)
        return command('tools/vqa.py', 'c.json', 'w.pt', image, '--caption', '--out', folder / option)

    return run


def _test_over(name: str) -> Callable[[Path], Any]:
    def run(folder: Path) -> Any:
        (folder / 'w.pt').write_bytes(b'weights')
        (folder / 'data').mkdir()
        (folder / 'data/a.json').write_text('{}')
        options = ['--cfg-options', 'test_dataloader.dataset.data_root=data', 'test_dataloader.dataset.ann_file=a.json']
        return command('tools/test.py', DIGITS, 'w.pt', '--out', name, *options)

    return run


def _iou(dtype: torch.dtype) -> float:
    return round(box_iou(*(torch.tensor([b], dtype=dtype) for b in ([0, 0, 200, 200], [100, 0, 250, 200]))).item(), 6)


def _strip_over_checkpoint(folder: Path) -> Any:
    """An activation map in place of the checkpoint, which may have any name."""
    (folder / 'w.png').write_bytes(b'weights')
    (folder / 'a.mp4').write_bytes(b'')
    return command('tools/video.py', 'c.py', 'w.png', 'a.mp4', '--activation-map', folder / 'w.png')


def _out_to_device(folder: Path) -> Any:
    return command('tools/vqa.py', 'c.py', 'w.pt', _good(folder), '--caption', '--out', '/dev/null')


def _font(value: str) -> Any:
    os.environ['FLORENCE_MM_FONT'] = value
    font.cache_clear()
    return font(12)


def _drawn(boxes: Any, names: list, scores: Any = None) -> tuple:
    return draw_detections(np.zeros((480, 480, 3), np.uint8), boxes, names, scores).shape


def _differ(*names: str) -> bool:
    blank = np.full((100, 300, 3), 255, np.uint8)
    return len({draw_detections(blank, [[9, 40, 290, 90]], [name]).tobytes() for name in names}) == len(names)


def _misspelt() -> list[BadInput]:
    """Keys and values of models, in tools that build no run."""
    detector = ROOT / 'configs/dynamic_head/atss_coswin-micro_fpn_dyhead_2xb4-8e_scenes.py'
    rows = []
    for option, says in (
        ('model.backbone.depht=3', ('model.backbone.depht', 'CoSwin')),
        ('model.bbox_head.num_classes=ten', ('num_classes', "'ten'")),
        ('model.test_cfg.score_thr=nan', ('score_thr', "'nan'")),
        ('model.test_cfg.nms.iou_threshold=half', ('iou_threshold', "'half'")),
        ('model.neck.typ=FPN', ('model.neck',)),
    ):
        for line in (('tools/detect.py', detector, 'w.pt', 'a.png'), ('tools/analysis_tools/get_flops.py', detector)):
            rows.append(
                BadInput(
                    f'{Path(line[0]).name} {option}', lambda f, a=(*line, '--cfg-options', option): command(*a), says
                )
            )
    return rows


def _tools() -> list[BadInput]:
    rows = []
    detect = ('tools/detect.py', 'c.py', 'w.pth', 'a.png')
    vqa = ('tools/vqa.py', 'c.py', 'w.pth', 'a.png', '--caption')
    test = ('tools/test.py', 'c.py', 'w.pth')
    flops = ('tools/analysis_tools/get_flops.py', DIGITS)
    for line, option, values in (
        (detect, '--score-thr', ('nan', 'inf', '-1', '1.1', 'x')),
        (detect, '--batch-size', ('0', '-1', '1.5', 'x')),
        (detect, '--device', ('nonsense', 'cuda:99')),
        (vqa, '--top', ('0', '-1', 'x')),
        (vqa, '--batch-size', ('0',)),
        (vqa, '--device', ('nonsense',)),
        (test, '--show-interval', ('0', '-1', 'x')),
        (test, '--show-score-thr', ('nan', '2')),
        (flops, '--shape', ('0', '-32', 'x')),
        (flops, '--depth', ('0', '-1')),
    ):
        for value in values:
            name = Path(line[0]).name
            run = lambda f, line=line, option=option, value=value: command(*line, option, value)  # noqa: E731
            rows.append(BadInput(f'{name} {option} {value}', run, (option, value)))
    rows += [
        BadInput(
            'test.py --show-interval without --show-dir',
            lambda f: command('tools/test.py', DIGITS, 'w.pth', '--show-interval', 2),
            '--show-dir',
        ),
        BadInput('get_flops.py with three sides', lambda f: command(*flops, '--shape', 8, 8, 8), '--shape'),
        BadInput('get_flops.py of an image too small', lambda f: command(*flops, '--shape', 8), '32'),
        BadInput(
            'get_flops.py of a part that is not there',
            lambda f: command(*flops, '--module', 'neck'),
            ('neck', 'image_encoder'),
        ),
        BadInput(
            'get_flops.py of a config without model',
            lambda folder: _flops_of(folder, 'x = 1\n'),
            'no model',
        ),
        BadInput('detect.py on a config that is missing', lambda f: command(*detect), 'c.py'),
        BadInput('vqa.py --attention over the image', _over('--attention'), ('--attention', 'good.png')),
        BadInput('vqa.py --out to a device', _out_to_device, ('/dev/null', 'device')),
        BadInput(
            'video.py --activation-map over the checkpoint', _strip_over_checkpoint, ('--activation-map', 'w.png')
        ),
        *_misspelt(),
        BadInput('vqa.py --out over the checkpoint', _over('w.pt'), ('--out', 'w.pt')),
        BadInput('vqa.py --out over the config', _over('c.json'), ('--out', 'c.json')),
        BadInput(
            'test.py --compare in fp32 alone',
            lambda f: command('tools/test.py', DIGITS, _weights(f), '--compare'),
            '--precision bf16',
        ),
        BadInput(
            'test.py --precision int8',
            lambda f: command('tools/test.py', DIGITS, _weights(f), '--precision', 'int8'),
            ("'int8'", 'florence-mm export MODEL'),
        ),
        BadInput('test.py --out over the checkpoint', _test_over('w.pt'), ('--out', 'w.pt')),
        BadInput('test.py --out over the annotations', _test_over('data/a.json'), ('--out', 'a.json')),
    ]
    for value in (0, -1):
        rows.append(
            BadInput(
                f'ShowPredictionsHook(interval={value})', lambda f, v=value: ShowPredictionsHook('s', v), 'interval'
            )
        )
    for value in ('p.pkl', 'p', ''):
        rows.append(BadInput(f'SavePredictions({value!r})', lambda f, v=value: SavePredictions(v), '.json'))
    return rows


def _drawings() -> list[BadInput]:
    rows = [
        BadInput(f'drawing: names {names}', lambda f, n=names: _differ(*n), gives=True)
        for names in (
            ('猫', '狗'),
            ('고', '양'),
            ('แ', 'ม'),
            ('\ue000', '\ue001'),
            ('\udc80', '\udc81'),
            ('a\0', 'a\x01'),
        )
    ]
    rows += [
        BadInput('drawing: a name of blanks', lambda f: _drawn([[0, 0, 9, 9]], [' \n\t']), gives=(480, 480, 3)),
        BadInput(
            'drawing: a name of 10000 letters', lambda f: _drawn([[0, 0, 9, 9]], ['x' * 10000]), gives=(480, 480, 3)
        ),
        BadInput(
            'drawing: a box outside the image', lambda f: _drawn([[-9e3, 9e3, -8e3, 9e4]], ['x']), gives=(480, 480, 3)
        ),
        BadInput('drawing: a box turned round', lambda f: _drawn([[90, 90, 10, 10]], ['x']), gives=(480, 480, 3)),
        BadInput('drawing: a box of NaN', lambda f: _drawn([[0, 0, math.nan, 9]], ['x']), 'finite'),
        BadInput('drawing: a box of three numbers', lambda f: _drawn([[0, 0, 9]], ['x']), 'boxes have shape'),
        BadInput('drawing: two names for one box', lambda f: _drawn([[0, 0, 9, 9]], ['x', 'y']), '2 names'),
        BadInput('a font that is missing', lambda f: _font('no.ttf'), 'FLORENCE_MM_FONT=no.ttf'),
        BadInput('a font that is a config', lambda f: _font(str(DIGITS)), 'cannot be read as a font'),
    ]
    rows += [
        BadInput(f'overlap of boxes of {dtype}', lambda f, d=dtype: _iou(d), gives=0.4)
        for dtype in (torch.uint8, torch.int32, torch.int64, torch.float64)
    ]
    return rows


def cases() -> list[BadInput]:
    return [*_tools(), *_drawings()]
