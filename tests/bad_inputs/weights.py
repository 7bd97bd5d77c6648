"""Bad inputs: checkpoint files, in everything that reads weights."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save, save_file

from florence_mm.apis.model_weights import load_whole_model
from florence_mm.engine.checkpointing import read_run_checkpoint
from florence_mm.engine.run_weights import fit_run_weights
from florence_mm.models.algorithms import UniCL
from florence_mm.models.checkpoints import PretrainedInit, load_checkpoint, read_checkpoint

from .case import BadInput, command
from .weight_files import KEY, READABLE, SHAPE, UNREADABLE, changed, one, state, torch_bytes, towers

AREA = 'checkpoints'


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
#: All read files by one function; these are called with each file, and publish_model.py with what concerns weights.
FILES = ('load_from', 'convert_checkpoint.py')


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
    "torchvision's Swin for clips": (
        'features.0.0.attn.relative_position_bias_table',
        'features.2.0.attn.relative_position_bias_table',
        'patch_embed.proj.weight',
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


def _convert_to(layout: str, target: str = 'out.pth') -> Callable[[str], list[str]]:
    """Read a file and write it in a public layout; the first parts of its keys."""

    def run(path: str) -> list[str]:
        command('tools/model_converters/convert_checkpoint.py', path, target, '--to', layout)
        return sorted({key.split('.')[0] for key in read_checkpoint(target)[0]})

    return run


def _indexed(places: dict[str, str] | str, *shards: dict[str, torch.Tensor]) -> Callable[[Path], Any]:
    """A model in several files, 0.safetensors and on, and the index of them."""

    def run(folder: Path) -> Any:
        for number, shard in enumerate(shards):
            save_file(shard, f'{number}.safetensors')
        text = places if isinstance(places, str) else json.dumps({'weight_map': places})
        Path('model.safetensors.index.json').write_text(text, encoding='utf-8')
        return _convert('model.safetensors.index.json')

    return run


def _several() -> list[BadInput]:
    """Models in several files."""
    keys = list(state())
    shards = [{key: state()[key] for key in part} for part in (keys[:9], keys[9:])]
    places = {key: f'{number}.safetensors' for number, shard in enumerate(shards) for key in shard}
    other = dict.fromkeys(keys, '0.safetensors')
    words = 'convert_checkpoint.py: an index'
    return [
        BadInput(f'{words} of two files', _indexed(places, *shards), gives=_value(state())),
        BadInput(f'{words} of a missing file', _indexed(places, shards[0]), ('1.safetensors', 'does not exist')),
        BadInput(f'{words} that places tensors in another file', _indexed(other, *shards), 'disagree on'),
        BadInput(f'{words} that leaves a tensor out', _indexed(dict(list(places.items())[1:]), *shards), 'disagree on'),
        BadInput(f'{words} of files elsewhere', _indexed({keys[0]: '../0.safetensors'}, *shards), '../0.safetensors'),
        BadInput(f'{words} that names the folder', _indexed({keys[0]: '.'}, *shards), 'no file beside it'),
        BadInput(f'{words} with a number for a file', _indexed('{"weight_map": {"a": 1}}'), 'no weight_map'),
        BadInput(f'{words} of nothing', _indexed('{"weight_map": {}}'), 'no weight_map'),
        BadInput(f'{words} that is cut off', _indexed('{"weight_map": {"a'), 'no weight_map'),
    ]


def _layouts() -> list[BadInput]:
    """Layouts of the target that are unknown, or cannot hold the model."""
    rows = {
        'a layout that does not exist': ('zebra', 'out.pth', "named 'zebra'"),
        'a layout that is misspelt': ('unicll', 'out.pth', "did you mean 'UniCL'?"),
        'a layout of no letters': ('?', 'out.pth', "'?'"),
        'a layout that holds other models': ('dyhead', 'out.pth', ('w.pth', "'DyHead'", '--prefix image_encoder')),
        'convolutions where the layout has none': ('unicl', 'out.pth', ("CoSwin's convolutions", 'UniCL lacks')),
        'a folder for a package that reads files': ('unicl', 'out', ('out', 'must end in')),
        'a target of an unknown kind': ('clip', 'out.onnx', ('out.onnx', 'must end in')),
    }
    found = [
        BadInput(f'convert_checkpoint.py: {words}', _saved(state, _convert_to(layout, target)), says)
        for words, (layout, target, says) in rows.items()
    ]
    less = {key: value for key, value in state().items() if 'token_embedding' not in key}
    words = 'convert_checkpoint.py: a text tower without words'
    found.append(BadInput(words, _saved(lambda: less, _convert_to('clip')), ('it lacks', 'token_embedding')))
    return found


def _parts(prefix: str) -> Callable[[Path], Any]:
    """The keys that a prefix leaves, by their first parts."""

    def run(folder: Path) -> Any:
        save_file(state(), 'w.safetensors')
        command('tools/model_converters/convert_checkpoint.py', 'w.safetensors', 'o.safetensors', '--prefix', prefix)
        return sorted({key.split('.')[0] for key in read_checkpoint('o.safetensors')[0]})

    return run


def _not_whole() -> list[BadInput]:
    """Files that hold no weights, or a part of a model, and beginnings of keys that are no part."""
    rows = []
    for tool in ('convert_checkpoint.py', 'publish_model.py'):
        read = READERS[tool]
        for words, change in (('integers', torch.Tensor.long), ('tensors without elements', lambda v: v.flatten()[:0])):
            content = {key: change(value) for key, value in state().items()}
            rows.append(BadInput(f'{tool}: nothing but {words}', _saved(lambda c=content: c, read), 'no weights'))
        name = 'model-00001-of-00002.safetensors'
        rows.append(BadInput(f'{tool}: one of two files', _file(name, lambda: save(_half()), read), ('file 1', '2')))
        name = 'model-00001-of-00001.safetensors'
        rows.append(BadInput(f'{tool}: the only file', _file(name, lambda: save(state()), read), gives=_value(state())))
        content = {**state(), '__metadata__': torch.ones(1)}
        rows.append(BadInput(f'{tool}: a tensor named __metadata__', _saved(lambda c=content: c, read), '__metadata__'))
    for prefix in ('image_encoder', 'image_encoder.'):
        rows.append(
            BadInput(
                f'convert_checkpoint.py: the prefix {prefix}',
                _parts(prefix),
                gives=sorted({key.split('.')[1] for key in state() if key.startswith('image_encoder.')}),
            )
        )
    words = 'convert_checkpoint.py: half a word as prefix'
    rows.append(BadInput(words, _parts('image_enc'), ("'image_enc.'", 'begin')))
    return rows


def _takes(reader: str, words: str) -> bool:
    return reader in FILES or (reader == 'publish_model.py' and ('weight' in words or 'tensor' in words))


def cases() -> list[BadInput]:
    right = _value(state())
    rows = []
    for reader, read in READERS.items():
        for words, (name, content, says) in UNREADABLE.items():
            if not _takes(reader, words):
                continue
            rows.append(BadInput(f'{reader}: {words}', _file(name, content, read), says))
        for words, (name, content) in READABLE.items():
            if not _takes(reader, words):
                continue
            rows.append(BadInput(f'{reader}: {words}', _file(name, content, read), gives=right))
        for words, (content, readers, says) in INCOMPLETE.items():
            if reader in readers:
                rows.append(BadInput(f'{reader}: {words}', _saved(content, read), says))
        for kind in ('a missing file', 'a folder', 'a broken link', 'a named pipe'):
            rows.append(BadInput(f'{reader}: {kind}', _place(kind, read), ('w.pth', 'does not exist')))
        rows.append(
            BadInput(
                f'{reader}: an unknown scheme',
                _place('an unknown scheme', read),
                ('nowhere://w.pth', 'none of the schemes'),
            )
        )
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
        *_not_whole(),
        *_several(),
        *_layouts(),
        BadInput('publish_model.py: the target is the source', _published_onto_its_source, gives=True),
        BadInput(
            'publish_model.py: class names in the metadata', _class_names_published, gives={'classes': ['cat', 'dog']}
        ),
        BadInput('convert_checkpoint.py: a umask that hides files from others', _rights, gives='0o640'),
    ]
    return rows
