"""Contents of checkpoint files that are tried on everything that reads weights."""

import argparse
import collections
import io
import json
import struct
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from florence_mm.models.algorithms import UniCL
from florence_mm.models.backbones import CoSwin
from florence_mm.models.checkpoints import write_safetensors
from florence_mm.models.text import CLIPTextTower

NAN, INFINITE = float('nan'), float('inf')
KEY = 'text_encoder.resblocks.0.mlp.c_fc.weight'


def towers(seed: int = 0) -> UniCL:
    """UniCL with two small towers."""
    torch.manual_seed(seed)
    image = CoSwin({'embed_dims': 8, 'depths': [2, 1], 'num_heads': [1, 2]}, img_size=32, window_size=4)
    text = CLIPTextTower({'embed_dims': 8, 'num_layers': 2, 'num_heads': 2}, vocab_size=20, context_length=6)
    return UniCL(image, text, tokenizer=lambda texts: None, embed_dims=4)


def state() -> dict[str, torch.Tensor]:
    """Its weights."""
    return towers().state_dict()


def torch_bytes(content: Any, **kwargs: Any) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer, **kwargs)
    return buffer.getvalue()


def changed(**values: Any) -> dict[str, Any]:
    """The weights with one of them replaced, and more entries."""
    return {**state(), KEY: values.pop('weight', state()[KEY]), **values}


def zipped(names: dict[str, bytes]) -> bytes:
    """A zip archive of other files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:
        for name, content in names.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def turned(data: bytes, weight: torch.Tensor) -> bytes:
    """One bit of a tensor turned round."""
    at = data.index(weight.numpy().tobytes()) + 7
    return data[:at] + bytes([data[at] ^ 64]) + data[at + 1 :]


def header(text: bytes, data: bytes = b'') -> bytes:
    """A safetensors file of this header."""
    return struct.pack('<Q', len(text)) + text + data


def checked_safetensors() -> bytes:
    """A safetensors file as florence_mm writes it."""
    path = write_safetensors('whole.safetensors', state())
    content = path.read_bytes()
    path.unlink()
    return content


class Library:
    """An object that asks for a harmless function of Python's library when it is unpickled."""

    def __reduce__(self) -> tuple:
        return divmod, (7, 2)


class Program:
    """Asks for a program when it is unpickled."""

    def __reduce__(self) -> tuple:
        return subprocess.Popen, ('true',)


def one(shape: tuple[int, ...], value: float = 1.0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.full(shape, value, dtype=dtype)


SHAPE = (32, 8)
SPARSE = one(SHAPE).to_sparse()
#: Files that nothing reads: name and content, and what the sentence says.
UNREADABLE: dict[str, tuple[str, Callable[[], bytes], str | tuple[str, ...]]] = {
    'nothing in it': ('w.pth', lambda: b'', 'it is empty'),
    'one byte': ('w.pth', lambda: b'\x80', 'torch did not write it'),
    'zeros': ('w.pth', lambda: bytes(4096), 'begins with zeros'),
    'plain text': ('w.pth', lambda: b'weights follow\n', 'torch did not write it'),
    'a web page': ('w.pth', lambda: b'<html><body>404</body></html>', 'page of a web site'),
    'a pointer of Git LFS': ('w.pth', lambda: b'version https://git-lfs.github.com/spec/v1\n', 'git lfs pull'),
    'JSON': ('w.pth', lambda: b'{"weight": [1, 2]}', 'JSON'),
    'a gzip archive': ('w.pth', lambda: b'\x1f\x8b\x08\x00' + bytes(30), 'gzip'),
    'an empty zip archive': ('w.pth', lambda: zipped({}), 'zip archive'),
    'a zip archive of a text': ('w.pth', lambda: zipped({'a.txt': b'a'}), 'zip archive of other files'),
    'the first half of a file': ('w.pth', lambda: torch_bytes(state())[:5000], 'part of it is missing'),
    'a file without its last byte': ('w.pth', lambda: torch_bytes(state())[:-1], ('w.pth', 'download')),
    'random bytes': ('w.pth', lambda: np.random.default_rng(0).bytes(999), 'torch did not write it'),
    'a bit turned round in a tensor': ('w.pth', lambda: turned(torch_bytes(state()), state()[KEY]), 'is damaged'),
    'the first half of an old file': (
        'w.pth',
        lambda: torch_bytes(state(), _use_new_zipfile_serialization=False)[:3000],
        'part of it is missing',
    ),
    'an object that asks for a function': ('w.pth', lambda: torch_bytes({'a': Library()}), ('builtins.divmod', 'code')),
    'weights and such an object': ('w.pth', lambda: torch_bytes(changed(meta=Library())), 'builtins.divmod'),
    'such an object in an old file': (
        'w.pth',
        lambda: torch_bytes(changed(meta=Library()), _use_new_zipfile_serialization=False),
        'builtins.divmod',
    ),
    'an object that starts a program, by the name of Python 2': (
        'w.pth',
        lambda: torch_bytes(changed(meta=Program())),
        'subprocess.Popen',
    ),
    'a nested tensor': (
        'w.pth',
        lambda: torch_bytes(changed(weight=torch.nested.nested_tensor([one((2,)), one((3,))], layout=torch.strided))),
        (KEY, 'nested'),
    ),
    'a whole module': ('w.pth', lambda: torch_bytes(towers().text_encoder), 'state_dict()'),
    'a module under model': ('w.pth', lambda: torch_bytes({'model': towers().image_encoder}), 'state_dict()'),
    'a list': ('w.pth', lambda: torch_bytes([1, 2]), 'holds a list'),
    'None': ('w.pth', lambda: torch_bytes(None), 'not a checkpoint'),
    'a number': ('w.pth', lambda: torch_bytes(3.5), 'holds a float'),
    'a tensor': ('w.pth', lambda: torch_bytes(torch.ones(2)), 'holds a Tensor'),
    'an empty dict': ('w.pth', lambda: torch_bytes({}), 'it is empty'),
    'an empty state_dict': ('w.pth', lambda: torch_bytes({'state_dict': {}}), 'no tensors by name'),
    'state_dict None': ('w.pth', lambda: torch_bytes({'state_dict': None}), 'state_dict is None'),
    'state_dict a list': ('w.pth', lambda: torch_bytes({'state_dict': [torch.ones(1)]}), 'of type list'),
    'state_dict a text': ('w.pth', lambda: torch_bytes({'state_dict': 'weights'}), 'of type str'),
    'only an epoch': ('w.pth', lambda: torch_bytes({'epoch': 3}), 'no tensors by name'),
    'keys that are numbers': ('w.pth', lambda: torch_bytes(dict(enumerate(state().values()))), ('key 0', 'int')),
    'one key that is a number': ('w.pth', lambda: torch_bytes({**state(), 7: torch.ones(1)}), ('key 7', 'int')),
    'a key that is None': ('w.pth', lambda: torch_bytes({**state(), None: torch.ones(1)}), ('None', 'NoneType')),
    'a key that is no text of Unicode': ('w.pth', lambda: torch_bytes({**state(), '\udc80': torch.ones(1)}), 'udc80'),
    'keys that are tuples': ('w.pth', lambda: torch_bytes({('a', 1): torch.ones(1)}), 'tuple'),
    'numpy arrays': ('w.pth', lambda: torch_bytes({k: v.numpy() for k, v in state().items()}), 'numpy arrays'),
    'lists of numbers': ('w.pth', lambda: torch_bytes({'a': [1.0, 2.0]}), 'no tensors by name'),
    'a sparse weight': ('w.pth', lambda: torch_bytes(changed(weight=SPARSE)), (KEY, 'sparse')),
    'a weight without values': (
        'w.pth',
        lambda: torch_bytes(changed(weight=torch.empty(SHAPE, device='meta'))),
        (KEY, 'no values'),
    ),
    'a quantised weight': (
        'w.pth',
        lambda: torch_bytes(changed(weight=torch.quantize_per_tensor(one(SHAPE), 1.0, 0, torch.qint8))),
        (KEY, 'quantised'),
    ),
    'NaN in a weight': ('w.pth', lambda: torch_bytes(changed(weight=one(SHAPE, NAN))), (KEY, 'NaN')),
    'an infinite weight': ('w.pth', lambda: torch_bytes(changed(weight=one(SHAPE, INFINITE))), (KEY, 'infinite')),
    'a negative infinite weight': ('w.pth', lambda: torch_bytes(changed(weight=one(SHAPE, -INFINITE))), 'infinite'),
    'NaN in half precision': (
        'w.pth',
        lambda: torch_bytes(changed(weight=one(SHAPE, NAN, torch.float16))),
        (KEY, 'NaN'),
    ),
    'safetensors of zero bytes': ('w.safetensors', lambda: b'', 'not a complete safetensors file'),
    'half of a safetensors file': ('w.safetensors', lambda: save(state())[:900], 'not a complete safetensors file'),
    'safetensors and a further byte': ('w.safetensors', lambda: save(state()) + b'\0', 'not a complete safetensors'),
    'a header longer than the file': ('w.safetensors', lambda: b'\xff' * 8 + b'{}', 'not a complete safetensors'),
    'a header that is no JSON': ('w.safetensors', lambda: header(b'{x}'), 'not a complete safetensors'),
    'a header with a type that does not exist': (
        'w.safetensors',
        lambda: header(json.dumps({'a': {'dtype': 'F33', 'shape': [1], 'data_offsets': [0, 4]}}).encode(), bytes(4)),
        'not a complete safetensors',
    ),
    'offsets beyond the file': (
        'w.safetensors',
        lambda: header(json.dumps({'a': {'dtype': 'F32', 'shape': [9], 'data_offsets': [0, 36]}}).encode(), bytes(4)),
        'not a complete safetensors',
    ),
    'safetensors without tensors': ('w.safetensors', lambda: save({}), 'no tensors by name'),
    'a torch file named .safetensors': ('w.safetensors', lambda: torch_bytes(state()), 'name it .pth'),
    'a bit turned round in our safetensors': (
        'w.safetensors',
        lambda: turned(checked_safetensors(), state()[KEY]),
        'is damaged',
    ),
    'NaN in safetensors': ('w.safetensors', lambda: save(changed(weight=one(SHAPE, NAN))), (KEY, 'NaN')),
}
#: Files whose weights are those of ``state()``, with things beside them.
READABLE: dict[str, tuple[str, Callable[[], bytes]]] = {
    'the weights under model': ('w.pth', lambda: torch_bytes({'model': state(), 'epoch': 3})),
    'the weights under state_dict, with arguments': (
        'w.pth',
        lambda: torch_bytes({'state_dict': state(), 'args': argparse.Namespace(out=Path('x'), rate=np.float64(1))}),
    ),
    'module. before all keys': ('w.pth', lambda: torch_bytes({f'module.{k}': v for k, v in state().items()})),
    'an ordered dict of an old torch': (
        'w.pth',
        lambda: torch_bytes({'model': collections.OrderedDict(state())}, _use_new_zipfile_serialization=False),
    ),
    'arguments in an old file': (
        'w.pth',
        lambda: torch_bytes(
            {'model': state(), 'config': argparse.Namespace(a=1)}, _use_new_zipfile_serialization=False
        ),
    ),
    'pickle protocol 4': ('w.pth', lambda: torch_bytes({'model': state()}, pickle_protocol=4)),
    'safetensors named .pth': ('w.pth', lambda: save(state())),
    'safetensors of others': ('w.safetensors', lambda: save(state())),
    'parameters instead of tensors': ('w.pth', lambda: torch_bytes(dict(towers().named_parameters()))),
    'numbers and texts beside the tensors': ('w.pth', lambda: torch_bytes(changed(epoch=3, note='x', none=None))),
    'a counter of batches': ('w.pth', lambda: torch_bytes(changed(num_batches_tracked=torch.tensor(3)))),
    'a bias table of other windows, for nothing': (
        'w.pth',
        lambda: torch_bytes(changed(attn_mask=one((3, 3), -INFINITE))),
    ),
}
