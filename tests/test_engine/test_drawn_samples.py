"""What tools/test.py --show-dir draws for samples of each task."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.dataset import Compose
from mmengine.structures import InstanceData
from mmpretrain.structures import DataSample

from florence_mm.engine import drawn_samples
from florence_mm.engine.drawn_samples import draw_tested, sample_stem
from florence_mm.engine.predictions import ShowPredictionsHook, loads_bgr
from florence_mm.errors import UsageError
from florence_mm.language.regions import Region, Target
from florence_mm.registry import TRANSFORMS
from florence_mm.visualization.detections import class_colour

BLUE = (0, 0, 255)


def boxes(file='', **meta):
    sample = DetDataSample(metainfo={'img_path': file, 'ori_shape': (500, 600), **meta})
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor([[100.0, 100, 300, 400], [10, 10, 50, 50]]),
        scores=torch.tensor([0.9, 0.2]),
        labels=torch.tensor([1, 0]),
    )
    return sample


def painted(height, width, colour=BLUE):
    return np.broadcast_to(np.array(colour, np.uint8), (height, width, 3)).copy()


@pytest.mark.parametrize('bgr', [False, True])
@pytest.mark.parametrize('on_disk', [False, True])
def test_boxes_are_in_pixels_of_the_file(tmp_path, on_disk, bgr):
    """The pipeline halved and padded the image."""
    file = tmp_path / 'a.png'
    if on_disk:
        cv2.imwrite(str(file), painted(500, 600)[..., ::-1])
    inputs = torch.zeros(3, 256, 320, dtype=torch.uint8)
    inputs[:, :250, :300] = torch.tensor(BLUE[::-1] if bgr else BLUE, dtype=torch.uint8)[:, None, None]
    drawn = draw_tested(inputs, boxes(str(file), img_shape=(250, 300)), {'classes': ('cat', 'dog')}, bgr)
    assert drawn.shape == (500, 600, 3)
    assert tuple(drawn[250, 100]) == class_colour('dog', ['cat', 'dog']) and tuple(drawn[499, 599]) == BLUE
    assert tuple(drawn[30, 10]) == BLUE  # 0.2 is below 0.3
    every = draw_tested(inputs, boxes(str(file), img_shape=(250, 300)), {}, bgr, score_thr=0.0)
    assert tuple(every[30, 10]) != BLUE


def test_classes_of_images_and_clips(monkeypatch):
    called = []
    for name in ('draw_prediction', 'draw_clip_prediction'):
        monkeypatch.setattr(drawn_samples, name, lambda *args, name=name: called.append((name, *args)) or args[0])
    image = torch.arange(3 * 4 * 5, dtype=torch.uint8).reshape(3, 4, 5)
    sample = DataSample().set_pred_score(torch.tensor([0.25, 0.75])).set_gt_label(1)
    drawn = draw_tested(image, sample, {'classes': ['cat', 'dog']})
    assert (drawn == image.permute(1, 2, 0).numpy()).all() and called[-1][3:] == (['cat', 'dog'], 1)
    draw_tested(image, sample, {})
    assert called[-1][3] == ['0', '1']
    clips = torch.stack([torch.full((3, 2, 4, 5), i, dtype=torch.uint8) for i in range(3)])  # 3 views of 2 frames
    drawn = draw_tested(clips, sample, {})
    assert drawn.shape == (2, 4, 5, 3) and (drawn == 1).all() and called[-1][0] == 'draw_clip_prediction'
    assert draw_tested(torch.zeros(25, 3, 4, 5, dtype=torch.uint8), sample, {}).shape == (25, 4, 5, 3)


def texts_of(monkeypatch, sample, meta):
    monkeypatch.setattr(drawn_samples, 'draw_texts', lambda image, lines: lines)
    return draw_tested(torch.zeros(3, 4, 4, dtype=torch.uint8), sample, meta)


def test_answers_captions_and_matches(monkeypatch):
    sample = DataSample(text='how many?')
    sample.set_field(torch.tensor([0.1, 0.7, 0.5, 0.2]), 'pred_scores')
    sample.set_field(['Two', 'two', 'three'], 'answers')
    names = {'answers': ['one', 'two', 'three', 'four']}
    lines = texts_of(monkeypatch, sample, names)
    assert [line.text for line in lines] == ['how many?', 'two 0.70', 'three 0.50', 'four 0.20', 'people: 2, 3']
    assert [line.right for line in lines] == [None, True, None, None, None] and lines[0].bold
    sample.set_field(['nine'], 'answers')
    assert texts_of(monkeypatch, sample, names)[1].right is False
    assert [line.text for line in texts_of(monkeypatch, sample, {})][1:3] == ['1 0.70', '2 0.50']
    caption = DataSample(text='a red two', texts=['a red two', 'two'])
    caption.set_field('a two', 'pred_caption')
    lines = texts_of(monkeypatch, caption, {})
    assert [line.text for line in lines] == ['a two', 'written by people: a red two', 'written by people: two']
    match = DataSample(text='a dog')
    match.set_field(0.456, 'match_score')
    assert [line.text for line in texts_of(monkeypatch, match, {})] == ['a dog', 'matches: 0.46']
    assert texts_of(monkeypatch, DataSample(text='only features'), {}) is None


def test_answers_to_tasks():
    sample = DataSample(metainfo={'ori_shape': (500, 600)})
    found = Target(regions=(Region('dog', boxes=((0.1, 0.2, 0.5, 0.8),), score=0.9),))
    for key, value in {
        'task': 'detection',
        'text': 'dog<loc_1>',
        'pred_text': 'dog<loc_2>',
        'pred_target': found,
    }.items():
        sample.set_field(value, key)
    black = torch.zeros(3, 64, 64, dtype=torch.uint8)
    drawn = draw_tested(black, sample, {})
    assert drawn.shape[0] > 500 and drawn.shape[1] == 600  # as large as the picture, with the task below it
    assert not drawn[:60].any() and tuple(drawn[250, 60]) == class_colour('dog', ['dog'])


def test_answers_to_tasks_that_are_texts(monkeypatch):
    sample = DataSample()
    fields = {'task': 'region_category', 'prompt_region': (0.0, 0.0, 0.5, 0.5), 'gt_target': Target('two')}
    for key, value in (fields | {'pred_target': Target('a two')}).items():
        sample.set_field(value, key)
    lines = [line.text for line in texts_of(monkeypatch, sample, {})]
    assert lines == ['region category', 'a two', 'right: two']


def test_names_of_drawings():
    assert sample_stem(DataSample(metainfo={'img_path': 'x/a.b.png'})) == 'a.b'
    assert sample_stem({'filename': 'clip.mp4'}) == 'clip' and sample_stem({}) == 'sample'
    assert len(sample_stem({'img_path': 'ü' * 120}).encode()) == 180  # a number and a temporary suffix fit after it


def test_the_hook_numbers_skips_and_keeps_the_data(tmp_path):
    for arguments, words in (({'interval': -1}, 'interval=-1'), ({'score_thr': 2}, 'score_thr=2')):
        with pytest.raises(UsageError, match=words):
            ShowPredictionsHook(str(tmp_path), **arguments)
    runner = SimpleNamespace(
        test_dataloader=SimpleNamespace(dataset=SimpleNamespace(metainfo={'classes': ('cat', 'dog')})),
        model=torch.nn.Identity(),
        world_size=2,
        rank=1,
    )
    hook = ShowPredictionsHook(str(tmp_path / 'show'), interval=2)
    hook.before_test(runner)
    samples = [DataSample().set_pred_score(torch.tensor([0.2, 0.8])) for _ in range(3)]
    inputs = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    hook.after_test_iter(runner, 0, {'inputs': [list(inputs), list(inputs)]}, samples)  # two views
    assert sorted(path.name for path in (tmp_path / 'show').iterdir()) == ['000001_sample.png', '000005_sample.png']
    own = DataSample(metainfo={'img_path': str(tmp_path / 'show/000009_x.png')}).set_pred_score(torch.ones(2) / 2)
    hook._count = 0
    with pytest.raises(UsageError, match='show holds the tested image .*000009_x.png; choose another'):
        hook.after_test_iter(runner, 1, {'inputs': inputs[:1]}, [own])


def test_the_order_of_channels_is_that_of_the_loader():
    def dataset(type_):
        return SimpleNamespace(pipeline=Compose([TRANSFORMS.build({'type': type_})]))

    assert loads_bgr(dataset('mmdet.LoadImageFromFile')) and not loads_bgr(dataset('florence_mm.LoadImage'))
    assert loads_bgr(SimpleNamespace(dataset=dataset('mmcv.LoadImageFromFile'))) and not loads_bgr(object())
