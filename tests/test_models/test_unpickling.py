"""Files with objects of other packages beside the tensors: these are read, and nothing else is made or run."""

import argparse
import collections
import enum
import io
import pathlib
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest
import torch

from florence_mm.models.checkpoints import read_checkpoint
from florence_mm.models.checkpoints.reading import read_file
from florence_mm.models.checkpoints.unpickling import InertUnpickler, UnsafeContent

WEIGHT = torch.arange(6.0).view(2, 3)


class Colour(enum.Enum):
    RED = 1


@pytest.fixture
def written(tmp_path):
    """A function that saves what it gets with a package that is not installed when it is read."""

    def write(make, name='a.pth', **kwargs):
        package, module = types.ModuleType('absent'), types.ModuleType('absent.config')
        created = []

        class Node(dict):
            """As yacs' CfgNode: a dict with attributes."""

            def __init__(self, *args):
                super().__init__(*args)
                self.__dict__['frozen'] = True
                created.append(self)

        class Ordered(collections.OrderedDict):
            """As the state dicts of some training frameworks."""

        class Options:
            """As easydict's or a training framework's arguments."""

            def __init__(self, **values):
                vars(self).update(values)

        for cls in (Node, Ordered, Options):
            cls.__module__, cls.__qualname__ = 'absent.config', cls.__name__
            setattr(module, cls.__name__, cls)
        sys.modules |= {'absent': package, 'absent.config': module}
        try:
            torch.save(make(module), tmp_path / name, **kwargs)
        finally:
            del sys.modules['absent'], sys.modules['absent.config']
        return tmp_path / name

    return write


FORMS = {'zip': {}, 'before 1.6': {'_use_new_zipfile_serialization': False}, 'protocol 4': {'pickle_protocol': 4}}


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
@pytest.mark.parametrize('form', FORMS)
def test_tensors_and_plain_values_are_read(written, form):
    def content(absent):
        return {
            'model': absent.Ordered(a=WEIGHT, turned=WEIGHT.t(), p=torch.nn.Parameter(WEIGHT + 1)),
            'config': absent.Node({'DATA': absent.Node({'SIZE': 224, 'MEAN': [0.5, (1, 2)]})}),
            'args': argparse.Namespace(rate=0.1, out=pathlib.Path('x/y'), best=np.float64(3)),
            'options': absent.Options(depth=[1, pathlib.Path('z'), 2]),
            'counts': collections.defaultdict(list, a=[1]),
            'colour': Colour.RED,
            'epoch': 3,
        }

    path = written(content, **FORMS[form])
    found = read_file(path)
    model = found.pop('model')
    assert found == {
        'config': {'DATA': {'SIZE': 224, 'MEAN': [0.5, (1, 2)]}},
        'args': {'rate': 0.1, 'best': 3.0},
        'options': {'depth': [1, None, 2]},  # the others keep their places
        'counts': {'a': [1]},
        'epoch': 3,
    }
    assert torch.equal(model['a'], WEIGHT) and torch.equal(model['p'], WEIGHT + 1)
    assert model['turned'].data_ptr() == model['a'].data_ptr() and not model['turned'].is_contiguous()
    state, _ = read_checkpoint(path)
    assert list(state) == ['a', 'turned', 'p']
    assert 'absent' not in sys.modules


def test_what_was_left_out_is_named(written, monkeypatch):
    lines = []
    monkeypatch.setattr('florence_mm.models.checkpoints.reading.print_log', lambda text, *_: lines.append(text))
    path = written(lambda absent: {'w': WEIGHT, 'args': argparse.Namespace(out=pathlib.PurePosixPath('x'))})
    read_file(path)
    assert lines == [
        f'{path}: the tensors and plain values were read; objects of other packages were not made: argparse.Namespace '
        'in args, pathlib.PurePosixPath in args.out'
    ]


def test_a_runs_history_and_arrays_beside_other_objects(tmp_path):
    from mmengine.logging import HistoryBuffer

    arrays = {'mixed': np.array([pathlib.PurePosixPath('x'), 1], dtype=object), 'short': np.arange(3, dtype=np.int16)}
    content = {'w': WEIGHT, 'hub': {'loss': HistoryBuffer([1.0, 2.0], [1, 1])}, 'args': argparse.Namespace(**arrays)}
    torch.save(content, tmp_path / 'a.pth')
    found = read_file(tmp_path / 'a.pth')
    assert found['hub']['loss'].mean() == 1.5
    assert found['args']['mixed'] == [None, 1] and found['args']['short'].tolist() == [0, 1, 2]


def test_circles_end(written):
    def content(absent):
        node = absent.Options(value=1)
        node.parent = node
        return {'w': WEIGHT, 'config': node}

    found = read_file(written(content))
    assert found['config']['value'] == 1 and found['config']['parent'] is found['config']


def test_whole_modules_are_refused(tmp_path):
    for name, content in {'a.pth': torch.nn.Linear(2, 2), 'b.pth': {'model': torch.nn.Linear(2, 2)}}.items():
        torch.save(content, tmp_path / name)
        with pytest.raises(ValueError, match=rf'{name} holds no tensors .*whole module; save its state_dict\(\)'):
            read_checkpoint(tmp_path / name)


class Calls:
    """An object that calls a function of Python's library when it is unpickled; here a harmless one."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


@pytest.mark.parametrize('form', ['zip', 'before 1.6'])
@pytest.mark.parametrize(
    ('function', 'args', 'named'),
    [
        (abs, (-1,), 'builtins.abs'),
        (pathlib.Path.exists, (pathlib.Path('x'),), 'pathlib.*exists'),
        (getattr, (WEIGHT, 'shape'), 'Tensor.shape'),
        (sys.getsizeof, (1,), 'sys.getsizeof'),
    ],
)
def test_functions_of_python_are_refused(tmp_path, form, function, args, named):
    torch.save({'w': WEIGHT, 'meta': {'x': Calls(function, *args)}}, tmp_path / 'a.pth', **FORMS[form])
    with pytest.raises(ValueError, match=rf'a.pth holds more than tensors \({named}\), and loading it could run code'):
        read_file(tmp_path / 'a.pth')


def test_functions_of_other_packages_are_not_called(tmp_path, monkeypatch):
    called = []
    module = types.ModuleType('absent')
    module.call = lambda *args: called.append(args)
    module.call.__module__, module.call.__qualname__ = 'absent', 'call'
    monkeypatch.setitem(sys.modules, 'absent', module)
    torch.save({'w': WEIGHT, 'x': Calls(module.call, 1), 'y': module.call}, tmp_path / 'a.pth')
    assert read_file(tmp_path / 'a.pth').keys() == {'w'} and called == []


def test_only_what_is_allowed_is_called():
    """A pickle that calls a value of its own making, here a text."""
    text = pickle.SHORT_BINUNICODE + b'\x01x'
    content = pickle.PROTO + b'\x04' + text + pickle.EMPTY_TUPLE + pickle.REDUCE + pickle.STOP
    with pytest.raises(UnsafeContent, match='^x$'):
        InertUnpickler(io.BytesIO(content)).load()


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        (b'', 'it is empty'),
        (b'\0' * 90, 'it begins with zeros'),
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:00\n', 'it is a pointer of Git LFS'),
        (b'\n<!DOCTYPE html><html></html>', 'it is a page of a web site'),
        (b'{"a": 1}', 'it is a JSON file'),
        (b'\x1f\x8b\x08\x00' + b'1' * 9, 'it is packed with gzip'),
        (b'hello', 'torch did not write it, or a part of it is missing'),
        (b'\x80', 'torch did not write it, or a part of it is missing'),
    ],
)
def test_other_files_are_told_from_checkpoints(tmp_path, content, reason):
    (tmp_path / 'a.pth').write_bytes(content)
    with pytest.raises(ValueError, match=rf'a.pth cannot be read as a checkpoint \({reason}.*\); download or write'):
        read_file(tmp_path / 'a.pth')


def test_the_weights_of_a_script_are_read_and_nothing_is_run(tmp_path, monkeypatch):
    """As OpenAI publishes CLIP: half precision, submodules with numbers as names, buffers and plain attributes."""
    inner = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    whole = torch.nn.ModuleDict({'inner': inner}).half()
    whole.scale = torch.nn.Parameter(torch.tensor(2.5))
    whole.register_buffer('input_resolution', torch.tensor(224))
    traced = torch.jit.trace(Holder(whole), torch.ones(4, 2).half())
    traced.save(str(tmp_path / 'a.pt'))
    for run in ('load', 'script', 'trace'):
        monkeypatch.setattr(torch.jit, run, lambda *_, **__: pytest.fail('the program was loaded'))
    state, meta = read_checkpoint(tmp_path / 'a.pt')
    expected = {f'whole.{key}': value for key, value in whole.state_dict().items()}
    assert state.keys() == expected.keys() and meta == {}
    for key, value in expected.items():
        assert state[key].dtype == value.dtype and torch.equal(state[key], value), key


class Holder(torch.nn.Module):
    def __init__(self, whole):
        super().__init__()
        self.whole = whole

    def forward(self, x):
        return self.whole.inner(x) * self.whole.scale + self.whole.input_resolution


def test_a_script_that_cannot_be_read_safely_is_refused(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / 'a.pt'))
    with zipfile.ZipFile(tmp_path / 'a.pt') as source, zipfile.ZipFile(tmp_path / 'b.pt', 'w') as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith('/data.pkl'):
                content = b'cos\nsystem\n(S"touch ran"\ntR.'
            if not name.endswith('/data/0'):
                target.writestr(name, content)
    with pytest.raises(ValueError, match='b.pt holds more than tensors .*system.*get its weights as safetensors'):
        read_file(tmp_path / 'b.pt')
    with zipfile.ZipFile(tmp_path / 'a.pt') as source, zipfile.ZipFile(tmp_path / 'c.pt', 'w') as target:
        for name in source.namelist():
            if not name.endswith('/data/0'):
                target.writestr(name, source.read(name))
    with pytest.raises(ValueError, match='is a TorchScript program .*safetensors of the same model') as error:
        read_file(tmp_path / 'c.pt')
    assert 'weights_only' not in str(error.value)


def test_a_file_is_read_as_what_it_is(tmp_path):
    from safetensors.torch import save_file

    save_file({'w': WEIGHT}, tmp_path / 'a.pth')
    assert torch.equal(read_checkpoint(tmp_path / 'a.pth')[0]['w'], WEIGHT)
    torch.save({'w': WEIGHT}, tmp_path / 'a.safetensors')
    with pytest.raises(ValueError, match=r'a.safetensors is a zip archive, .* and no safetensors file; name it .pth'):
        read_checkpoint(tmp_path / 'a.safetensors')
