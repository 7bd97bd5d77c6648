"""Members of a tar: names and places as tarfile gives them, and what is left of a damaged one."""

import io
import subprocess
import tarfile

import pytest

from florence_mm.errors import DataError
from florence_mm.formats.shard_index import ShardIndex
from florence_mm.formats.tar import Damage, Member, read_members

LONG = 'folder/' * 30 + 'picture of a façade.jpg'


@pytest.fixture
def write(tmp_path):
    """A function that writes a tar of named contents, and returns its path."""

    def write(contents, **options):
        path = tmp_path / f'{len(list(tmp_path.iterdir()))}.tar'
        with tarfile.open(path, 'w', **options) as tar:
            for name, content in contents:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        return path

    return write


def of_tarfile(path):
    with tarfile.open(path) as tar:
        return [Member(one.name, one.offset_data, one.size) for one in tar if one.isfile()]


def numbered(count=6, size=700):
    return [(f'{number:03}.jpg', bytes([number + 65]) * size) for number in range(count)]


@pytest.mark.parametrize('format', [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_and_places_are_those_of_tarfile(write, format):
    long = LONG if format != tarfile.USTAR_FORMAT else 'folder/' * 20 + 'picture.jpg'  # whose prefix ends at a slash
    contents = [(long, b'x' * 513), ('a/b.c.txt', b''), (f'{long[:-4]}.txt', b'y' * 512), *numbered()]
    path = write(contents, format=format, pax_headers={'comment': 'of all'} if format == tarfile.PAX_FORMAT else None)
    found = list(read_members(path))
    assert found == of_tarfile(path)
    assert [one.name for one in found] == [name for name, _ in contents]
    data = path.read_bytes()
    assert [data[one.offset : one.offset + one.size] for one in found] == [content for _, content in contents]


def test_folders_links_and_sizes_in_pax_records(tmp_path):
    path = tmp_path / 'a.tar'
    with tarfile.open(path, 'w') as tar:
        for name, kind in (('folder', tarfile.DIRTYPE), ('link', tarfile.SYMTYPE), ('hard', tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, 'f' * 150, 0
            tar.addfile(info)
        info = tarfile.TarInfo('a.jpg')
        info.size, info.pax_headers = 600, {'size': '600'}
        tar.addfile(info, io.BytesIO(b'z' * 600))
    assert list(read_members(path)) == of_tarfile(path) != []


def test_a_pax_record_with_a_size_of_thousands_of_digits(tmp_path):
    path = tmp_path / 'a.tar'
    with tarfile.open(path, 'w', format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo('a.txt')
        info.size, info.pax_headers = 3, {'size': '9' * 5000}
        tar.addfile(info, io.BytesIO(b'abc'))
    (found,) = read_members(path)
    assert (found.name, found.size) == ('a.txt', 3)


def test_a_size_of_eight_bytes_and_a_header_of_version_7(write):
    path = write(numbered(2))
    data = bytearray(path.read_bytes())
    data[124:136] = b'\x80' + (700).to_bytes(11, 'big')
    data[257:265] = bytes(8)  # no magic number
    data[148:156] = b' ' * 8
    data[148:156] = f'{sum(data[:512]):06o}\0 '.encode()
    path.write_bytes(data)
    assert list(read_members(path)) == [Member('000.jpg', 512, 700), Member('001.jpg', 2048, 700)]


@pytest.mark.parametrize('damage', [b'\xff' * 40, bytes(512)])
def test_a_damaged_header_does_not_end_the_tar(write, damage):
    path = write(numbered())
    whole = list(read_members(path))
    data = bytearray(path.read_bytes())
    place = whole[2].offset - 512
    data[place : place + len(damage)] = damage
    path.write_bytes(data)
    assert list(read_members(path)) == [*whole[:2], Damage(place, 'damaged header'), *whole[3:]]


def test_damaged_neighbours_are_one_place_and_the_last_may_be_damaged(write):
    path = write(numbered())
    whole = list(read_members(path))
    data = bytearray(path.read_bytes())
    for number in (0, 1, 5):
        data[whole[number].offset - 512] ^= 1
    path.write_bytes(data)
    last = whole[5].offset - 512
    assert list(read_members(path)) == [Damage(0, 'damaged header'), *whole[2:5], Damage(last, 'damaged header')]


def test_a_page_of_zeros_over_headers_is_damage_and_the_end_mark_is_none(write):
    path = write(numbered(20))
    whole = list(read_members(path))
    data = bytearray(path.read_bytes())
    data[4096:8192] = bytes(4096)
    path.write_bytes(data)
    found = list(read_members(path))
    assert [one for one in found if isinstance(one, Damage)] == [Damage(4608, 'damaged header')]
    # the first member whose header lies behind the page
    assert found[-1] == whole[-1] and [one for one in whole if one.offset >= 8192 + 512] == found[4:]


def test_two_tars_in_one_file(write):
    first, second = write(numbered(2)), write(numbered(3))
    size = first.stat().st_size
    first.write_bytes(first.read_bytes() + second.read_bytes())
    found = list(read_members(first))
    assert found[2].reason == 'damaged header' and [one.offset for one in found[3:]] == [
        one.offset + size for one in read_members(second)
    ]


@pytest.mark.parametrize(
    ('keep', 'members', 'place'),
    [(0, 0, 0), (100, 0, 0), (512, 0, 0), (1211, 0, 0), (1212, 1, 1536), (1536, 1, 1536), (1700, 1, 1536)],
)
def test_a_truncated_tar(write, keep, members, place):
    path = write(numbered())
    whole = list(read_members(path))
    path.write_bytes(path.read_bytes()[:keep])
    assert list(read_members(path)) == [*whole[:members], Damage(place, 'truncated')]


def test_a_lost_long_name_gives_no_member_of_a_cut_name(write):
    contents = [('a.jpg', b'1'), (f'{"n" * 120}1.jpg', b'2'), (f'{"n" * 120}2.jpg', b'3'), ('b.jpg', b'4')]
    path = write(contents, format=tarfile.GNU_FORMAT)
    whole = list(read_members(path))
    data = bytearray(path.read_bytes())
    data[whole[0].offset + 512] ^= 1  # the header of the first long name
    path.write_bytes(data)
    assert list(read_members(path)) == [whole[0], Damage(1024, 'damaged header'), *whole[2:]]


def test_bytes_that_are_not_utf8_stay(write):
    path = write([('caf\udce9.jpg', b'1')], format=tarfile.GNU_FORMAT, errors='surrogateescape')
    assert [one.name for one in read_members(path)] == ['caf\udce9.jpg']


def test_compressed_missing_and_special_files(tmp_path):
    path = tmp_path / 'a.tar'
    for mode, name in (('w:gz', 'gzip'), ('w:bz2', 'bzip2'), ('w:xz', 'xz')):
        tarfile.open(path, mode).close()
        with pytest.raises(DataError, match=rf'a\.tar is compressed \({name}\).*decompress it'):
            list(read_members(path))
    with pytest.raises(FileNotFoundError, match=r'there is no tar .*b\.tar; correct the path'):
        list(read_members(tmp_path / 'b.tar'))
    with pytest.raises(DataError, match='is a folder; expected a tar file'):
        list(read_members(tmp_path))


@pytest.mark.parametrize('options', [['--format=gnu'], ['--format=posix'], ['--format=posix', '--sparse-version=0.1']])
def test_sparse_members_are_told_and_those_behind_them_read(tmp_path, options):
    """GNU tar leaves holes out: what stands in the tar is not the file's content."""
    if b'GNU tar' not in subprocess.run(['tar', '--version'], capture_output=True).stdout:
        pytest.skip('this tar is not of GNU; runs where it is')
    (tmp_path / '0.txt').write_bytes(b'before')
    with (tmp_path / '1.jpg').open('wb') as file:  # more pieces than the first header holds
        for number in range(40):
            file.seek(number * 65536)
            file.write(b'x' * 100)
    (tmp_path / '2.txt').write_bytes(b'behind')
    tar = tmp_path / 'a.tar'
    subprocess.run(['tar', *options, '--sparse', '-cf', tar, '0.txt', '1.jpg', '2.txt'], cwd=tmp_path, check=True)
    if tar.stat().st_size > 500_000:
        pytest.skip('this file system has no holes; runs where it has')
    first, damage, last = read_members(tar)
    content = tar.read_bytes()
    assert (first.name, last.name, damage.reason) == ('0.txt', '2.txt', 'sparse member')
    assert content[last.offset : last.offset + last.size] == b'behind'
    with pytest.raises(DataError, match=r'a\.tar has a sparse member at byte \d+, .*; write the tar again'):
        ShardIndex.build(tar)
