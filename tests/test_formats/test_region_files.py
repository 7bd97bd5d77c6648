"""Files of region features, and the transform that reads them."""

import json
import pickle

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from florence_mm.datasets.transforms import LoadRegions, PackImageText
from florence_mm.errors import DataError
from florence_mm.formats.regions import RegionFiles, Regions, RegionWriter


def regions(count, size=(40, 20)):
    generator = np.random.default_rng(count)
    boxes = generator.uniform(0, 10, (count, 4)).astype(np.float32)
    boxes[:, 2:] += boxes[:, :2]
    features = generator.normal(size=(count, 6)).astype(np.float32)
    return Regions(features, boxes, np.full((count, 4), 0.25, np.float32), size)


def write(folder, counts, **kwargs):
    every = {f'{n}.png': regions(count, (40 + n, 20)) for n, count in enumerate(counts)}
    with RegionWriter(folder, ['a', 'b', 'c'], **kwargs) as writer:
        for name, one in every.items():
            writer.add(name, one)
    return every


def test_what_was_written_is_read(tmp_path):
    every = write(tmp_path, [3, 1, 5, 2, 4], images_per_shard=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        'index.json',
        *(f'regions-{n:05d}.safetensors' for n in range(3)),
    ]
    files = pickle.loads(pickle.dumps(RegionFiles(tmp_path)))  # as workers get it
    assert (len(files), files.feature_dims, files.classes) == (5, 6, ['a', 'b', 'c']) and '2.png' in files
    for name, one in every.items():
        read = files.read(name)
        for key in ('features', 'boxes', 'probabilities'):
            assert np.array_equal(getattr(read, key), getattr(one, key))
        assert read.size == one.size
    with pytest.raises(DataError, match=r'has no regions of 9\.png; it has those of 5 other images'):
        files.read('9.png')


def test_half_of_the_bytes(tmp_path):
    every = write(tmp_path, [300], dtype='float16')
    read = RegionFiles(tmp_path).read('0.png')
    assert read.features.dtype == np.float32
    np.testing.assert_allclose(read.features, every['0.png'].features, rtol=1e-3)


def test_unfinished_and_wrong_files_are_refused(tmp_path):
    with pytest.raises(RuntimeError, match='stopped'), RegionWriter(tmp_path, ['a', 'b', 'c'], 1) as writer:
        writer.add('0.png', regions(2))
        raise RuntimeError('stopped')
    with pytest.raises(DataError, match=r'index\.json is missing; write the regions with florence-mm regions'):
        RegionFiles(tmp_path)
    writer = RegionWriter(tmp_path, ['a', 'b', 'c'])
    writer.add('0.png', regions(2))
    for name, one in (('0.png', regions(2)), ('1.png', regions(0))):
        with pytest.raises(DataError, match=r'expected \(R, 6\), \(R, 4\) and \(R, 4\) with at least one region'):
            writer.add(name, one)
    writer.close()
    with pytest.raises(DataError, match='exists; give a new folder'):
        RegionWriter(tmp_path, ['a'])
    (tmp_path / 'index.json').write_text(json.dumps({'format': 'other'}))
    with pytest.raises(DataError, match='is not an index of region features of version 1'):
        RegionFiles(tmp_path)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'features': np.zeros((4, 6), np.float32)}, r'has features of shape \[4, 6\].*need \[5, 6\]'),
        ({'features': np.zeros((5, 7), np.float32)}, r'has features of shape \[5, 7\].*need \[5, 6\]'),
        ({'boxes': np.zeros((5, 5), np.float32)}, r'has boxes of shape \[5, 5\].*need \[5, 4\]'),
        ({'probabilities': np.zeros((5, 3), np.float32)}, r'has probabilities of shape \[5, 3\].*need \[5, 4\]'),
        ({'starts': np.array([0, 5])}, r'has starts of shape \[2\].*need \[3\]'),
        ({'starts': np.array([0, 5, 5])}, 'has an image without regions or size'),
        ({'starts': np.array([1, 2, 5])}, 'has an image without regions or size'),
        ({'sizes': np.zeros((2, 2), np.int32)}, 'has an image without regions or size'),
        ({'sizes': None}, 'has no sizes; write the regions anew'),
        ({'images': '["0.png", "0.png"]'}, 'has an image that is there twice'),
        ({'images': '["0.png"'}, 'the images of .*regions-00000'),
        ({'images': '["0.png"]'}, 'has 1 images and its index 2'),
    ],
)
def test_shards_that_are_not_what_they_say_are_refused(tmp_path, change, message):
    write(tmp_path, [2, 3])
    file = tmp_path / 'regions-00000.safetensors'
    names = change.pop('images', '["0.png", "1.png"]')
    tensors = {name: value for name, value in {**load_file(file), **change}.items() if value is not None}
    save_file(tensors, file, {'images': names})
    with pytest.raises(DataError, match=message):
        RegionFiles(tmp_path)


def test_one_image_in_two_shards_and_an_index_without_its_keys(tmp_path):
    write(tmp_path, [2, 3], images_per_shard=1)
    index = json.loads((tmp_path / 'index.json').read_text())
    first = index['shards'][0]
    for key, value in (('shards', [first, first]), ('shards', [{'file': first['file']}]), ('classes', None)):
        (tmp_path / 'index.json').write_text(json.dumps({**index, key: value}))
        with pytest.raises(DataError, match='an image that is there twice|lacks feature_dims, classes or files'):
            RegionFiles(tmp_path)


def test_values_that_are_not_finite_are_neither_written_nor_read(tmp_path):
    one = regions(2)
    for dtype, value in (('float32', np.nan), ('float16', 1e5)):  # more than half precision holds
        one.features[1, 2] = value
        with pytest.raises(DataError, match=f'are not finite as {dtype}'):
            RegionWriter(tmp_path / dtype, ['a', 'b', 'c'], dtype=dtype).add('0.png', one)
    write(tmp_path, [2])
    file = tmp_path / 'regions-00000.safetensors'
    tensors = load_file(file)
    tensors['boxes'][1, 0] = np.inf
    save_file(tensors, file, {'images': '["0.png"]'})
    with pytest.raises(DataError, match=r'has regions of 0\.png that are not finite'):
        RegionFiles(tmp_path).read('0.png')


def test_regions_take_the_place_of_pixels(tmp_path):
    every = write(tmp_path, [3])
    sample = {'img_path': 'pictures/0.png', 'text': 'a red two'}
    packed = PackImageText()(LoadRegions(str(tmp_path))(dict(sample)))
    inputs, one = packed['inputs'].numpy(), every['0.png']
    assert np.array_equal(inputs[:, :6], one.features) and np.array_equal(inputs[:, 6:], one.positions())
    assert packed['data_samples'].region_classes.shape == (3, 4)
    x1, y1, x2, y2 = one.boxes[0]
    w, h = (x2 - x1) / 40, (y2 - y1) / 20
    np.testing.assert_allclose(inputs[0, 6:], [x1 / 40, y1 / 20, x2 / 40, y2 / 20, w, h, w * h], rtol=1e-5)
    blind = PackImageText()(LoadRegions(str(tmp_path), positions=False, max_regions=2)(dict(sample)))
    assert blind['inputs'].shape == (2, 13) and not blind['inputs'][:, 6:].any()
    with pytest.raises(DataError, match='by the name of the picture, and this one is no file'):
        LoadRegions(str(tmp_path))({'img_path': None})
    inside = LoadRegions(str(tmp_path), images='pictures')(dict(sample))
    assert inside['regions'].shape == (3, 13)


def test_regions_stand_beside_pixels_that_are_loaded_too(tmp_path):
    every = write(tmp_path, [3])
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    sample = LoadRegions(str(tmp_path))({'img_path': '0.png', 'text': 'a red two'})
    packed = PackImageText()({**sample, 'img': pixels})
    assert np.array_equal(packed['inputs'].numpy(), pixels.transpose(2, 0, 1))
    assert np.array_equal(packed['data_samples'].regions.numpy()[:, :6], every['0.png'].features)
    assert 'regions' not in PackImageText()(sample)['data_samples']  # where they are the inputs
