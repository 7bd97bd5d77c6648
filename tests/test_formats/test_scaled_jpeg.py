"""Parts of JPEG files decoded at a smaller size, against the whole image shrunk by Pillow's box filter."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from florence_mm.errors import DataError
from florence_mm.formats.image import decode_image, jpeg_size
from florence_mm.formats.jpeg import stored_size
from florence_mm.formats.scaled_jpeg import undecoded_jpeg


@pytest.fixture(scope='module')
def picture():
    noise = np.random.default_rng(0).integers(0, 255, (204, 304, 3)).astype(np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 6), None, 0, 255, cv2.NORM_MINMAX)


def encode(picture, mode='RGB', exif=None, **options):
    file = io.BytesIO()
    orientation = Image.Exif()
    if exif is not None:
        orientation[0x112] = exif
        options['exif'] = orientation
    Image.fromarray(picture).convert(mode).save(file, 'JPEG', quality=95, **options)
    return file.getvalue()


KINDS = {
    'baseline': {},
    'no subsampling': {'subsampling': 0},
    'progressive': {'progressive': True},
    'grey': {'mode': 'L'},
    'CMYK': {'mode': 'CMYK'},
    **{f'orientation {number}': {'exif': number} for number in range(1, 9)},
}


@pytest.mark.parametrize('options', KINDS.values(), ids=KINDS)
@pytest.mark.parametrize('reduction', [2, 4])
def test_a_part_is_that_of_the_whole_image(picture, options, reduction):
    data = encode(picture, **options)
    whole = decode_image(data)
    assert jpeg_size(data) == whole.shape[:2] and stored_size(data) == (204, 304)
    box = (8, 16, 160, 120)
    least = (160 // reduction, 120 // reduction)
    part = undecoded_jpeg(data, 'a.jpg').decode_part(box, least)
    assert part.shape == (*least, 3) and part.dtype == np.uint8
    exact = Image.fromarray(whole[8:168, 16:136]).resize(least[::-1], Image.Resampling.BOX)
    difference = part.astype(float) - np.asarray(exact)
    assert 10 * np.log10(255**2 / (difference**2).mean()) > 38
    # one more pixel than a reduction has, and the next larger size is decoded
    more = undecoded_jpeg(data, 'a.jpg').decode_part(box, (least[0] + 1, least[1]))
    assert more.shape == ((80, 60, 3) if reduction == 4 else (160, 120, 3))
    if reduction == 2:
        np.testing.assert_array_equal(more, whole[8:168, 16:136])


@pytest.mark.parametrize('size', [(203, 301), (204, 304), (201, 302), (202, 303)])
def test_every_part_has_the_pixels_that_are_needed(picture, size):
    undecoded = undecoded_jpeg(encode(picture[: size[0], : size[1]]), 'a.jpg')
    height, width = undecoded.shape
    rng = np.random.default_rng(0)
    boxes = [(0, 0, height, width), (height - 81, width - 41, 81, 41), (3, 5, 80, 41)]
    for _ in range(20):
        h, w = int(rng.integers(40, height + 1)), int(rng.integers(40, width + 1))
        boxes.append((int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1)), h, w))
    for top, left, h, w in boxes:
        by = next((by for by in (4, 2) if min(h, w) >= by * 20), 1)
        part = undecoded.decode_part((top, left, h, w), (20, 20))
        # half of a pixel at each edge
        assert min(part.shape[:2]) >= 20 and abs(part.shape[0] - h / by) <= 1 and abs(part.shape[1] - w / by) <= 1


@pytest.mark.parametrize('options', [{}, {'progressive': True}, {'exif': 6}, {'restart_marker_blocks': 8}])
def test_files_that_end_early_are_found_at_each_size(picture, options):
    data = encode(picture, **options)
    start = data.rfind(b'\xff\xc4', 0, 3000)
    for end in np.linspace(start + 200, len(data) - 200, 12).astype(int):
        for least in ((20, 20), (60, 60)):
            cut = undecoded_jpeg(data[:end] + b'\xff\xd9', 'a.jpg', 'train.jsonl, line 3: ')
            with pytest.raises(DataError, match=r'train.jsonl, line 3: the image a.jpg is (cut off|not an image)'):
                cut.decode_part((0, 0, 160, 160), least)


def test_what_is_no_jpeg_with_a_size_is_not_taken(picture):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, 'PNG')
    assert undecoded_jpeg(file.getvalue(), 'a.png') is None
    assert undecoded_jpeg(b'', 'a.jpg') is None
    data = encode(picture)
    frame = data.index(b'\xff\xc0')
    assert undecoded_jpeg(data[: frame + 5] + b'\0\0' + data[frame + 7 :], 'a.jpg') is None  # height left open
    assert undecoded_jpeg(data[:frame], 'a.jpg') is None


def test_a_turn_that_only_the_decoder_sees_is_an_error(picture):
    undecoded = undecoded_jpeg(encode(picture, exif=6), 'a.jpg')
    wrong = type(undecoded)(undecoded.data, 'a.jpg', '', undecoded.shape[::-1])
    with pytest.raises(DataError, match=r'the image a.jpg does not say how it is turned; .* without scaled=True'):
        wrong.decode_part((0, 0, 100, 100), (20, 20))


def test_broken_exif_is_no_turn(picture):
    data = encode(picture, exif=6)
    at = data.index(b'Exif\0\0') + 6
    broken = data[:at] + b'XX\0\0' + data[at + 4 :]
    assert jpeg_size(broken) == decode_image(broken).shape[:2] == (204, 304)
