"""Training data in shards: the samples of a manifest with the same pairs, and what is wrong with a set."""

import io
import json
import os
import pickle
import tarfile

import cv2
import numpy as np
import pytest

from florence_mm.datasets import ImageTextManifest, ImageTextShards, WeightedMixture
from florence_mm.errors import DataError, UsageError
from florence_mm.formats.shards import index_path, write_set, write_shard

PIPELINE = [dict(type='LoadImage')]
COUNTS = (3, 4, 2)


def picture(number):
    """A PNG of 4x5 pixels of one value."""
    return cv2.imencode('.png', np.full((4, 5, 3), number, np.uint8))[1].tobytes()


def texts(number):
    found = {'text': f'caption {number}', 'augmented': False, 'id': number}
    if number % 3 == 1:
        found.update(text=f'a photo of a thing {number}.', label_text=f'thing {number}', augmented=True)
    return found


def sample(number):
    return f'{number:05}', {'png': picture(number), 'json': json.dumps(texts(number)).encode()}


@pytest.fixture
def folder(tmp_path):
    """A set of three shards of nine samples."""
    start = 0
    for shard, count in enumerate(COUNTS):
        write_shard(tmp_path / 'set' / f'{shard:05}.tar', map(sample, range(start, start + count)))
        start += count
    write_set(tmp_path / 'set')
    return tmp_path / 'set'


@pytest.mark.parametrize('test_mode', [False, True])
def test_samples_are_those_of_a_manifest(folder, tmp_path, test_mode):
    rows = []
    for number in range(9):
        (tmp_path / f'{number}.png').write_bytes(picture(number))
        given = texts(number)
        given['label'] = given.pop('label_text', given['text'])
        rows.append(json.dumps({'image': f'{number}.png', **given}))
    (tmp_path / 'a.jsonl').write_text('\n'.join(rows))
    manifest = ImageTextManifest(str(tmp_path / 'a.jsonl'), pipeline=PIPELINE, test_mode=test_mode)
    shards = ImageTextShards(str(folder), pipeline=PIPELINE, test_mode=test_mode)
    assert len(shards) == len(manifest) == 9
    for ours, theirs in zip(shards, manifest, strict=True):
        number = theirs['extra']['id']
        assert np.array_equal(ours.pop('img'), theirs.pop('img')) and number == ours['sample_idx']
        shard, place = (
            np.searchsorted(np.cumsum(COUNTS), number, side='right'),
            number - sum(count for end, count in zip(np.cumsum(COUNTS), COUNTS, strict=True) if end <= number),
        )
        assert ours.pop('source') == f'{folder}/{shard:05}.tar, sample {place}'
        assert ours.pop('img_path') == f'{folder}/{shard:05}.tar#{place}'
        if number % 3 != 1:
            theirs.pop('label')
        del theirs['source'], theirs['img_path']
        assert ours == theirs


def test_a_tar_that_changed_at_equal_size_is_told(folder, monkeypatch):
    tar = folder / '00001.tar'
    whole, then = tar.read_bytes(), tar.stat().st_mtime - 9
    expected = [one['text'] for one in ImageTextShards(str(folder))]

    def read(content, older):
        tar.write_bytes(content)
        if older:  # as a copy that keeps times does
            os.utime(tar, (then, then))
        return [one['text'] for one in ImageTextShards(str(folder))]

    said = r'00001\.tar has changed since index\.json beside it was written, as its digest is another; copy it again'
    with pytest.raises(UsageError, match=said):  # in one text, and newer
        read(whole.replace(b'caption 5', b'caption 6'), older=False)
    with pytest.raises(UsageError, match=said):  # members of other sizes, and not newer
        read(whole[512:-1024] + bytes(1536), older=True)
    with pytest.raises(UsageError, match=said):  # zeros, as a crash leaves them
        read(whole[:4096] + bytes(len(whole) - 4096), older=True)
    # a tar that is only newer, or whose headers say sizes elsewhere, has its digest
    assert read(whole, older=False) == expected
    monkeypatch.setattr('florence_mm.formats.open_shards.states_size', lambda header, size: False)
    assert read(whole, older=True) == expected


def test_subsets_and_negative_indices(folder):
    ids = [one['extra']['id'] for one in ImageTextShards(str(folder), indices=4)]
    assert ids == [0, 1, 2, 3]
    assert [one['extra']['id'] for one in ImageTextShards(str(folder), indices=-2)] == [7, 8]
    assert [one['extra']['id'] for one in ImageTextShards(str(folder), indices=[5, -1])] == [5, 8]
    assert ImageTextShards(str(folder)).get_data_info(-1)['extra'] == {'id': 8}
    with pytest.raises(IndexError, match='index 9 is outside the 9 samples'):
        ImageTextShards(str(folder)).get_data_info(9)
    with pytest.raises(ValueError, match='below the 9 samples'):
        ImageTextShards(str(folder), indices=[9])


def test_augmented_samples_are_left_out(folder):
    dataset = ImageTextShards(str(folder), drop_augmented=True)
    assert [one['extra']['id'] for one in dataset] == [0, 2, 3, 5, 6, 8] and len(dataset) == 6
    assert [one['source'][-1] for one in dataset] == list('020' + '2' + '3' + '1')
    assert dataset.shards.augmented.tolist() == [1, 1, 1]
    assert [one['extra']['id'] for one in ImageTextShards(str(folder), drop_augmented=True, indices=-2)] == [6, 8]


def test_a_worker_gets_no_samples_with_the_data_set(folder):
    dataset = ImageTextShards(str(folder), pipeline=PIPELINE)
    dataset[0]
    copy = pickle.loads(pickle.dumps(dataset))
    assert not copy._open._open and copy[8]['extra'] == {'id': 8}


def test_classes(tmp_path):
    contents = [('a', 'cls', b'1'), ('b', 'json', b'{"class": "cat", "text": "a cat"}'), ('c', 'txt', b'two dogs')]
    write_shard(tmp_path / '0.tar', [(key, {'png': picture(1), kind: data}) for key, kind, data in contents])
    write_set(tmp_path)
    dataset = ImageTextShards(str(tmp_path), classes=['cat', 'dog'])
    found = [{key: one.get(key) for key in ('text', 'is_class', 'gt_label', 'class_name')} for one in dataset]
    assert found == [
        {'text': 'dog', 'is_class': True, 'gt_label': 1, 'class_name': 'dog'},
        {'text': 'a cat', 'is_class': False, 'gt_label': 0, 'class_name': 'cat'},
        {'text': 'two dogs', 'is_class': False, 'gt_label': None, 'class_name': None},
    ]
    assert dataset.metainfo['classes'] == ('cat', 'dog') and dataset.get_cat_ids(0) == [1]
    with pytest.raises(DataError, match='sample 0: it has a class, but the data set has no `classes`'):
        ImageTextShards(str(tmp_path))[0]
    with pytest.raises(DataError, match='sample 0: class 1 is outside 0 to 0'):
        ImageTextShards(str(tmp_path), classes=['cat'])[0]


@pytest.fixture
def damaged(tmp_path):
    """A set with five usable samples out of nine."""
    with tarfile.open(tmp_path / '0.tar', 'w') as tar:
        for number in range(9):
            files = {'png': picture(number), 'txt': f'caption {number}'.encode()}
            files = {0: {'txt': b'alone'}, 1: {'png': picture(1)}}.get(number, files)
            if number == 4:
                files['png'] = files['png'][:40]
            if number == 6:
                files['txt'] = b'\xff'
            for kind, data in files.items():
                info = tarfile.TarInfo(f'{number}.{kind}')
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    write_set(tmp_path)
    return str(tmp_path)


def test_unusable_samples_are_told_or_skipped(damaged):
    dataset = ImageTextShards(damaged, pipeline=PIPELINE)
    for number, says in {
        0: r'0\.tar, sample 0: it has no image; its members are in the tar at byte 512',
        1: r'0\.tar, sample 1: it has no text or class; its members are in the tar at byte 1536',
        4: r'0\.tar, sample 4: the image .*0\.tar#4 ',
        6: r'0\.tar, sample 6: the txt is not UTF-8',
    }.items():
        with pytest.raises(DataError, match=says):
            dataset[number]
    skipping = ImageTextShards(damaged, pipeline=PIPELINE, skip_bad=dict(max=4))
    assert [one['text'][-1] for one in (skipping[number] for number in range(9))] == list('222355778')
    assert skipping.num_skipped == 4 and len(skipping) == 9
    few = ImageTextShards(damaged, pipeline=PIPELINE, skip_bad=dict(max=0.2))
    with pytest.raises(DataError, match='2 rows are unusable, more than the 1 that skip_bad'):
        [few[number] for number in range(9)]
    test = ImageTextShards(damaged, pipeline=PIPELINE, skip_bad=dict(max=4), test_mode=True)
    assert [one['text'][-1] for one in test] == list('23578')
    assert test.metainfo['num_skipped'] == 4 and len(test) == 5


def test_a_cut_or_missing_shard_is_never_skipped(folder):
    path = folder / '00001.tar'
    data, whole = path.read_bytes(), index_path(path).read_bytes()
    dataset = ImageTextShards(str(folder), pipeline=PIPELINE, skip_bad=dict(max=9))
    path.write_bytes(data[:-1])
    with pytest.raises(UsageError, match=rf'00001.tar has {len(data) - 1} bytes, and index.json says {len(data)}'):
        dataset[3]
    path.unlink()
    with pytest.raises(UsageError, match=r'00001\.tar is missing, or its index is.*copy the set again'):
        dataset[3]
    path.write_bytes(data)
    index_path(path).write_bytes(index_path(folder / '00000.tar').read_bytes())
    with pytest.raises(UsageError, match=r'00001\.tar has 3 samples, 1 of them augmented, and index\.json says 4'):
        ImageTextShards(str(folder), skip_bad=dict(max=9))[3]
    index_path(path).write_bytes(whole)
    rows = np.load(index_path(path))
    np.save(index_path(path), rows[::-1])
    with pytest.raises(UsageError, match=r'the index of .*00001\.tar is not the one that index\.json names'):
        ImageTextShards(str(folder), skip_bad=dict(max=9))[3]
    index_path(path).write_bytes(b'damaged')
    with pytest.raises(UsageError, match=r'the index .*00001\.index\.npy cannot be read'):
        ImageTextShards(str(folder), skip_bad=dict(max=9))[3]


@pytest.mark.parametrize(
    ('arguments', 'error', 'says'),
    [
        (dict(block=0), ValueError, 'block=0 must be a number of shards, or None'),
        (dict(data_root=''), ValueError, "data_root='' must be a set of shards"),
        (dict(data_root='missing'), FileNotFoundError, r'there is no file missing/index\.json; if its writer'),
        (dict(data_root='s3://a'), UsageError, r'shards s3://a is in a store, and needs cache'),
        (dict(cache=dict(folder='a', max_gb=1)), UsageError, 'is local and takes no cache'),
        (dict(cache=dict(folder='a')), ValueError, "cache={'folder': 'a'} must be None or a dict with folder, max"),
        (dict(cache=dict(folder='a', max_gb=1, size=3)), ValueError, 'must be None or a dict with folder, max_gb'),
        (dict(data_root='s3://a', cache=dict(folder='a', max_gb=0)), ValueError, 'cache.max_gb=0 must be a number of'),
        (
            dict(data_root='s3://a', cache=dict(folder='a', max_gb=1, retries=-1)),
            ValueError,
            'cache.retries=-1 must be',
        ),
        (dict(data_root='s3://a', cache=dict(folder='a', max_gb=1, seconds=0)), ValueError, 'cache.seconds=0 must be'),
        (dict(data_root='s3://a', cache=dict(folder=3, max_gb=1)), ValueError, 'cache.folder=3 must be a path'),
        (dict(pipeline=[dict(type='LoadImageFromFile')]), UsageError, 'take florence_mm.LoadImage'),
    ],
)
def test_arguments(folder, arguments, error, says):
    with pytest.raises(error, match=says):
        ImageTextShards(**{'data_root': str(folder), **arguments})


def test_in_a_mixture_with_a_class_labelled_set(folder, tmp_path):
    (tmp_path / 'a.jsonl').write_text('\n'.join(json.dumps({'image': f'{n}.png', 'class': 'cat'}) for n in range(4)))
    classes = ImageTextManifest(str(tmp_path / 'a.jsonl'))
    mixture = WeightedMixture([dict(dataset=dict(type='ImageTextShards', data_root=str(folder)), weight=2),
                               dict(dataset=classes, weight=1)], epoch_size=27)  # fmt: skip
    found = [mixture.get_data_info(number) for number in range(27)]
    assert [one['is_class'] for one in found] == [False] * 18 + [True] * 9
    assert [one['extra']['id'] for one in found[:18]] == sorted([*range(9)] * 2)
