"""DaViT in the layouts of its public code, Florence-2, timm and transformers, to and from our names.

Sources of the layouts: DaViT ``timm/models/davit.py``, and as it is in Florence-2's ``modeling_florence2.py`` and in
MedImageInsight; timm ``models/davit.py``; transformers ``models/florence2/modeling_florence2.py``.

DaViT's first code names the roles of the channel attention otherwise: keys attend to values and queries are what is
summed. So its queries, keys and values are our values, queries and keys, and their rows change places.
"""

from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .classifiers import NOT_BACKBONE, convert_with_head, is_davit, pop_head
from .exporting import Exported, config_json, hold, register_export, require
from .renaming import Names, Skipped, Source, StateDict, add_prefix, any_key, keep_matching, register_format, rename
from .settings import Setting, read_config
from .swin_timm import move_merging

_BACKBONE = r'^(patch_embed|layers|norm\d?)(\.|$)'
_MERGING = r'^layers\.0\.downsample\.proj\.weight$'
_FLORENCE, _FIRST = 'Florence-2 DaViT', 'DaViT'
_TIMM, _HUGGING_FACE = 'timm DaViT', 'Hugging Face DaViT'
_TOWER = r'^((model\.)?vision_tower\.)?'
_WINDOWS = (7, 12)  # of released weights, of ImageNet and of Florence-2
#: Channel attention in files of the first code.
_CHANNEL_QKV = r'\.channel_block\.attn\.qkv\.(weight|bias)$'

_FLORENCE_NAMES = Names(
    ('^norms.', '^norm.'),
    ('^convs.0.', '^patch_embed.'),
    ('^convs.#.', '^layers.#.downsample.'),
    ('^blocks.#.#.', '^layers.#.blocks.#.'),
    ('.conv1.fn.dw.', '.conv1.'),
    ('.conv2.fn.dw.', '.conv2.'),
    ('.spatial_block.window_attn.norm.', '.spatial_block.norm1.'),
    ('.spatial_block.window_attn.fn.', '.spatial_block.attn.'),
    ('.channel_block.channel_attn.norm.', '.channel_block.norm1.'),
    ('.channel_block.channel_attn.fn.', '.channel_block.attn.'),
    ('.ffn.norm.', '.norm2.'),
    ('.ffn.fn.net.', '.mlp.'),
)
_HUGGING_FACE_NAMES = Names(
    ('^convs.0.conv.', '^patch_embed.proj.'),
    ('^convs.0.norm.', '^patch_embed.norm.'),
    ('^convs.#.conv.', '^layers.#.downsample.proj.'),
    ('^convs.#.norm.', '^layers.#.downsample.norm.'),
    ('^blocks.#.#.', '^layers.#.blocks.#.'),
    ('.spatial_block.window_attn.', '.spatial_block.attn.'),
    ('.channel_block.channel_attn.', '.channel_block.attn.'),
    ('.ffn.', '.mlp.'),
)
_TIMM_NAMES = Names(
    ('^head.norm.', '^norm.'),
    ('^stem.conv.', '^patch_embed.proj.'),
    ('^stem.norm.', '^patch_embed.norm.'),
    ('^stages.#.downsample.conv.', '^layers.#.downsample.proj.'),
    ('^stages.#.downsample.norm.', '^layers.#.downsample.norm.'),
    ('^stages.#.blocks.', '^layers.#.blocks.'),
    ('.cpe1.proj.', '.conv1.'),
    ('.cpe2.proj.', '.conv2.'),
)
_FIRST_NAMES = Names(
    ('^norms.', '^norm.'),
    ('^patch_embeds.0.', '^patch_embed.'),
    ('^patch_embeds.#.', '^layers.#.downsample.'),
    ('^main_blocks.#.#.0.', '^layers.#.blocks.#.spatial_block.'),
    ('^main_blocks.#.#.1.', '^layers.#.blocks.#.channel_block.'),
    ('.cpe.0.proj.', '.conv1.'),
    ('.cpe.1.proj.', '.conv2.'),
)
_NUMBERED_BLOCKS = Names(('.blocks.#.0.', '.blocks.#.spatial_block.'), ('.blocks.#.1.', '.blocks.#.channel_block.'))


# --- settings ---------------------------------------------------------------------------------------------------------


def _attribute(name: str) -> Callable[[nn.Module], Any]:
    """A function that reads an attribute of a DaViT; None of other modules."""
    return lambda module: getattr(module, name, None) if hasattr(module, 'num_groups') else None


def _scale(value: str) -> Setting:
    return Setting('channel_scale', r'(^|\.)channel_block\.attn$', _attribute('channel_scale'), (value,))


#: What transformers builds a tower from, beside its tensors.
DAVIT_SIZES = tuple(
    Setting(name, r'^[^.]*$', _attribute(name), ()) for name in ('num_heads', 'num_groups', 'window_size')
)


def _window(source: Source, usual: int) -> Setting:
    """The window that ``config.json`` tells; without it, released weights have 12 or 7, and others any."""
    told = read_config(Path(source.path).with_name('config.json')) if '://' not in str(source.path) else {}
    side = told.get('vision_config', told).get('window_size')
    known = _WINDOWS if side is None else None

    def read(module: nn.Module) -> int | None:
        window = getattr(module, 'window_size', None)
        return window if known is None or window in known else None

    return Setting('window_size', r'(^|\.)spatial_block\.attn$', read, (side or usual,))


def davit_settings(source: Source) -> Iterable[Setting]:
    """Scale and window of the attentions; and the norm of a classifier is one of pooled features."""
    first = any_key(source.keys, r'(^|\.)main_blocks\.|^stages\.\d+\.blocks\.\d+\.1\.')
    found = [_scale('channels' if first else 'tokens'), _window(source, 7 if first else 12)]
    if any_key(source.keys, r'^norms\.|^head\.norm\.'):
        found.append(Setting('out_norm', '', _lone_norm, ('pooled', 'none')))
    return found


def _lone_norm(module: Any) -> str | None:
    """``out_norm`` of a DaViT that returns the last stage alone; one of several only begins with the norm of a file."""
    stages = getattr(module, 'out_indices', ())
    return (module.out_norm or 'none') if len(stages) == 1 and hasattr(module, 'channel_scale') else None


# --- into ours --------------------------------------------------------------------------------------------------------


@register_format(
    _FLORENCE,
    lambda k: any_key(k, _TOWER + r'blocks\.\d+\.\d+\.channel_block\.channel_attn\.fn\.qkv\.'),
    priority=-1,
    settings=davit_settings,
)
def convert_florence_davit(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert the tower of Florence-2, alone or in its model."""
    return _convert_tower(state, from_florence)


@register_format(
    _HUGGING_FACE,
    lambda k: any_key(k, _TOWER + r'blocks\.\d+\.\d+\.channel_block\.channel_attn\.qkv\.'),
    priority=-1,
    settings=davit_settings,
)
def convert_hf_davit(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert a ``Florence2VisionBackbone``, alone or in its model."""
    return _convert_tower(state, from_hugging_face)


@register_format(_TIMM, lambda k: any_key(k, r'^stages\.\d+\.blocks\.\d+\.\w+\.cpe1\.proj\.'), settings=davit_settings)
def convert_timm_davit(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert timm's DaViT, of ImageNet or Florence-2, with the head of a classifier."""
    return convert_with_head(state, _convert_timm, 'head.fc.')


@register_format(_FIRST, lambda k: any_key(k, r'^main_blocks\.\d+\.\d+\.1\.attn\.qkv\.'), settings=davit_settings)
def convert_first_davit(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert DaViT's first code, with the head of a classifier."""
    return convert_with_head(state, _convert_first, 'head.')


def from_florence(state: StateDict) -> StateDict:
    """Rename the tensors of Florence-2's tower, whose keys have no prefix, to ours."""
    return move_merging(_FLORENCE_NAMES.to_ours(state), -1)


def to_florence(state: StateDict) -> StateDict:
    """Give our tensors the names of Florence-2's tower; the inverse of :func:`from_florence`."""
    return _FLORENCE_NAMES.to_theirs(move_merging(state, 1))


def from_hugging_face(state: StateDict) -> StateDict:
    """Rename the tensors of a ``Florence2VisionBackbone`` to ours."""
    return move_merging(_HUGGING_FACE_NAMES.to_ours(state), -1)


def to_hugging_face(state: StateDict) -> StateDict:
    """Give our tensors the names of a ``Florence2VisionBackbone``; the inverse of :func:`from_hugging_face`."""
    return _HUGGING_FACE_NAMES.to_theirs(move_merging(state, 1))


def _convert_tower(state: StateDict, convert: Callable[[StateDict], StateDict]) -> tuple[StateDict, Skipped]:
    kept, skipped = keep_matching(state, _TOWER + r'(convs|blocks|norms|head)\.', NOT_BACKBONE)
    kept = rename(kept, [(_TOWER, '')])
    ours, more = convert_with_head(kept, lambda s: keep_matching(convert(s), _BACKBONE, NOT_BACKBONE), 'head.')
    return ours, skipped | more


def _convert_timm(state: StateDict) -> tuple[StateDict, Skipped]:
    numbered = any_key(state, r'^stages\.\d+\.blocks\.\d+\.1\.')
    state = move_merging(_TIMM_NAMES.to_ours(state), -1)
    if numbered:
        state = _turn_roles(_NUMBERED_BLOCKS.to_ours(state), (1, 2, 0))
    return keep_matching(state, _BACKBONE, NOT_BACKBONE)


def _convert_first(state: StateDict) -> tuple[StateDict, Skipped]:
    state = _turn_roles(move_merging(_FIRST_NAMES.to_ours(state), -1), (1, 2, 0))
    return keep_matching(state, _BACKBONE, NOT_BACKBONE)


def _turn_roles(state: StateDict, order: tuple[int, int, int]) -> StateDict:
    """Reorder the joint projections ``(3 C, ...)`` of the channel attention by thirds."""

    def turned(value: Tensor) -> Tensor:
        thirds = value.chunk(3)
        return torch.cat([thirds[i] for i in order])

    return {key: turned(value) if any_key([key], _CHANNEL_QKV) else value for key, value in state.items()}


# --- out of ours ------------------------------------------------------------------------------------------------------


@register_export(_FLORENCE, is_davit, settings=[_scale('tokens')])
def export_florence_davit(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write the layout of Florence-2's tower, with the norm and head of a classifier if there are any."""
    head = add_prefix(pop_head(state), 'head.')
    state, left_out = take_davit(state, _FLORENCE, (3,))
    return Exported(to_florence(state) | head, left_out)


@register_export(_HUGGING_FACE, is_davit, model_types=('florence_vision',), settings=[_scale('tokens'), *DAVIT_SIZES])
def export_hf_davit(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write a ``Florence2VisionBackbone`` with its ``config.json``; it has no norm of its output."""
    if 'norm.weight' in state:
        raise ValueError('it has norm.weight, the norm of its output, which a Florence2VisionBackbone lacks')
    state, left_out = take_davit(state, 'transformers', (3,))
    return Exported(to_hugging_face(state), left_out, config=davit_config(state, settings))


@register_export(_TIMM, is_davit)
def export_timm_davit(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write timm's layout: that of ``davit_base_fl`` for overlapping patches, else that of ``davit_base``."""
    head = add_prefix(pop_head(state), 'head.fc.')
    state, left_out = take_davit(state, 'timm', (2, 3))
    first = _is_first(state)
    _check_scale(settings, 'channels' if first else 'tokens', 'timm', state)
    state = _turn_roles(state, (2, 0, 1)) if first else state
    state = _NUMBERED_BLOCKS.to_theirs(state) if first else state
    absent = {} if head else {'head': 'made by timm unless num_classes=0'}
    return Exported(_TIMM_NAMES.to_theirs(move_merging(state, 1)) | head, left_out, absent)


@register_export(_FIRST, is_davit, wrapper='state_dict', settings=[_scale('channels')])
def export_first_davit(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write the layout of DaViT's first code."""
    head = add_prefix(pop_head(state), 'head.')
    state, left_out = take_davit(state, _FIRST, (2, 3))
    return Exported(_FIRST_NAMES.to_theirs(move_merging(_turn_roles(state, (2, 0, 1)), 1)) | head, left_out)


def take_davit(state: StateDict, layout: str, kernels: tuple[int, ...]) -> tuple[StateDict, Skipped]:
    """Take the tensors of a DaViT for a layout.

    Args:
        state: tensors under our names.
        layout: name of it, for messages.
        kernels: sides of the convolutions between stages that it can have.

    Returns:
        the tensors, and the other keys with the reason.

    Raises:
        ValueError: the convolutions between stages have another kernel.
    """
    merging = next((value for key, value in state.items() if any_key([key], _MERGING)), None)
    if merging is not None and merging.shape[-1] not in kernels:
        raise ValueError(
            f'its convolutions between stages have a kernel of {merging.shape[-1]}, and {layout} has one of '
            f'{" or ".join(map(str, kernels))}'
        )
    return hold(state, _BACKBONE.replace(r'\d?', ''), layout)


def _is_first(state: Collection[str]) -> bool:
    return any(any_key([key], _MERGING) and state[key].shape[-1] == 2 for key in state)


def _check_scale(known: dict[str, Any], right: str, layout: str, state: StateDict) -> None:
    if (scale := known.get('channel_scale', right)) != right:
        kernel = 2 if _is_first(state) else 3
        raise ValueError(
            f'its weights need channel_scale={scale!r}, and {layout} computes with {right!r} where the convolutions '
            f'between stages have a kernel of {kernel}'
        )


def davit_config(state: StateDict, settings: dict[str, Any]) -> dict[str, Any]:
    """What transformers builds the backbone from; heads and windows are settings that no tensor tells."""
    require(state, 'patch_embed.proj.weight', 'layers.0.blocks.0.spatial_block.mlp.fc1.weight')
    stem = state['patch_embed.proj.weight']
    convs = 'spatial_block.conv1.weight'
    widths = [len(state[f'layers.{i}.blocks.0.{convs}']) for i in range(_stages(state))]
    depths = [sum(any_key([k], rf'^layers\.{i}\.blocks\.\d+\.{convs}$') for k in state) for i in range(len(widths))]
    stride = (stem.shape[-1] + 1) // 2
    heads = [width // 32 for width in widths]
    assumed = {'num_heads': heads, 'num_groups': heads, 'window_size': 12}
    known = {name: settings[name] for name in assumed if name in settings}
    fixed = {
        'architectures': ['Florence2VisionBackbone'],
        'model_type': 'florence_vision',
        'in_channels': stem.shape[1],
        'embed_dim': widths,
        'depths': depths,
        'patch_size': [stem.shape[-1]] + [3] * (len(widths) - 1),
        'patch_stride': [stride] + [2] * (len(widths) - 1),
        'patch_padding': [stride - 1] + [1] * (len(widths) - 1),
        'patch_prenorm': [False] + [True] * (len(widths) - 1),
        'mlp_ratio': len(state['layers.0.blocks.0.spatial_block.mlp.fc1.weight']) / widths[0],
    }
    return config_json(settings, fixed | known, assumed)


def _stages(state: StateDict) -> int:
    return len({key.split('.')[1] for key in state if key.startswith('layers.')})
