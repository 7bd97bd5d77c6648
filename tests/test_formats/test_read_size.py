import numpy as np
import pytest
from PIL import Image

from florence_mm.errors import DataError
from florence_mm.formats.image import read_image, read_size


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
    assert read_image(str(path)).shape[1::-1] == read_size(path)


def test_what_has_no_size(tmp_path):
    (tmp_path / 'a.jpg').write_text('no picture')
    for name, message in (('a.jpg', 'a.jpg is not an image'), ('b.jpg', 'there is no image .*b.jpg')):
        with pytest.raises(DataError, match=f'^boxes.csv, line 2: .*{message}'):
            read_size(tmp_path / name, 'boxes.csv, line 2: ')
