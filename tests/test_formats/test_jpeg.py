"""JPEG files that end too early but have an end marker, as a copy with a cut middle or a repairing tool leaves them."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from florence_mm.formats.image import decode_image


@pytest.fixture(scope='module')
def picture():
    noise = np.random.default_rng(0).integers(0, 255, (203, 301, 3)).astype(np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 3)


def encode(picture, **options):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, 'JPEG', **options)
    return file.getvalue()


def turned():
    exif = Image.Exif()
    exif[0x112] = 6
    return exif


KINDS = {
    'baseline': {'quality': 80},
    'no subsampling': {'subsampling': 0, 'quality': 50},
    'progressive': {'progressive': True},
    'restart markers': {'restart_marker_blocks': 8},
    'turned': {'exif': turned()},
}


@pytest.mark.parametrize('options', KINDS.values(), ids=KINDS)
def test_a_cut_is_found_wherever_it_is(picture, options):
    data = encode(picture, **options)
    assert decode_image(data).shape[2] == 3
    start = data.rfind(b'\xff\xc4', 0, 3000)
    for end in np.linspace(start + 200, len(data) - 60, 25).astype(int):
        with pytest.raises(ValueError, match='is cut off before its end|is not an image'):
            decode_image(data[:end] + b'\xff\xd9')


@pytest.mark.parametrize('options', KINDS.values(), ids=KINDS)
def test_whole_files_with_flat_corners_and_more_after_the_end_pass(options):
    flat = np.full((64, 96, 3), (250, 240, 10), np.uint8)
    cv2.circle(flat, (48, 32), 20, (0, 90, 200), -1)
    for data in (encode(flat, **options), encode(flat[:, :, 0], **options), encode(flat[:17, :33], **options)):
        assert np.array_equal(decode_image(data), decode_image(data + b'more'))


def test_other_formats_that_are_cut(picture):
    for name, options in (('PNG', {}), ('WEBP', {}), ('BMP', {}), ('GIF', {}), ('TIFF', {}), ('PPM', {})):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, name, **options)
        data = file.getvalue()
        decode_image(data)
        for part in (0.3, 0.6, 0.95):
            with pytest.raises(ValueError, match='is cut off|is not an image'):
                decode_image(data[: int(len(data) * part)] + (b'IEND\xaeB`\x82' if name == 'PNG' else b''))
