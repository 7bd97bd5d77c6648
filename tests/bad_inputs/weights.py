"""Bad inputs: checkpoint files, in everything that reads weights."""

import argparse
import collections
import io
import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save, save_file

from florence_mm.apis.model_weights import load_whole_model
from florence_mm.engine.checkpointing import read_run_checkpoint
from florence_mm.engine.run_weights import fit_run_weights
from florence_mm.models.algorithms import UniCL
from florence_mm.models.backbones import CoSwin
from florence_mm.models.checkpoints import PretrainedInit, load_checkpoint, read_checkpoint, write_safetensors
from florence_mm.models.text import CLIPTextTower

from .case import BadInput, command

AREA = 'checkpoints'
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


def _fit(path: str, whole: bool) -> float:
    model = towers(1)
    weights = fit_run_weights(model, read_run_checkpoint(path)['state_dict'], path, whole)
    model.load_state_dict(weights, strict=False)
    return _value(model.state_dict())


def _load(load: Callable[[UniCL, str], Any]) -> Callable[[str], float]:
    def run(path: str) -> float:
        model = towers(1)
        load(model, path)
        return _value(model.state_dict())

    return run


def _value(weights: dict[str, torch.Tensor]) -> float:
    weight = next(value for key, value in weights.items() if key.endswith(KEY))
    return round(weight.double().sum().item(), 4)


def _convert(path: str) -> float:
    command('tools/model_converters/convert_checkpoint.py', path, 'out.safetensors')
    return _value(read_checkpoint('out.safetensors')[0])


def _publish(path: str) -> float:
    command('tools/model_converters/publish_model.py', path, 'out.safetensors')
    (published,) = Path().glob('out-*.safetensors')
    return _value(read_checkpoint(published)[0])


#: What reads weights, by how a user calls it.
READERS: dict[str, Callable[[str], float]] = {
    'load_checkpoint': _load(load_checkpoint),
    'init_cfg': _load(lambda model, path: PretrainedInit(path)(model)),
    'load_from': lambda path: _fit(path, whole=False),
    'test.py': lambda path: _fit(path, whole=True),
    'an inferencer': _load(load_whole_model),
    'convert_checkpoint.py': _convert,
    'publish_model.py': _publish,
}
PARTIAL = ('load_checkpoint', 'init_cfg', 'load_from')
WHOLE = ('test.py', 'an inferencer')
MODELS = PARTIAL + WHOLE
#: All read files by one function, of which these are called with each file.
FILES = ('load_from', 'convert_checkpoint.py', 'publish_model.py')


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


def _less(*beginnings: str) -> dict[str, torch.Tensor]:
    return {key: value for key, value in state().items() if not key.startswith(beginnings)}


def _half() -> dict[str, torch.Tensor]:
    return dict(list(state().items())[: len(state()) // 2 - 3])


#: Weights that are not those of the model: for everything that builds one.
INCOMPLETE: dict[str, tuple[Callable[[], dict], tuple[str, ...], str | tuple[str, ...]]] = {
    'half of the weights': (_half, MODELS, 'lacks'),
    'the image tower alone': (lambda: _less('text_', 'image_projection'), MODELS, ('w.pth', 'tensors of')),
    'the text tower alone': (lambda: _less('image_', 'text_projection'), MODELS, ('w.pth', 'tensors of')),
    'a text weight missing': (lambda: _less(KEY), WHOLE, KEY),
    'the scale of logits missing': (lambda: _less('logit_scale'), WHOLE, 'logit_scale'),
    'a weight of another shape': (lambda: changed(weight=one((8, 32))), WHOLE, KEY),
    'a weight of more axes': (lambda: changed(weight=one((32, 8, 1))), WHOLE, KEY),
    'a weight of no axes': (lambda: changed(weight=torch.tensor(1.0)), WHOLE, KEY),
    'two tensors': (lambda: dict(list(state().items())[:2]), MODELS, 'lacks'),
    'integers': (lambda: {key: value.long() for key, value in state().items()}, MODELS, 'int64'),
    'one weight of integers': (lambda: changed(weight=one(SHAPE, 1, torch.int32)), MODELS, 'int32'),
    'one weight of truth values': (lambda: changed(weight=one(SHAPE, 1, torch.bool)), MODELS, 'bool'),
    'one complex weight': (lambda: changed(weight=one(SHAPE, 1, torch.complex64)), MODELS, 'complex64'),
    'the weights of another model': (lambda: {'conv1.weight': one((4, 3, 7, 7))}, MODELS, 'conv1'),
}
#: Formats that are none of the known ones.
UNKNOWN = {
    'a vision transformer': ('cls_token', 'blocks.0.attn.qkv.weight', 'patch_embed.proj.weight'),
    'a ResNet': ('conv1.weight', 'layer1.0.conv1.weight'),
    'Swin V2': (
        'layers.0.blocks.0.attn.cpb_mlp.0.weight',
        'layers.0.blocks.0.attn.logit_scale',
        'patch_embed.proj.weight',
    ),
    "timm's Swin V2": ('layers.1.downsample.norm.weight', 'layers.0.blocks.0.attn.cpb_mlp.0.weight'),
    "torchvision's Swin V2": (
        'features.1.0.attn.relative_position_bias_table',
        'features.1.0.attn.cpb_mlp.0.weight',
    ),
    "transformers' vision transformer": ('embeddings.cls_token', 'encoder.layer.0.attention.attention.query.weight'),
    'SigLIP': ('logit_bias', 'text.transformer.resblocks.0.attn.in_proj_weight', 'text.token_embedding.weight'),
    'GLIP': ('rpn.head.dyhead_tower.0.offset.weight', 'backbone.body.layers.0.weight'),
    'a language model': ('model.layers.0.self_attn.q_proj.weight', 'lm_head.weight'),
    'keys without points': ('a', 'b'),
    'an empty key': ('',),
}


def _file(name: str, content: Callable[[], bytes], read: Callable[[str], Any]) -> Callable[[Path], Any]:
    def run(folder: Path) -> Any:
        Path(name).write_bytes(content())
        return read(name)

    return run


def _saved(content: Callable[[], Any], read: Callable[[str], Any]) -> Callable[[Path], Any]:
    return _file('w.pth', lambda: torch_bytes(content()), read)


def _place(kind: str, read: Callable[[str], Any]) -> Callable[[Path], Any]:
    """A path that is no file."""

    def run(folder: Path) -> Any:
        if kind == 'a folder':
            Path('w.pth').mkdir()
        elif kind == 'a broken link':
            Path('w.pth').symlink_to('missing')
        elif kind == 'a named pipe':
            os.mkfifo('w.pth')
        return read({'an unknown scheme': 'nowhere://w.pth', 'a NUL in the path': 'w\0.pth'}.get(kind, 'w.pth'))

    return run


def _convert_onto(target: Callable[[Path], str]) -> Callable[[Path], Any]:
    def run(folder: Path) -> Any:
        save_file(state(), 'w.safetensors')
        path = target(folder)
        before = Path('w.safetensors').read_bytes()
        try:
            return command('tools/model_converters/convert_checkpoint.py', 'w.safetensors', path)
        finally:
            if Path('w.safetensors').read_bytes() != before:
                raise AssertionError('the source was changed')

    return run


def _linked(folder: Path) -> str:
    Path('other.safetensors').symlink_to('w.safetensors')
    return 'other.safetensors'


def _published_onto_its_source(folder: Path) -> bool:
    save_file(state(), 'w.safetensors')
    before = Path('w.safetensors').read_bytes()
    command('tools/model_converters/publish_model.py', 'w.safetensors', 'w.safetensors')
    return Path('w.safetensors').read_bytes() == before and len(list(folder.glob('*.safetensors'))) == 2


def _class_names_published(folder: Path) -> Any:
    torch.save({'state_dict': state(), 'meta': {'dataset_meta': {'classes': ('cat', 'dog')}, 'epoch': 3}}, 'w.pth')
    command('tools/model_converters/publish_model.py', 'w.pth', 'out.safetensors')
    return read_checkpoint(next(folder.glob('out-*')))[1]['dataset_meta']


def _rights(folder: Path) -> str:
    os.umask(0o027)
    _saved(state, _convert)(folder)
    return oct(Path('out.safetensors').stat().st_mode & 0o777)


def cases() -> list[BadInput]:
    right = _value(state())
    rows = []
    for reader, read in READERS.items():
        for words, (name, content, says) in UNREADABLE.items() if reader in FILES else ():
            rows.append(BadInput(f'{reader}: {words}', _file(name, content, read), says))
        for words, (name, content) in READABLE.items() if reader in FILES else ():
            rows.append(BadInput(f'{reader}: {words}', _file(name, content, read), gives=right))
        for words, (content, readers, says) in INCOMPLETE.items():
            if reader in readers:
                rows.append(BadInput(f'{reader}: {words}', _saved(content, read), says))
        for kind in ('a missing file', 'a folder', 'a broken link', 'a named pipe'):
            rows.append(BadInput(f'{reader}: {kind}', _place(kind, read), ('w.pth', 'does not exist')))
        rows.append(BadInput(f'{reader}: an unknown scheme', _place('an unknown scheme', read), 'nowhere://w.pth'))
    convert = READERS['convert_checkpoint.py']
    for words, keys in UNKNOWN.items():
        content = {key: torch.ones(1) for key in keys}
        rows.append(BadInput(f'convert_checkpoint.py: {words}', _saved(lambda c=content: c, convert), 'does not know'))
    tool = 'tools/model_converters/convert_checkpoint.py'
    rows += [
        BadInput('convert_checkpoint.py: the target is the source', _convert_onto(lambda _: 'w.safetensors'), 'input'),
        BadInput('convert_checkpoint.py: the same path otherwise', _convert_onto(lambda _: './w.safetensors'), 'input'),
        BadInput('convert_checkpoint.py: the target is a link to the source', _convert_onto(_linked), 'input'),
        BadInput(
            'convert_checkpoint.py: the target ends in .pth', _convert_onto(lambda _: 'o.pth'), 'end in .safetensors'
        ),
        BadInput(
            'convert_checkpoint.py: a prefix of nothing',
            _saved(state, lambda path: command(tool, path, 'out.safetensors', '--prefix', 'zzz.')),
            ('zzz.', 'image_encoder'),
        ),
        BadInput('publish_model.py: the target is the source', _published_onto_its_source, gives=True),
        BadInput(
            'publish_model.py: class names in the metadata', _class_names_published, gives={'classes': ['cat', 'dog']}
        ),
        BadInput('convert_checkpoint.py: a umask that hides files from others', _rights, gives='0o640'),
    ]
    return rows
