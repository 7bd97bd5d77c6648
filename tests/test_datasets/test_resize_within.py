"""Resizing within two edges, as ViLT's code does."""

import numpy as np
import pytest

from florence_mm.datasets.transforms import ResizeWithin


@pytest.mark.parametrize(
    ('shape', 'size'),
    [
        ((480, 640), (384, 512)),
        ((640, 480), (512, 384)),
        ((1000, 300), (640, 192)),  # the longer edge decides
        ((100, 100), (384, 384)),
        ((427, 640), (384, 576)),  # 575.5 is rounded to 576
        ((2000, 10), (640, 32)),  # at least one patch
    ],
)
def test_edges_are_those_of_vilt(shape, size):
    results = ResizeWithin()({'img': np.zeros((*shape, 3), np.uint8)})
    assert results['img'].shape[:2] == results['img_shape'] == size == results['scale'][::-1]
    assert results['scale_factor'] == (size[1] / shape[1], size[0] / shape[0])


def test_edges_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match='divisor=32 must be at most short=16'):
        ResizeWithin(short=16)
    with pytest.raises(ValueError, match='divisor=32 must be at most short=384, and that at most long=200'):
        ResizeWithin(long=200)
