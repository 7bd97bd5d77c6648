"""MATLAB files whose structure is checked before scipy reads them, which damaged ones crash or never end."""

import io
import os
import struct
import zlib

import forks
import numpy as np
import pytest
import scipy.io

from florence_mm.errors import DataError
from florence_mm.formats.published.listing import read_matlab
from florence_mm.formats.published.mat5 import check_mat5

#: What the published files hold: numbers, texts, cells of texts, arrays of records.
_VALUES = {
    'labels': np.arange(9, dtype=np.uint8)[None],
    'halves': np.arange(3) / 2,
    'complex': np.array([1 + 2j]),
    'name': 'flowers – é',
    'class_names': np.array(['one', 'two'], dtype=object),
    'annotations': np.array([(1, 'a.jpg'), (2, 'b.jpg')], dtype=[('class', 'O'), ('fname', 'O')]),
    'empty': np.zeros((0, 3)),
}


def written(**options):
    file = io.BytesIO()
    scipy.io.savemat(file, _VALUES, **options)
    return file.getvalue()


@pytest.mark.parametrize('packed', [False, True])
def test_what_scipy_writes_is_whole_and_no_beginning_of_it(packed, tmp_path):
    data, file = written(do_compression=packed), tmp_path / 'a.mat'
    check_mat5(data)
    file.write_bytes(data)
    read = read_matlab(file, 'labels', 'class_names', 'annotations')
    assert read['labels'].tolist() == list(range(9)) and read['class_names'].tolist() == ['one', 'two']
    assert read['annotations']['fname'].tolist() == ['a.jpg', 'b.jpg']
    whole = 0
    for end in range(len(data)):
        try:
            check_mat5(data[:end])
            whole += 1
        except ValueError as error:
            assert 'is no MATLAB file' in str(error) or 'its sizes do not agree' in str(error)
    assert whole == len(_VALUES)  # ends between two variables, which the missing key tells


def big_endian(count=2, size=8):
    """A file of a machine with the other order of bytes: two numbers, and what its header says of them."""
    numbers = struct.pack('>2i', 5, 6)
    inside = struct.pack('>4I', 6, 8, 12, 0) + struct.pack('>2I2i', 5, 8, 1, count)
    inside += struct.pack('>2H', 1, 1) + b'x\0\0\0' + struct.pack('>2I', 5, size) + numbers
    return b'MATLAB'.ljust(124) + b'\1\0MI' + struct.pack('>2I', 14, len(inside)) + inside


def test_the_other_order_of_bytes(tmp_path):
    file = tmp_path / 'a.mat'
    file.write_bytes(big_endian())
    assert read_matlab(file, 'x')['x'].tolist() == [5, 6]
    for changes in ({'count': 3}, {'count': 2**31 - 1}, {'count': -1}, {'size': 4}, {'size': 2**31}):
        with pytest.raises(ValueError, match='its sizes do not agree'):
            check_mat5(big_endian(**changes))


def test_no_damage_ends_the_process(tmp_path):
    data = written()
    rng, file = np.random.default_rng(0), tmp_path / 'a.mat'

    def read_damaged():
        for number in range(600):
            changed, at = bytearray(data), int(rng.integers(126, len(data)))
            if number % 3 == 0:
                changed[at] ^= int(rng.integers(1, 256))
            elif number % 3 == 1:
                changed[at:at] = b'\r'
            else:
                del changed[at]
            file.write_bytes(changed)
            try:
                read_matlab(file, *_VALUES)
            except DataError as error:
                assert str(error).startswith(str(file))

    child = forks.start(read_damaged)
    assert os.waitpid(child, 0)[1] == 0


def test_packed_zeros():
    packed = zlib.compress(bytes(2**20))
    element = struct.pack('<2I', 15, len(packed)) + packed
    with pytest.raises(ValueError, match='its sizes do not agree'):
        check_mat5(b'MATLAB'.ljust(124) + b'\0\1IM' + element)
