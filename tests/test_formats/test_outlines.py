import numpy as np
import pytest
from pycocotools import mask as masks

from florence_mm.formats.outlines import coarser, decode_run_lengths, mask_outlines


def random_masks():
    rng = np.random.default_rng(0)
    for size in ((1, 1), (7, 5), (40, 33), (100, 260)):
        for share in (0.02, 0.5, 0.98):
            yield rng.random(size) < share
        yield np.ones(size, dtype=bool)
        yield np.zeros(size, dtype=bool)


def test_run_lengths_are_those_of_pycocotools():
    for mask in random_masks():
        stored = masks.encode(np.asfortranarray(mask.astype(np.uint8)))
        np.testing.assert_array_equal(decode_run_lengths(stored), mask)
        as_text = {'size': list(stored['size']), 'counts': stored['counts'].decode()}
        np.testing.assert_array_equal(decode_run_lengths(as_text), mask)


def test_uncompressed_run_lengths_by_hand():
    # two columns of three: false, true true, false false true
    mask = decode_run_lengths({'size': [3, 2], 'counts': [1, 2, 2, 1]})
    assert mask.tolist() == [[False, False], [True, False], [True, True]]


@pytest.mark.parametrize(
    'stored, message',
    [
        ({'counts': [4]}, 'a mask has the size None'),
        ({'size': [2, 0], 'counts': []}, r'a mask has the size \[2, 0\]'),
        ({'size': [10**6, 10**6], 'counts': [10**12]}, 'a mask has the size'),
        ({'size': [2, 2], 'counts': [3]}, 'the runs of a mask have 3 pixels; its size of 2x2'),
        ({'size': [2, 2], 'counts': [5, -1]}, r'a mask has the counts \[5, -1\]'),
        ({'size': [2, 2], 'counts': None}, 'a mask has the counts None'),
        ({'size': [2, 2], 'counts': 'o'}, 'the compressed counts of a mask are cut off'),
    ],
)
def test_masks_that_are_none(stored, message):
    with pytest.raises(ValueError, match=message):
        decode_run_lengths(stored)


def test_outline_of_a_drawn_polygon_is_that_polygon():
    polygon = np.array([[20, 20], [70, 30], [80, 75], [30, 60]], dtype=np.float64)
    mask = masks.decode(masks.merge(masks.frPyObjects([polygon.ravel().tolist()], 100, 100))).astype(bool)
    (outline,) = mask_outlines(mask, tolerance=1.0)
    # the same four corners in the same order, within a pixel and a half
    kept = coarser(outline, 2.0)
    assert len(kept) == 4
    np.testing.assert_allclose(kept, polygon, atol=1.5)


def test_coarser_polygons():
    square = np.array([[0, 0], [5, 0.2], [10, 0], [10, 10], [0, 10]])
    assert coarser(square, 0.1).tolist() == pytest.approx(square)
    assert coarser(square, 0.5).tolist() == [[0, 0], [10, 0], [10, 10], [0, 10]]
    # nothing would be left
    sliver = np.array([[0, 0], [10, 0], [10, 0.1]])
    assert coarser(sliver, 1.0).tolist() == pytest.approx(sliver)
