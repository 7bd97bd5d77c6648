import numpy as np
import pytest
from PIL import Image

from florence_mm.ops.resizing import resize_image


def test_worked_by_hand():
    # halving with the triangle widened to four pixels: weights 1/8, 3/8, 3/8, 1/8, at the border without the first
    row = np.array([0, 0, 80, 80, 160, 160, 0, 0], np.uint8)
    image = np.repeat(row[None], 2, axis=0)[..., None]
    expected = [(1 * 80) / 7, (3 * 80 + 3 * 80 + 160) / 8, (80 + 6 * 160) / 8, 160 / 7]
    halved = resize_image(image, (2, 4), 'bilinear')
    np.testing.assert_allclose(halved[0, :, 0], expected, atol=0.51)
    np.testing.assert_array_equal(halved[0], halved[1])


@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
@pytest.mark.parametrize('channels', [(), (1,), (3,), (4,), (5,)])
def test_it_is_pillow_to_two_levels(interpolation, channels):
    rng = np.random.default_rng(0)
    whole = rng.integers(0, 256, (70, 90, *channels), dtype=np.uint8)
    part = whole[3:60, 5:83]  # not contiguous
    filters = {'bilinear': Image.Resampling.BILINEAR, 'bicubic': Image.Resampling.BICUBIC}
    for size in ((20, 30), (57, 40), (120, 100), (57, 78)):
        ours = resize_image(part, size, interpolation)
        planes = part.reshape(57, 78, -1)
        theirs = [Image.fromarray(np.ascontiguousarray(plane)) for plane in np.moveaxis(planes, 2, 0)]
        theirs = np.stack([np.asarray(plane.resize(size[::-1], filters[interpolation])) for plane in theirs], axis=2)
        assert ours.flags.c_contiguous and ours.shape == (*size, *channels) and ours.dtype == np.uint8
        levels = np.abs(ours.reshape(theirs.shape).astype(int) - theirs)
        assert levels.max() <= (2 if interpolation == 'bicubic' else 1) and (levels > 0).mean() < 0.02
    assert np.array_equal(resize_image(part, (57, 78)), part)


def test_arrays_that_may_not_be_written_are_resized_without_a_warning(recwarn):
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    expected = resize_image(image, (10, 10))
    image.flags.writeable = False
    np.testing.assert_array_equal(resize_image(image, (10, 10)), expected)
    assert not recwarn
