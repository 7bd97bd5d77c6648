import pytest

from florence_mm.config.origin import flatten, origins
from florence_mm.errors import UsageError


def test_origins(tmp_path):
    files = {
        'a.py': 'x = dict(p=1, q=2)\nitems = [dict(k=1), dict(k=2)]\nkept = 5\n',
        'b.py': 'y = 1\n',
        'middle.py': "_base_ = ['a.py', 'b.py']\nx = dict(q=3)\n",
        'leaf.py': "_base_ = 'middle.py'\nx = dict(q=2, r=dict())\nitems = [dict(k=1), dict(k=3)]\n"
        'kept = 5\nz = {{_base_.y}}\n',
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    found = origins(tmp_path / 'leaf.py', {'x.p': 7, 'new.v': [1, 2]})
    named = {key: (value, file.rsplit('/', 1)[-1]) for key, (value, file) in found.items()}
    assert named == {
        'x.p': (7, 'command line'),
        'x.q': (2, 'leaf.py'),  # back to what a.py says, but the middle said otherwise
        'x.r': ({}, 'leaf.py'),
        'items.0.k': (1, 'a.py'),
        'items.1.k': (3, 'leaf.py'),
        'kept': (5, 'a.py'),  # repeats its base
        'y': (1, 'b.py'),
        'z': (1, 'leaf.py'),
        'new.v': ([1, 2], 'command line'),
    }


def test_flatten():
    assert flatten({'a': {'b': [1, 2], 'c': [{'d': 1}]}, 'e': {}}) == {'a.b': [1, 2], 'a.c.0.d': 1, 'e': {}}


def test_pure_python_configs(tmp_path):
    path = tmp_path / 'lazy.py'
    path.write_text('from mmengine.config import read_base\nfrom torch.nn import Linear\nx = dict(type=Linear)\n')
    with pytest.raises(UsageError, match='imports its bases as Python modules'):
        origins(path)
