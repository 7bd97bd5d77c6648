import io
import struct

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from florence_mm.formats.image import decode_image, header_size, without_animation

GREY = np.linspace(0, 255, 64 * 48).reshape(48, 64).astype(np.uint8)


def saved(image, kind='PNG', **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize('default', [False, True])
def test_an_animated_picture_is_the_still_one_that_pillow_shows(default):
    frames = [Image.fromarray(np.full((48, 64), value, np.uint8)) for value in (90, 200)]
    data = saved(Image.fromarray(GREY), save_all=True, append_images=frames, default_image=default)
    assert b'acTL' in data
    assert (decode_image(data, grey=True) == GREY).all()


def test_text_that_looks_like_the_mark_of_an_animation_stays():
    text = PngInfo()
    text.add_text('comment', '\0\0\0\x08acTL')
    data = saved(Image.fromarray(GREY), pnginfo=text)
    assert without_animation(data) == data and (decode_image(data, grey=True) == GREY).all()


@pytest.mark.parametrize('length', [1 << 14, 0xFFFFFFFF])
def test_a_chunk_longer_than_the_file_is_not_decoded(length, monkeypatch):
    data = saved(Image.fromarray(GREY))
    at = data.index(b'IDAT') - 4
    # a decoder asks for the memory that the length promises
    monkeypatch.setattr('cv2.imdecode', lambda *_: pytest.fail('it was decoded'))
    with pytest.raises(ValueError, match='is cut off before its end'):
        decode_image(data[:at] + struct.pack('>I', length) + data[at + 4 :])


def test_what_follows_the_last_chunk_does_not_matter():
    assert (decode_image(saved(Image.fromarray(GREY)) + b'\xff' * 30, grey=True) == GREY).all()


@pytest.mark.parametrize(
    ('kind', 'old', 'new'),
    [
        ('AVIF', b'pitm', b'free'),
        ('JPEG2000', b'\0\0\0-jp2h\0\0\0\x0fihdr', b'\0\0\0\x01jp2h' + b'\xff' * 8),
        ('SPIDER', None, None),
    ],
)
def test_damaged_headers_are_none_whatever_pillow_raises(kind, old, new):
    data = saved(Image.fromarray(GREY), kind)
    if kind == 'SPIDER':
        data = data[:104] + struct.pack('<f', 1) + data[108:]
    else:
        if kind == 'JPEG2000':
            at = data.index(b'jp2h') - 4
            old = data[at : at + 16]
        assert old in data and header_size(data) == (64, 48)
        data = data.replace(old, new)
    assert header_size(data) is None
    with pytest.raises(ValueError, match=r'^is '):
        decode_image(data)
