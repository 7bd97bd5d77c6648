import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest

from florence_mm.utils.plain_pickle import UnpicklingRefused, load_plain

REFS = [{'ref_id': 1, 'sentences': [{'sent': 'the dog', 'tokens': ['the', 'dog']}], 'box': (1, 2.5, None, True)}]


class Harmful:
    """Would make a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_are_read(protocol):
    assert load_plain(pickle.dumps(REFS, protocol)) == REFS


def test_texts_of_python_2():
    # as Python 2 writes {'sent': 'caf\xc3\xa9', u'raw': u'caf\xe9', 'id': 7L}
    old = b"(dp0\nS'sent'\np1\nS'caf\\xc3\\xa9'\np2\nsVraw\np3\nVcaf\xe9\np4\nsS'id'\np5\nL7L\ns."
    assert load_plain(old) == {'sent': 'café', 'raw': 'café', 'id': 7}
    assert load_plain(old, encoding='bytes')[b'sent'] == 'café'.encode()
    assert load_plain(b"S'caf\\xe9'\np0\n.") == 'caf\ufffd'


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_that_a_pickle_names_is_called(tmp_path, protocol):
    folder = tmp_path / 'made'
    with pytest.raises(UnpicklingRefused, match=r'it names (posix|nt|os).mkdir, which no published file does'):
        load_plain(pickle.dumps([*REFS, Harmful(folder)], protocol))
    assert not folder.exists()
    for value in (np.int64(3), OrderedDict(a=1), {1, 2} if protocol < 4 else np.zeros(2)):
        with pytest.raises(UnpicklingRefused, match='it names'):
            load_plain(pickle.dumps(value, protocol))


def test_what_is_no_pickle():
    for data in (b'', b'{"ref_id": 1}', pickle.dumps(REFS)[:-4], b'\x80\x63.', b'cos\nsystem\n.'):
        with pytest.raises(UnpicklingRefused, match='.'):
            load_plain(data)
    # an extension's number and a persistent id stand for objects too
    for data in (b'\x80\x02\x82\x01.', b'\x80\x02X\x01\x00\x00\x00aQ.'):
        with pytest.raises(UnpicklingRefused, match='.'):
            load_plain(data)


def test_known_names_are_replaced():
    data = pickle.dumps(os.getcwd, 2)
    module = os.getcwd.__module__
    assert load_plain(data, {(module, 'getcwd'): 'a stand-in'}) == 'a stand-in'
