"""Bad inputs: checkpoints to convert, what lies beside them, and where the output goes."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from florence_mm.models.backbones import CoSwin
from florence_mm.models.checkpoints import convert_file, read_checkpoint
from florence_mm.models.checkpoints.exporting import export_state_dict

from .case import BadInput

AREA = 'conversion of checkpoints'
State = dict[str, torch.Tensor]


def _ours() -> State:
    torch.manual_seed(0)
    arch = {'embed_dims': 8, 'depths': [1, 1, 1], 'num_heads': [1, 2, 4]}
    return CoSwin(arch, img_size=64, patch_size=4, window_size=4, conv_embed=False).state_dict()


def _written_as(name: str) -> State:
    ours = {key: value for key, value in _ours().items() if not key.endswith('relative_position_index')}
    return export_state_dict(ours, name, settings={'pad_small_map': False}).tensors


def _convert(
    save: Callable[[State], Any], out: str = 'o.safetensors', name: str = 'timm Swin', **options: Any
) -> Callable[[Path], Any]:
    """Convert what is saved of a small Swin; returns the kinds of numbers, and whether our weights come back."""

    def run(folder: Path) -> Any:
        source = save(_written_as(name)) or 's.pth'
        report = convert_file(source, out, **options)
        found, ours = read_checkpoint(report.files[0])[0], _ours()
        kinds = sorted({str(value.dtype).removeprefix('torch.') for value in found.values()})
        same = found.keys() <= ours.keys()
        same = same and all(torch.equal(value, ours[key].to(value.dtype)) for key, value in found.items())
        return ' '.join(kinds), same

    return run


def _saved(change: Callable[[State], Any]) -> Callable[[State], Any]:
    return lambda state: torch.save(change(state), 's.pth')


def _as(kind: torch.dtype) -> Callable[[State], Any]:
    return _saved(lambda state: {key: value.to(kind) for key, value in state.items()})


def _before(prefix: str) -> Callable[[State], Any]:
    return _saved(lambda state: {prefix + key: value for key, value in state.items()})


def _with(**more: Any) -> Callable[[State], Any]:
    return _saved(lambda state: {'state_dict': state, **more})


def _shared(state: State) -> State:
    """One tensor that is a part of a large memory."""
    norms = [key for key in state if key.endswith('norm1.weight')]
    large = torch.zeros(10_000)
    large[:8] = state[norms[0]]
    return state | {norms[0]: large[:8]}


def _huggingface(config: str) -> Callable[[State], str]:
    def save(state: State) -> str:
        Path('folder').mkdir()
        save_file({key: value.contiguous() for key, value in state.items()}, 'folder/model.safetensors')
        Path('folder/config.json').write_text(config)
        return 'folder'

    return save


def _beside(name: str, content: str) -> Callable[[State], Any]:
    """Put a file where the output goes."""

    def save(state: State) -> None:
        torch.save(_ours(), 's.pth')
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(content)

    return save


def _closed(folder: Path) -> Any:
    """Write into a folder, as a user who may not."""
    torch.save(_written_as('timm Swin'), 's.pth')
    folder.chmod(0o755)
    Path('closed').mkdir(0o500)
    user = os.geteuid()
    os.seteuid(user or 65534)
    try:
        return convert_file('s.pth', 'closed/o.safetensors')
    finally:
        os.seteuid(user)


def cases() -> list[BadInput]:
    """The inputs."""
    averages = {key: value * 2 for key, value in _written_as('timm Swin').items()}
    swin, whole = json.dumps({'model_type': 'swin'}), ('float32', True)
    ours, in_folder = {'name': 'Hugging Face Swin'}, {'out': 'o', 'to': 'hugging-face-swin'}
    other = _beside('o/config.json', json.dumps({'model_type': 'bert'}))
    return [
        BadInput('fp16', _convert(_as(torch.float16)), gives=('float16', True)),
        BadInput('bf16', _convert(_as(torch.bfloat16)), gives=('bfloat16', True)),
        BadInput('fp16 to fp32', _convert(_as(torch.float16), dtype='float32'), gives=('float32', False)),
        BadInput('to a type that is none', _convert(_with(), dtype='int8'), says="dtype is 'int8'; give one of"),
        BadInput('values too large for fp16', _convert(_saved(_large), dtype='float16'), says='norm.weight'),
        BadInput('a tensor in a large memory', _convert(_saved(_shared)), gives=whole),
        BadInput('weights of DataParallel', _convert(_before('module.')), gives=whole),
        BadInput('weights of a compiled module', _convert(_before('_orig_mod.')), gives=whole),
        BadInput('weights of both', _convert(_before('module._orig_mod.')), gives=whole),
        BadInput('weights of data parallel, compiled', _convert(_before('_orig_mod.module.')), gives=whole),
        BadInput('averages beside the weights', _convert(_with(state_dict_ema=averages)), gives=whole),
        BadInput('weights under two names', _convert(_with(model=averages)), gives=whole),
        BadInput('an optimizer beside them', _convert(_with(optimizer={'state': {0: {}}}, epoch=3)), gives=whole),
        BadInput('a config.json that is right', _convert(_huggingface(swin), **ours), gives=whole),
        BadInput('a config.json of another model', _convert(_huggingface('{"model_type": "x"}'), **ours), gives=whole),
        BadInput('a config.json that is cut off', _convert(_huggingface(swin[:9]), **ours), says='is not JSON'),
        BadInput('a folder with another config', _convert(other, **in_folder), says='the config of something else'),
        BadInput('a folder with a list as config', _convert(_beside('o/config.json', '[]'), **in_folder), says='else'),
        BadInput('a target below a file', _convert(_with(), out='s.pth/o.safetensors'), says='s.pth'),
        BadInput('a target in a folder of others', _closed, says='closed/o.safetensors: Permission denied'),
        BadInput('a target without a name', _convert(_with(), out=''), says='must end in .safetensors'),
        BadInput('a target that is a device', _convert(_with(), out='/dev/null'), says='/dev/null must end in'),
    ]


def _large(state: State) -> State:
    return state | {'norm.weight': state['norm.weight'] * 1e10}
