import io
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, features

from florence_mm.datasets import ImageFolderText
from florence_mm.datasets.transforms import LoadImage
from florence_mm.engine.runner import FlorenceRunner
from florence_mm.errors import DataError, UsageError
from florence_mm.formats.image import decode_image, is_cut_off

WHITE = np.array([255, 255, 255], dtype=np.float32)


@pytest.fixture(scope='module')
def picture():
    """A smooth (40, 56, 3) image whose four corners differ."""
    noise = np.random.default_rng(0).random((40, 56, 3)).astype(np.float32)
    return (cv2.GaussianBlur(noise, (9, 9), 3) * 255).astype(np.uint8)


def encode(picture, mode, form, **kwargs):
    buffer = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture).convert(mode)
    image.save(buffer, form, **kwargs)
    return buffer.getvalue()


FORMATS = [
    ('RGB', 'JPEG', {}),
    ('RGB', 'JPEG', {'progressive': True}),
    ('L', 'JPEG', {}),
    ('CMYK', 'JPEG', {}),
    ('RGB', 'PNG', {}),
    ('L', 'PNG', {}),
    ('P', 'PNG', {}),
    ('1', 'PNG', {}),
    ('RGB', 'WEBP', {}),
    ('RGB', 'BMP', {}),
    ('RGB', 'TIFF', {}),
    ('RGB', 'GIF', {}),
    ('RGB', 'PPM', {}),
]


@pytest.mark.parametrize(('mode', 'form', 'kwargs'), FORMATS)
def test_equals_pil(picture, mode, form, kwargs):
    data = encode(picture, mode, form, **kwargs)
    ours = decode_image(data, WHITE)
    theirs = np.asarray(Image.open(io.BytesIO(data)).convert('RGB'))
    assert ours.dtype == np.uint8
    # CMYK is converted with other rounding
    np.testing.assert_allclose(ours.astype(int), theirs, atol=1 if mode == 'CMYK' else 0)


@pytest.mark.parametrize(('form', 'mode'), [('PNG', 'RGBA'), ('PNG', 'LA'), ('WEBP', 'RGBA')])
def test_transparency_shows_the_background(picture, form, mode):
    image = Image.fromarray(picture).convert(mode)
    alpha = np.tile(np.linspace(0, 255, 56).astype(np.uint8), (40, 1))
    image.putalpha(Image.fromarray(alpha))
    data = encode(image, mode, form, **({'lossless': True, 'exact': True} if form == 'WEBP' else {}))
    bare = np.asarray(image.convert('RGB'))
    np.testing.assert_array_equal(decode_image(data, None), bare)
    for background in ((255, 255, 255), (10, 200, 0)):
        expected = bare * (alpha[..., None] / 255) + np.array(background) * (1 - alpha[..., None] / 255)
        np.testing.assert_allclose(decode_image(data, np.array(background, np.float32)), expected, atol=0.51)


def test_palette_with_transparent_colour():
    image = Image.new('P', (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    data = encode(image, 'P', 'PNG', transparency=0)
    np.testing.assert_array_equal(decode_image(data, WHITE), [[[255, 255, 255], [40, 50, 60]]])


def test_16_bits_are_scaled():
    values = np.array([[0, 128, 129, 257, 32768, 65535]], dtype=np.uint16)
    data = cv2.imencode('.png', values)[1].tobytes()
    # v / 257, rounded
    np.testing.assert_array_equal(decode_image(data)[0, :, 0], [0, 0, 1, 1, 128, 255])
    colour = np.zeros((1, 2, 3), dtype=np.uint16)
    colour[0, 0] = [257 * 1, 257 * 2, 257 * 3]  # BGR
    np.testing.assert_array_equal(decode_image(cv2.imencode('.png', colour)[1].tobytes())[0, 0], [3, 2, 1])
    with pytest.raises(ValueError, match='has values of type float32'):
        decode_image(cv2.imencode('.tiff', np.zeros((2, 2), dtype=np.float32))[1].tobytes())


@pytest.mark.parametrize('form', ['JPEG', 'PNG', 'WEBP', 'TIFF'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_orientation(picture, form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    kwargs = {'lossless': True} if form == 'WEBP' else {}
    data = encode(picture, 'RGB', form, exif=exif, **kwargs)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert('RGB'))
    assert upright.shape == ((56, 40, 3) if orientation > 4 else (40, 56, 3))
    np.testing.assert_array_equal(decode_image(data), upright)


@pytest.mark.skipif(not features.check('avif'), reason='runs with Pillow 11.3 or later, which writes AVIF')
@pytest.mark.parametrize('orientation', range(1, 9))
def test_avif_is_upright(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    corner = np.zeros((40, 56, 3), dtype=np.uint8)
    corner[:20, :28] = 255
    data = encode(corner, 'RGB', 'AVIF', exif=exif, quality=100)
    turned = Image.fromarray(corner)
    turned.getexif()[0x0112] = orientation
    upright = np.asarray(ImageOps.exif_transpose(turned)).astype(int)
    assert upright.shape == ((56, 40, 3) if orientation > 4 else (40, 56, 3))
    # AVIF is lossy, also across the corner's edges
    assert np.abs(decode_image(data).astype(int) - upright).mean() < 2


@pytest.mark.parametrize(('mode', 'form', 'kwargs'), FORMATS)
@pytest.mark.parametrize('part', [0.02, 0.3, 0.9, 0.99])
def test_cut_off(picture, mode, form, kwargs, part):
    data = encode(picture, mode, form, **kwargs)
    with pytest.raises(ValueError, match='is cut off|is not an image|cannot be decoded'):
        decode_image(data[: int(len(data) * part)])


def test_end_mark_of_an_embedded_thumbnail_is_not_the_end(picture):
    small = encode(picture, 'RGB', 'JPEG')
    segment = b'\xff\xe1' + (len(small) + 2).to_bytes(2, 'big') + small
    data = small[:2] + segment + small[2:]
    assert not is_cut_off(data)
    assert is_cut_off(data[:-2])
    assert is_cut_off(data[: len(segment)])
    # what follows the end does not count
    assert not is_cut_off(data + b'junk')


def test_load_image(tmp_path, picture):
    path = tmp_path / 'a.jpg'
    path.write_bytes(encode(picture, 'RGB', 'JPEG'))
    results = LoadImage()({'img_path': str(path)})
    assert results['img'].shape == (40, 56, 3)
    assert results['img_shape'] == results['ori_shape'] == (40, 56)
    for content, message in (
        (None, r'cannot be read \(No such file or directory\)'),
        (b'', 'is an empty file'),
        (b'<html>', 'is of the format HTML, which is not read'),
        (b'<htm', 'is not an image, or is damaged'),
        (b'\xff\xd8\xff', 'is cut off'),
    ):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DataError, match=f'^list, line 7: the image .*a.jpg {message}.*; .* remove it$'):
            LoadImage()({'img_path': str(path), 'source': 'list, line 7'})
    with pytest.raises(DataError, match='is a folder; expected a file'):
        LoadImage()({'img_path': str(tmp_path)})
    with pytest.raises(ValueError, match='must be three numbers'):
        LoadImage(background=(1, 2))


def test_an_equal_file_is_decoded_once_and_a_changed_one_again(tmp_path, picture, monkeypatch):
    decoded = []
    original = cv2.imdecode
    monkeypatch.setattr(cv2, 'imdecode', lambda *args: decoded.append(1) or original(*args))
    path, other = tmp_path / 'a.png', 255 - picture
    path.write_bytes(encode(picture, 'RGB', 'PNG'))
    load = LoadImage()
    first = load({'img_path': str(path)})['img']
    first[:] = 0  # what later transforms do to it is not seen by the next
    again = load({'img_path': str(path)})['img']
    assert np.array_equal(again, picture) and len(decoded) == 1
    path.write_bytes(encode(other, 'RGB', 'PNG'))
    assert np.array_equal(load({'img_path': str(path)})['img'], other) and len(decoded) == 2
    path.write_bytes(b'no image')
    with pytest.raises(DataError, match='is not an image'):
        load({'img_path': str(path)})
    path.write_bytes(encode(other, 'RGB', 'PNG'))
    assert np.array_equal(load({'img_path': str(path)})['img'], other)


def test_images_are_kept_up_to_a_size(tmp_path, picture):
    paths = [str(tmp_path / f'{n}.png') for n in range(3)]
    for n, path in enumerate(paths):
        Path(path).write_bytes(encode(picture // (n + 1), 'RGB', 'PNG'))
    load = LoadImage(keep_mb=2 * picture.nbytes / 2**20)  # two of the three
    for path in paths:
        load({'img_path': path})['img'][:] = 0  # what later transforms do to it is not seen by the next
        Path(path).unlink()
    for n in (1, 0, 1):
        results = load({'img_path': paths[n]})
        assert np.array_equal(results['img'], picture // (n + 1)) and results['ori_shape'] == picture.shape[:2]
    with pytest.raises(DataError, match='cannot be read'):
        load({'img_path': paths[2]})
    # a copy, such as a worker's, begins anew and with all the room
    copy = pickle.loads(pickle.dumps(load))
    assert repr(copy) == repr(load) and len(pickle.dumps(load)) < picture.nbytes
    for n in (0, 1):
        with pytest.raises(DataError, match='cannot be read'):
            copy({'img_path': paths[n]})
        Path(paths[n]).write_bytes(encode(picture // 5, 'RGB', 'PNG'))
        copy({'img_path': paths[n]})
        Path(paths[n]).unlink()
        assert np.array_equal(copy({'img_path': paths[n]})['img'], picture // 5)
    with pytest.raises(ValueError, match='keep_mb=-1 must be a number from 0'):
        LoadImage(keep_mb=-1)


def test_damaged_png_is_found(picture):
    data = bytearray(encode(picture, 'RGB', 'PNG'))
    data[len(data) // 2] ^= 255
    with pytest.raises(ValueError, match='is not an image, or is damaged'):
        decode_image(bytes(data))


SCALED = [
    {'type': 'florence_mm.LoadImage', 'scaled': True},
    {'type': 'florence_mm.RandomResizedCrop', 'scale': 32, 'crop_ratio_range': (0.3, 1.0)},
]


@pytest.fixture
def large(picture, tmp_path):
    """A folder with one class: a JPEG file of (320, 448), and the same as PNG."""
    (tmp_path / 'dog').mkdir()
    image = Image.fromarray(picture).resize((448, 320), Image.Resampling.BICUBIC)
    image.save(tmp_path / 'dog' / 'a.jpg', quality=95)
    Image.open(tmp_path / 'dog' / 'a.jpg').save(tmp_path / 'dog' / 'b.png')
    return tmp_path


def test_scaled_crops_are_those_of_the_whole_image(large):
    pipelines = [SCALED, [{'type': 'florence_mm.LoadImage'}, SCALED[1]]]
    pack = {'type': 'florence_mm.PackImageText'}
    scaled, whole = (ImageFolderText(str(large), pipeline=[*steps, pack]) for steps in pipelines)
    for seed in range(20):
        outputs = []
        for data in (scaled, whole):
            for item in (0, 1):
                np.random.seed(seed)
                outputs.append((data[item], np.random.random()))
        (jpeg, png), exact = outputs[:2], outputs[2:]
        assert len({drawn for _, drawn in outputs}) == 1
        assert torch.equal(png[0]['inputs'], exact[1][0]['inputs'])  # decoded whole
        difference = jpeg[0]['inputs'].float() - exact[0][0]['inputs']
        assert 0 < difference.square().mean() < 255**2 / 10**3  # another size, 30 dB
        assert jpeg[0]['data_samples'].ori_shape == (320, 448) and jpeg[0]['data_samples'].img_shape == (32, 32)


@pytest.mark.parametrize(
    ('steps', 'test_mode', 'message'),
    [
        (SCALED[:1], False, 'the next step must be florence_mm.RandomResizedCrop, .* and is none; take scaled=False'),
        ([SCALED[0], {'type': 'mmpretrain.RandomResizedCrop', 'scale': 32}], False, 'florence_mm.RandomResizedCrop'),
        ([SCALED[0], {'type': 'mmcv.RandomFlip', 'prob': 0.5}, SCALED[1]], False, 'and is RandomFlip'),
        ([{'type': 'mmcv.RandomApply', 'transforms': SCALED[:1]}, SCALED[1]], False, 'and is none'),
        ([{'type': 'mmcv.RandomChoice', 'transforms': [SCALED, SCALED[:1]]}], False, 'and is none'),
        ([{'type': 'mmcv.Compose', 'transforms': SCALED}], True, 'a test is done on whole images'),
        (SCALED, True, 'cannot be used here: a test is done on whole images'),
    ],
)
def test_scaled_loading_is_refused_where_it_gives_wrong_values(large, steps, test_mode, message):
    with pytest.raises(UsageError, match=message):
        ImageFolderText(str(large), pipeline=steps, test_mode=test_mode)


def test_scaled_loading_of_other_packages_is_checked_when_they_are_loaded(large):
    def load(steps):
        custom = {'type': 'mmpretrain.CustomDataset', 'data_root': str(large), 'pipeline': steps}
        repeated = {'type': 'RepeatDataset', 'dataset': custom, 'times': 2}
        sampler = {'type': 'DefaultSampler', 'shuffle': False}
        return FlorenceRunner.build_dataloader({'dataset': repeated, 'sampler': sampler, 'batch_size': 1})

    pack = {'type': 'mmpretrain.PackInputs'}
    assert next(iter(load([*SCALED, pack])))['inputs'][0].shape == (3, 32, 32)
    with pytest.raises(UsageError, match='the next step must be florence_mm.RandomResizedCrop, .* and is PackInputs'):
        load([SCALED[0], pack])


def test_scaled_loading_takes_no_cache():
    with pytest.raises(ValueError, match='keep_mb=5 must be 0 with scaled=True'):
        LoadImage(keep_mb=5, scaled=True)
    with pytest.raises(ValueError, match="scaled='yes' must be True or False"):
        LoadImage(scaled='yes')


def test_scaled_files_that_end_early_are_named_and_replaced(large):
    file = large / 'dog' / 'a.jpg'
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2] + b'\xff\xd9')
    with pytest.raises(DataError, match=r'a\.jpg is cut off before its end'):
        ImageFolderText(str(large), pipeline=SCALED)[0]
    skipping = ImageFolderText(str(large), pipeline=SCALED, skip_bad={'max': 1})
    assert skipping[0]['img_path'].endswith('b.png') and skipping.num_skipped == 1
