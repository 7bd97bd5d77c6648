import re

import mmcv.transforms
import mmpretrain.datasets.transforms as peers
import numpy as np
import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from PIL import Image

from florence_mm.datasets.transforms import RandomResizedCrop, Resize, ResizeEdge
from florence_mm.errors import UsageError

PILLOW = {'backend': 'pillow', 'interpolation': 'bicubic'}


@pytest.fixture(scope='module')
def picture():
    """(119, 200, 3), smooth shapes and noise."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 255, (12, 20, 3), dtype=np.uint8)).resize((200, 119))
    return np.clip(np.asarray(coarse) + rng.normal(0, 20, (119, 200, 3)), 0, 255).astype(np.uint8)


def same_to_a_level(ours, theirs):
    levels = np.abs(ours['img'].astype(int) - theirs['img'])
    return ours['img'].shape == theirs['img'].shape and levels.max() <= 1 and (levels > 0).mean() < 0.02


@pytest.mark.parametrize('edge', ['short', 'long', 'width', 'height'])
def test_resize_edge_is_mmpretrains_to_a_level(picture, edge):
    for img in (picture, picture.transpose(1, 0, 2)):
        ours = ResizeEdge(64, edge)({'img': img})
        theirs = peers.ResizeEdge(64, edge, **PILLOW)({'img': img})
        assert same_to_a_level(ours, theirs)
        for key in ('img_shape', 'scale', 'scale_factor'):
            assert ours[key] == theirs[key]
        exact = ResizeEdge(64, edge, backend='pillow')({'img': img})
        assert np.array_equal(exact['img'], theirs['img'])


def test_resize_is_mmcvs_to_a_level_with_its_boxes(picture):
    boxes = np.array([[10, 20, 110, 80], [0, 0, 200, 119]], np.float32)
    labels = np.tile(np.arange(200, dtype=np.uint8), (119, 1))
    for kwargs in ({'scale': (90, 70)}, {'scale': (90, 70), 'keep_ratio': True}, {'scale_factor': 1.5}):
        sample = {'img': picture, 'gt_bboxes': boxes, 'gt_seg_map': labels}
        ours = Resize(**kwargs)(dict(sample))
        theirs = mmcv.transforms.Resize(**kwargs, **PILLOW)({'img': picture, 'gt_bboxes': boxes})
        assert same_to_a_level(ours, theirs)
        np.testing.assert_array_equal(ours['gt_bboxes'], theirs['gt_bboxes'])
        assert {ours[key] == theirs[key] for key in ('img_shape', 'scale', 'scale_factor', 'keep_ratio')} == {True}
        by_cv2 = mmcv.transforms.Resize(**kwargs)(dict(sample))
        np.testing.assert_array_equal(ours['gt_seg_map'], by_cv2['gt_seg_map'])
    assert 'img' not in Resize(scale=(90, 70))({'gt_bboxes': boxes, 'img_shape': (70, 90), 'scale_factor': (1, 1)})


def test_random_crops_are_mmpretrains_to_a_level(picture):
    ranges = [
        {},
        {'crop_ratio_range': (0.5, 1.0)},
        {'aspect_ratio_range': (3.0, 4.0)},
        {'aspect_ratio_range': (0.2, 0.3)},
    ]
    for number, kwargs in enumerate(ranges * 5):
        size = (48, 32) if number % 2 else 40
        outputs = []
        for transform in (RandomResizedCrop(size, **kwargs), peers.RandomResizedCrop(size, **kwargs, **PILLOW)):
            np.random.seed(number)
            outputs.append(transform({'img': picture.copy()}) | {'next': np.random.random()})
        assert same_to_a_level(*outputs)
        assert outputs[0]['next'] == outputs[1]['next']
        assert outputs[0]['img_shape'] == outputs[1]['img_shape'][:2]


@pytest.mark.parametrize('shape', [(1, 1000, 3), (1000, 1), (1, 1, 1)])
def test_no_side_is_rounded_to_nothing(shape):
    img = np.full(shape, 7, np.uint8)
    long, short = max(shape[:2]), min(shape[:2])
    resized = Resize((20, 20), keep_ratio=True)({'img': img})
    assert sorted(resized['img_shape']) == sorted((20, max(1, 20 * short // long)))
    assert resized['scale_factor'] == (resized['img'].shape[1] / shape[1], resized['img'].shape[0] / shape[0])
    cropped = RandomResizedCrop(16, max_attempts=0, aspect_ratio_range=(0.3, 0.4))({'img': img})
    for result in (resized, cropped):
        assert result['img'].shape[:2] == result['img_shape'] and (result['img'] == 7).all()


def test_a_picture_too_long_for_any_crop_gives_its_middle():
    crop = RandomResizedCrop(8, aspect_ratio_range=(1, 2))
    assert RandomResizedCrop(8, max_attempts=0, aspect_ratio_range=(1, 2)).draw((10, 100)) == (0, 40, 10, 20)
    assert RandomResizedCrop(8, max_attempts=0, aspect_ratio_range=(1, 2)).draw((100, 10)) == (45, 0, 10, 10)
    assert RandomResizedCrop(8, max_attempts=0, aspect_ratio_range=(1, 2)).draw((10, 15)) == (0, 0, 10, 15)
    top, left, height, width = crop.draw((10, 100))
    assert 0 <= top <= 10 - height and 0 <= left <= 100 - width


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: Resize(scale=8, backend='PIL'), "backend='PIL' must be one of torch, cv2, pillow"),
        (lambda: ResizeEdge(8, interpolation='area'), "interpolation='area' must be one of bilinear, bicubic with"),
        (lambda: ResizeEdge(8, 'shortest'), "edge='shortest' must be short, long, width or height"),
        (lambda: ResizeEdge(0), 'scale=0 must be a number of pixels'),
        (lambda: Resize(), 'scale=None must be given, or else scale_factor'),
        (lambda: Resize((0, 8)), 'scale=(0, 8) must be a number of pixels, or width and height'),
        (lambda: Resize((8, 8, 8)), 'must be a number of pixels, or width and height'),
        (lambda: Resize(scale_factor=float('nan')), 'scale_factor=nan must be a positive number, or two'),
        (lambda: Resize(8, keep_ratio='no'), "keep_ratio='no' must be True or False"),
        (lambda: RandomResizedCrop((8, 8, 8)), 'must be a number of pixels, or height and width'),
        (lambda: RandomResizedCrop(8, crop_ratio_range=(1, 0.5)), 'must be two positive numbers, the smaller first'),
        (lambda: RandomResizedCrop(8, max_attempts=-1), 'must be a whole number from 0'),
    ],
)
def test_wrong_arguments(build, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build()


def test_torch_resizes_8_bits_only(picture):
    with pytest.raises(UsageError, match="resizes uint8 images, not float32; take backend='cv2'"):
        ResizeEdge(32)({'img': picture.astype(np.float32)})
    assert ResizeEdge(32, backend='cv2')({'img': picture.astype(np.float32)})['img'].shape == (32, 53, 3)


@pytest.mark.parametrize(('backend', 'dtype'), [('pillow', 'float32'), ('cv2', 'int64')])
def test_types_that_a_backend_does_not_resize(backend, dtype):
    with pytest.raises(UsageError, match=f'backend={backend!r} resizes uint8.* images, not {dtype}'):
        Resize(8, backend=backend)({'img': np.zeros((4, 4, 3), dtype)})


@pytest.mark.parametrize('shape', [(1, 1000), (1000, 1)])
@pytest.mark.parametrize('backend', ['torch', 'cv2', 'pillow'])
def test_a_line_stays_a_pixel_wide(shape, backend):
    line = np.full((*shape, 3), 7, np.uint8)
    long, short = (10, 1) if shape[0] > 1 else (1, 10)
    resized = Resize((10, 10), keep_ratio=True, backend=backend)({'img': line})
    assert resized['img'].shape == (long, short, 3) and (resized['img'] == 7).all()
    for ratios in ((1e-4, 2e-4), (1e4, 2e4)):  # no part of the picture has these
        part = RandomResizedCrop(8, aspect_ratio_range=ratios, backend=backend)({'img': line})
        assert (part['img'] == 7).all()


def test_what_would_stay_at_its_place_is_refused(picture):
    boxes, masks = np.zeros((1, 4), np.float32), BitmapMasks(np.zeros((1, 4, 4), np.uint8), 4, 4)
    for step, key, value in (
        (Resize(8), 'gt_masks', masks),
        (Resize(8), 'gt_bboxes', HorizontalBoxes(torch.zeros(1, 4))),
        (ResizeEdge(8), 'gt_bboxes', boxes),
        (RandomResizedCrop(8), 'gt_seg_map', picture[..., 0]),
    ):
        with pytest.raises(UsageError, match=f'florence_mm.{type(step).__name__} cannot change {key}'):
            step({'img': picture, key: value})
