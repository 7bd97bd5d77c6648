"""Pictures of all kinds through curation: the size, hash and pixels that Pillow gives, or a reason."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw
from pyarrow import parquet
from raw_pairs import write_tar

from florence_mm.curation.hashing import perceptual_hash
from florence_mm.curation.inputs import find_shards
from florence_mm.curation.options import InputOptions, StageAOptions
from florence_mm.curation.stage_a import process_shard, sidecar_path

COARSE = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
RGB = cv2.resize(COARSE, (160, 120), interpolation=cv2.INTER_CUBIC)
PICTURE, NEGATIVE = Image.fromarray(RGB), Image.fromarray(255 - RGB)
GREY = PICTURE.convert('L')
RAMP = Image.fromarray(np.tile(np.linspace(0, 255, 160).astype(np.uint8), (120, 1)))
TURNED = Image.Exif()
TURNED[0x0112] = 6
DEEP = np.asarray(GREY).astype(np.uint16) * 257


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def animated(kind, **options):
    return saved(PICTURE, kind, save_all=True, append_images=[NEGATIVE], **options)


def with_alpha(*bands):
    return Image.merge({2: 'LA', 4: 'RGBA'}[len(bands) + 1], [*bands, RAMP])


def over_white(*bands):
    picture = with_alpha(*bands).convert('RGBA')
    return Image.alpha_composite(Image.new('RGBA', picture.size, 'white'), picture).convert('RGB')


@pytest.fixture
def measure(tmp_path):
    """Rows of stage A of pictures."""

    def measure(files):
        members = [(f'{n:03}.{part}', d) for n, data in enumerate(files) for part, d in (('jpg', data), ('txt', b'a'))]
        write_tar(tmp_path / 'raw/0.tar', members)
        (shard,) = find_shards([InputOptions('tars', str(tmp_path / 'raw'))], tmp_path / 'work')
        process_shard(shard, StageAOptions(), tmp_path / 'work')
        return parquet.read_table(sidecar_path(tmp_path / 'work', 0)).to_pylist()

    return measure


def test_size_and_hash_are_those_of_what_pillow_shows(measure):
    palette = PICTURE.quantize(64)
    upright = PICTURE.transpose(Image.Transpose.ROTATE_270)
    kinds = {
        'grey of 16 bits, PNG': (cv2.imencode('.png', DEEP)[1].tobytes(), GREY),
        'colours of 16 bits, PNG': (cv2.imencode('.png', RGB[..., ::-1].astype(np.uint16) * 257)[1].tobytes(), PICTURE),
        'grey of 16 bits, TIFF': (cv2.imencode('.tif', DEEP)[1].tobytes(), GREY),
        'CMYK, JPEG': (saved(PICTURE.convert('CMYK'), 'JPEG', quality=95), PICTURE),
        'CMYK, JPEG, turned': (saved(PICTURE.convert('CMYK'), 'JPEG', quality=95, exif=TURNED), upright),
        'CMYK, TIFF': (saved(PICTURE.convert('CMYK'), 'TIFF'), PICTURE),
        'palette': (saved(palette, 'PNG'), palette.convert('RGB')),
        'one bit': (saved(PICTURE.convert('1'), 'PNG'), PICTURE.convert('1')),
        'grey and transparency': (saved(with_alpha(GREY), 'PNG'), over_white(GREY)),
        'colours and transparency': (saved(with_alpha(*PICTURE.split()), 'PNG'), over_white(*PICTURE.split())),
        'WebP and transparency': (
            saved(with_alpha(*PICTURE.split()), 'WEBP', lossless=True, exact=True),
            over_white(*PICTURE.split()),
        ),
        'animated GIF': (saved(palette, 'GIF', save_all=True, append_images=[NEGATIVE.quantize(64)]), palette),
        'animated WebP': (animated('WEBP', lossless=True), PICTURE),
        'animated PNG': (animated('PNG'), PICTURE),
        'animated PNG with another still picture': (animated('PNG', default_image=True), PICTURE),
        'TIFF of two pages': (animated('TIFF'), PICTURE),
        'turned JPEG': (saved(PICTURE, 'JPEG', quality=95, exif=TURNED), upright),
        'turned PNG': (saved(PICTURE, 'PNG', exif=TURNED), upright),
        'turned WebP': (saved(PICTURE, 'WEBP', lossless=True, exif=TURNED), upright),
        'turned TIFF': (saved(PICTURE, 'TIFF', exif=TURNED), upright),
    }
    rows = measure([data for data, _ in kinds.values()])
    for row, (name, (_, shown)) in zip(rows, kinds.items(), strict=True):
        assert row['drop'] is None, name
        assert (row['width'], row['height']) == shown.size, name
        assert (row['phash'] ^ perceptual_hash(np.asarray(shown.convert('RGB')))).bit_count() <= 2, name


def test_kinds_that_are_not_read_are_undecodable(measure):
    numbers = Image.fromarray(np.asarray(GREY).astype(np.float32))
    data = animated('AVIF')
    files = [
        saved(numbers, 'TIFF'),
        saved(PICTURE, 'ICO'),
        b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        data.replace(b'pitm', b'free').replace(b'stbl', b'free'),
    ]
    assert [row['drop'] for row in measure(files)] == ['undecodable'] * 4


def test_icons_whose_shape_is_their_transparency_are_no_copies(measure):
    """Colours behind transparent pixels are black as a rule, also in a black icon."""
    files = []
    for corner in ((10, 10), (70, 20), (40, 70)):
        icon = Image.new('RGBA', (128, 128), (0, 0, 0, 0))
        ImageDraw.Draw(icon).ellipse((*corner, corner[0] + 50, corner[1] + 40), fill=(0, 0, 0, 255))
        files.append(saved(icon, 'PNG'))
    first, second, third = (row['phash'] for row in measure(files))
    assert min((first ^ second).bit_count(), (first ^ third).bit_count(), (second ^ third).bit_count()) > 10
