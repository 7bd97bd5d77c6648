from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from florence_mm.errors import DataError
from florence_mm.formats.image import decode_image, header_size, read_image, read_size


@pytest.mark.parametrize('kind', ['jpg', 'png', 'webp'])
@pytest.mark.parametrize('orientation', [None, *range(1, 9)])
def test_the_size_in_the_header_is_that_of_the_decoded_image(tmp_path, kind, orientation):
    image = Image.fromarray(np.zeros((20, 31, 3), np.uint8))
    exif = image.getexif()
    if orientation is not None:
        exif[0x0112] = orientation
    path = tmp_path / f'a.{kind}'
    image.save(path, exif=exif)
    turned = orientation in (5, 6, 7, 8)  # EXIF: the rows of these are columns
    assert read_size(path) == ((20, 31) if turned else (31, 20))
    assert read_image(str(path)).shape[1::-1] == read_size(path) == header_size(path.read_bytes())
    # and brightness alone is turned as well
    assert decode_image(path.read_bytes(), grey=True).shape == read_size(path)[::-1]


def test_what_has_no_size(tmp_path):
    (tmp_path / 'a.jpg').write_text('no picture')
    for name, message in (('a.jpg', 'a.jpg is not an image'), ('b.jpg', 'there is no image .*b.jpg')):
        with pytest.raises(DataError, match=f'^boxes.csv, line 2: .*{message}'):
            read_size(tmp_path / name, 'boxes.csv, line 2: ')


def test_a_header_tells_a_size_that_is_too_large_or_none():
    assert header_size(b'no picture') is None and header_size(b'') is None
    assert header_size(b'P6 30000 4000 255\n') == (30000, 4000)
    with pytest.raises(Image.DecompressionBombError):
        header_size(b'P6 30000 40000 255\n')


@pytest.mark.parametrize('reduction', [1, 2, 4])
def test_brightness_alone_is_that_of_the_colours(reduction):
    file = BytesIO()
    ramp = np.linspace(0, 255, 64 * 48 * 3).reshape(48, 64, 3).astype(np.uint8)
    Image.fromarray(ramp).save(file, 'JPEG', quality=95)
    colours = decode_image(file.getvalue(), reduction=reduction)
    grey = decode_image(file.getvalue(), reduction=reduction, grey=True)
    assert grey.shape == colours.shape[:2] == (48 // reduction, 64 // reduction)
    # the weights of ITU-R BT.601, which are also JPEG's
    expected = colours @ [0.299, 0.587, 0.114]
    assert np.abs(grey - expected).max() < 2
