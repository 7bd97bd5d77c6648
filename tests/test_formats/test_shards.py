"""Shards and sets of shards: grouping, texts, indexes, and what webdataset reads of them."""

import io
import json
import tarfile

import numpy as np
import pytest

from florence_mm.errors import DataError, UsageError
from florence_mm.formats.shards import (
    RawSample,
    ShardIndex,
    describe_shard,
    group_samples,
    index_path,
    parse_text,
    read_range,
    read_set,
    split_name,
    write_set,
    write_shard,
)
from florence_mm.formats.tar import Damage, Member
from florence_mm.utils.digests import blake2b_of


def samples(count, start=0):
    """Keys and contents; the image of each is ``image N`` and longer by N bytes."""
    for number in range(start, start + count):
        text = json.dumps({'text': f'caption {number}', 'augmented': number % 4 == 3}).encode()
        yield f'{number:05}', {'jpg': f'image {number}'.encode() + b'.' * number, 'json': text}


def members(*names):
    return [Member(name, 512 * number, 1) for number, name in enumerate(names)]


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('img.v1.jpg', ('img.v1', 'jpg')),
        ('a.b/0001.JSON', ('a.b/0001', 'json')),
        ('0001.seg.png', ('0001', 'seg.png')),
        ('a/0001.Mask.PNG', ('a/0001', 'mask.png')),
        ('seg.png', ('seg', 'png')),
        ('README', ('README', '')),
        ('a/.hidden', ('a/.hidden', '')),
        ('a/._0001.jpg', ('a/._0001.jpg', '')),
    ],
)
def test_split_name(name, expected):
    assert split_name(name) == expected


def test_dotted_names_are_samples_of_their_own():
    found = group_samples(members('img.v1.jpg', 'img.v1.txt', 'img.v2.jpg', 'img.v2.txt', '0.seg.png', '0.png'))
    assert [(one.key, list(one.members), one.apart) for one in found] == [
        ('img.v1', ['jpg', 'txt'], False),
        ('img.v2', ['jpg', 'txt'], False),
        ('0', ['seg.png', 'png'], False),
    ]


def test_members_apart_are_joined_and_repeated_keys_are_not_lost():
    given = members('a.jpg', 'b.jpg', 'a.txt', 'b.txt', 'c.jpg', 'c.txt', 'c.jpg', 'c.txt')
    found = group_samples([*given[:3], Damage(0, 'damaged header'), *given[3:]])
    assert found == [
        RawSample('a', {'jpg': given[0], 'txt': given[2]}, apart=True),
        RawSample('b', {'jpg': given[1], 'txt': given[3]}, apart=True),
        RawSample('c', {'jpg': given[4], 'txt': given[5]}),
        RawSample('c', {'jpg': given[6], 'txt': given[7]}),
    ]


def test_a_shard_has_equal_bytes_twice_and_an_index_of_tarfiles_places(tmp_path):
    paths = [tmp_path / name / '0.tar' for name in 'ab']
    assert [write_shard(path, samples(20)) for path in paths] == [20, 20]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert index_path(paths[0]).read_bytes() == index_path(paths[1]).read_bytes()
    with tarfile.open(paths[0]) as tar:
        places = {one.name: (one.offset_data, one.size) for one in tar}
        assert {(one.mtime, one.uid, one.gid, one.uname, one.mode) for one in tar} == {(0, 0, 0, '', 0o644)}
    index = ShardIndex.read(paths[0])
    assert len(index) == 20 and isinstance(index.rows, np.memmap) and index.rows.itemsize <= 32
    for number, place in enumerate(index):
        assert (place.image, place.text) == ('jpg', 'json')
        assert (place.image_offset, place.image_size) == places[f'{number:05}.jpg']
        assert (place.text_offset, place.text_size) == places[f'{number:05}.json']
        assert read_range(paths[0], place.image_offset, 7 + len(str(number)) - 1) == f'image {number}'.encode()
    assert np.array_equal(ShardIndex.build(paths[0]).rows, index.rows)
    assert sorted({*range(20)} - set(index.originals.tolist())) == [3, 7, 11, 15, 19]
    assert describe_shard(paths[0]).augmented == 5
    assert not [path for path in tmp_path.rglob('*') if path.name.startswith('.')]


def test_webdataset_reads_what_is_written(tmp_path):
    webdataset = pytest.importorskip('webdataset')
    long = f'{"long" * 40}/façade'
    write_shard(tmp_path / '0.tar', [*samples(3), (long, {'png': b'4', 'json': b'{"text": "4"}'})])
    read = list(webdataset.WebDataset(str(tmp_path / '0.tar'), shardshuffle=False))
    assert [one['__key__'] for one in read] == ['00000', '00001', '00002', long]
    assert [one.get('jpg', one.get('png')) for one in read] == [b'image 0', b'image 1.', b'image 2..', b'4']
    assert [json.loads(one['json'])['text'] for one in read] == ['caption 0', 'caption 1', 'caption 2', '4']


def test_an_index_of_another_programs_tar(tmp_path):
    path = tmp_path / '0.tar'
    with tarfile.open(path, 'w') as tar:
        for name in ('a.v1.jpg', 'a.v1.json', 'a.v1.txt', 'b.txt', 'c.png', 'd.webp', 'd.cls', 'README'):
            info = tarfile.TarInfo(name)
            info.size = len(name)
            tar.addfile(info, io.BytesIO(name.encode()))
    index = ShardIndex.build(path)
    found = [
        tuple(
            read_range(path, offset, size).decode() if kind else None for kind, offset, size in (place[:3], place[3:])
        )
        for place in index
    ]
    assert found == [('a.v1.jpg', 'a.v1.txt'), (None, 'b.txt'), ('c.png', None), ('d.webp', 'd.cls')]
    assert [(place.image, place.text) for place in index] == [
        ('jpg', 'txt'),
        (None, 'txt'),
        ('png', None),
        ('webp', 'cls'),
    ]


def test_a_set_is_whole_with_its_index_only(tmp_path):
    for number, count in enumerate((4, 3)):
        write_shard(tmp_path / f'{number:05}.tar', samples(count))
    with pytest.raises(FileNotFoundError, match=r'there is no file .*index\.json; if its writer was stopped'):
        read_set(tmp_path)
    written = write_set(tmp_path)
    found = read_set(tmp_path / 'index.json')
    assert found.total == written.total == 7 and len(found) == 2 and found.samples.tolist() == [4, 3]
    assert found[1] == describe_shard(tmp_path / '00001.tar')
    assert found[1].digest == blake2b_of(tmp_path / '00001.tar') and len(found[1].digest) == 32
    assert found.bytes.tolist() == [(tmp_path / f'0000{number}.tar').stat().st_size for number in (0, 1)]
    # entries that are given are not read again, and their order stays
    assert write_set(tmp_path, [found[1], found[0]]).names.tolist() == [b'00001.tar', b'00000.tar']


def test_a_set_of_other_tars_gets_its_indexes_and_refuses_damage(tmp_path):
    path = tmp_path / '0.tar'
    write_shard(path, samples(5))
    index_path(path).unlink()
    assert write_set(tmp_path).total == 5 and len(ShardIndex.read(path)) == 5
    data = path.read_bytes()
    path.write_bytes(data[:5000])
    with pytest.raises(DataError, match=r'0\.tar has \d+ bytes, but its index places a sample up to byte \d+'):
        write_set(tmp_path)
    index_path(path).unlink()
    with pytest.raises(DataError, match=r'0\.tar is cut off at byte \d+; copy it again'):
        write_set(tmp_path)
    path.write_bytes(b'\xff' + data[1:])
    with pytest.raises(DataError, match=r'0\.tar has a damaged header at byte 0; copy it again'):
        write_set(tmp_path)


@pytest.mark.parametrize(
    ('change', 'says'),
    [
        (lambda one: one.update(version=2), 'has version 2, and this release reads 1; update florence_mm'),
        (lambda one: one.pop('format'), 'is no index of a set of shards'),
        (lambda one: one.update(samples=6), 'is damaged .another total of samples'),
        (lambda one: one['shards'][0].pop('digest'), "is damaged .*missing 1 required positional argument: 'digest'"),
        (lambda one: one['shards'][0].update(name='../0.tar'), 'is damaged .a shard without samples, bytes or'),
        (lambda one: one['shards'][0].update(bytes=10**30), 'an impossible number of them'),
        (
            lambda one: one['shards'][0].update(digest='../../x'),
            'is damaged .a shard without samples, bytes or digests',
        ),
        (lambda one: one.update(shards=one['shards'] * 2, samples=10), 'is damaged .a shard occurs twice'),
    ],
)
def test_a_damaged_list_of_a_set(tmp_path, change, says):
    write_shard(tmp_path / '0.tar', samples(5))
    write_set(tmp_path)
    content = json.loads((tmp_path / 'index.json').read_text())
    change(content)
    (tmp_path / 'index.json').write_text(json.dumps(content))
    with pytest.raises(DataError, match=says):
        read_set(tmp_path)


def test_what_is_no_shard_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r'a\.zip must be named \.tar'):
        write_shard(tmp_path / 'a.zip', samples(1))
    with pytest.raises(UsageError, match="the key 'a.b' must be a relative name without dots"):
        write_shard(tmp_path / 'a.tar', [('a.b', {})])
    with pytest.raises(UsageError, match="the key '00000' occurs twice"):
        write_shard(tmp_path / 'a.tar', [*samples(1), *samples(1)])
    with pytest.raises(UsageError, match='would have no samples'):
        write_shard(tmp_path / 'a.tar', [])
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match=r'has no shards; expected files such as 00000\.tar'):
        write_set(tmp_path)
    with pytest.raises(FileNotFoundError, match=r'a\.tar has no index a\.index\.npy beside it'):
        ShardIndex.read(tmp_path / 'a.tar')
    for content in (b'', b'\x93NUMPY', b'nothing'):
        index_path(tmp_path / 'a.tar').write_bytes(content)
        with pytest.raises(DataError, match=r'the index .*a\.index\.npy cannot be read'):
            ShardIndex.read(tmp_path / 'a.tar')
    np.save(index_path(tmp_path / 'a.tar'), np.zeros(3))
    with pytest.raises(DataError, match='is no index of a shard of this version'):
        ShardIndex.read(tmp_path / 'a.tar')


def test_a_range_behind_the_end(tmp_path):
    (tmp_path / 'a').write_bytes(b'0123456789')
    assert read_range(tmp_path / 'a', 3, 4) == b'3456'
    with pytest.raises(DataError, match='a ends at byte 10, inside a member of 4 bytes at 8; copy it again'):
        read_range(tmp_path / 'a', 8, 4)


def test_texts():
    assert parse_text('txt', b' a dog \n', 'x') == {'text': 'a dog'}
    assert parse_text('txt', b'\xef\xbb\xbfa dog', 'x') == {'text': 'a dog'}
    assert parse_text('cls', b'7\n', 'x') == {'class': 7}
    ours = {'text': 'a photo of a dog.', 'label_text': 'dog', 'augmented': True, 'id': 3}
    assert parse_text('json', json.dumps(ours).encode(), 'x') == {
        'text': 'a photo of a dog.',
        'label': 'dog',
        'augmented': True,
        'extra': {'id': 3},
    }
    theirs = {'caption': 'a dog', 'url': 'u', 'width': 3}
    assert parse_text('json', json.dumps(theirs).encode(), 'x') == {
        'text': 'a dog',
        'augmented': False,
        'extra': {'url': 'u', 'width': 3},
    }
    assert parse_text('json', b'{"class": "dog"}', 'x') == {'class': 'dog', 'augmented': False}


@pytest.mark.parametrize(
    ('kind', 'data', 'says'),
    [
        ('txt', b'caf\xe9', 'x: the txt is not UTF-8 .byte 0xe9'),
        ('txt', b'  ', "x: the text '' is empty"),
        ('cls', b'dog', "x: the class 'dog' is not a number"),
        ('json', b'[]', 'x: its json is not an object'),
        ('json', b'{', 'x: its json cannot be read as JSON'),
        ('json', b'{"id": 1}', "x: its json has neither 'text' nor 'class'"),
        ('json', b'{"text": 3}', 'x: the text must be a string, but is 3'),
        ('json', b'{"text": "a", "augmented": 1}', "x: its 'augmented' must be true or false, but is 1"),
        ('json', b'{"text": "a", "augmented": true}', "x: it is 'augmented' without 'label_text'"),
    ],
)
def test_texts_that_are_none(kind, data, says):
    with pytest.raises(DataError, match=says):
        parse_text(kind, data, 'x')
