"""Public checkpoint layouts and what their keys are called here.

A format is recognised by its keys alone. Its ``convert`` gives our names: a backbone alone has ``patch_embed.*``,
``layers.*`` and ``norm.*`` at the top; two towers are ``image_encoder.*``, ``text_encoder.*``, ``image_projection``,
``text_projection`` and ``logit_scale`` as in UniCL's releases. Layouts were read from the public module code:
Swin-Transformer ``models/swin_transformer.py``, UniCL ``model/model.py``, MedImageInsight ``UniCLModel.py``, mmdet and
mmpretrain ``swin``, timm ``swin_transformer.py``, open_clip ``model.py``, transformers ``modeling_clip.py``.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

StateDict = dict[str, Tensor]
Skipped = dict[str, str]

# buffers that the model computes: they belong to a window or a resolution, not to what was learned
_COMPUTED = ('relative_position_index', 'attn_mask', 'position_ids', 'relative_coords_table')


@dataclass(frozen=True)
class Format:
    """A public layout.

    Attributes:
        name: what reports and errors call it.
        detect: whether a set of keys is of this format.
        convert: from its tensors to ours, and the keys left out with the reason.
    """

    name: str
    detect: Callable[[set[str]], bool]
    convert: Callable[[StateDict], tuple[StateDict, Skipped]]


def _has(keys: Iterable[str], pattern: str) -> bool:
    return any(re.search(pattern, key) for key in keys)


def _rename(state: StateDict, rules: list[tuple[str, str]]) -> StateDict:
    """Each key after all rules (regular expression, replacement), applied in order."""
    renamed = {}
    for key, value in state.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed


def _split(state: StateDict, pattern: str, reason: str) -> tuple[StateDict, Skipped]:
    """Leave out the keys that do not match."""
    kept = {key: value for key, value in state.items() if re.search(pattern, key)}
    return kept, {key: reason for key in state if key not in kept}


# --- Swin backbones -------------------------------------------------------------------------------------------------

_BACKBONE = r'^(patch_embed|layers|norm\d?|absolute_pos_embed)(\.|$)'


def _convert_swin(state: StateDict) -> tuple[StateDict, Skipped]:
    return _split(_rename(state, [(r'^backbone\.', '')]), _BACKBONE, 'not part of the backbone')


def _convert_timm_swin(state: StateDict) -> tuple[StateDict, Skipped]:
    # timm counts a merge to the stage that follows it
    state = {
        re.sub(r'^layers\.(\d+)\.downsample', lambda m: f'layers.{int(m[1]) - 1}.downsample', key): value
        for key, value in state.items()
    }
    return _convert_swin(state)


def _from_unfold_order(value: Tensor) -> Tensor:
    """Patch merging over ``nn.Unfold`` (channel-major, row-major) to Swin's order (patch-major, column-major)."""
    lead, channels = value.shape[:-1], value.shape[-1] // 4
    value = value.reshape(*lead, channels, 2, 2)  # (..., C, row, column)
    return value.movedim(-3, -1).transpose(-3, -2).reshape(*lead, -1)  # (..., column, row, C) as one axis


def _convert_mm_swin(state: StateDict) -> tuple[StateDict, Skipped]:
    state, skipped = _split(
        state, r'^(backbone\.)?(patch_embed|stages|norm\d?|absolute_pos_embed)(\.|$)', 'not part of the backbone'
    )
    state = _rename(
        state,
        [
            (r'^backbone\.', ''),
            (r'^stages\.', 'layers.'),
            (r'^patch_embed\.projection\.', 'patch_embed.proj.'),
            (r'\.attn\.w_msa\.', '.attn.'),
            (r'\.ffn\.layers\.0\.0\.', '.mlp.fc1.'),
            (r'\.ffn\.layers\.1\.', '.mlp.fc2.'),
        ],
    )
    last = max(int(m[1]) for key in state if (m := re.match(r'layers\.(\d+)\.', key)))
    state = _rename(state, [(rf'^norm{last}\.', 'norm.')])
    for key in state:
        if re.search(r'\.downsample\.(reduction\.weight|norm\.)', key):
            state[key] = _from_unfold_order(state[key])
    embed = state.get('absolute_pos_embed')
    if embed is not None and embed.ndim == 4:  # mmdet keeps a map (1, C, H, W)
        state['absolute_pos_embed'] = embed.flatten(2).transpose(1, 2)
    return state, skipped


# --- two towers -----------------------------------------------------------------------------------------------------


def _convert_old_unicl(state: StateDict) -> tuple[StateDict, Skipped]:
    return _rename(
        state,
        [(r'^visual\.', 'image_encoder.'), (r'^text\.', 'text_encoder.'), (r'^vision_projection$', 'image_projection')],
    ), {}


def _convert_medimageinsight(state: StateDict) -> tuple[StateDict, Skipped]:
    return _rename(state, [(r'^lang_encoder\.', 'text_encoder.'), (r'^lang_projection$', 'text_projection')]), {}


# --- CLIP text towers -----------------------------------------------------------------------------------------------

_TEXT = r'^(text_encoder\.|text_projection$|logit_scale$)'
_NOT_TEXT = "not part of CLIP's text tower"


def _convert_clip(state: StateDict) -> tuple[StateDict, Skipped]:
    state = _rename(
        state,
        [
            (r'^text\.(transformer\.|token_embedding\.|positional_embedding|ln_final\.|text_projection)', r'\1'),
            (r'^transformer\.', 'text_encoder.'),
            (r'^(token_embedding\.|positional_embedding$|ln_final\.)', r'text_encoder.\1'),
        ],
    )
    return _split(state, _TEXT, _NOT_TEXT)


def _convert_hf_clip(state: StateDict) -> tuple[StateDict, Skipped]:
    state = _rename(
        state,
        [
            (r'^text_model\.embeddings\.token_embedding\.', 'text_encoder.token_embedding.'),
            (r'^text_model\.embeddings\.position_embedding\.weight$', 'text_encoder.positional_embedding'),
            (r'^text_model\.final_layer_norm\.', 'text_encoder.ln_final.'),
            (r'^text_model\.encoder\.layers\.', 'text_encoder.resblocks.'),
            (r'^(text_encoder\.resblocks\.\d+)\.layer_norm(\d)\.', r'\1.ln_\2.'),
            (r'^(text_encoder\.resblocks\.\d+)\.mlp\.fc1\.', r'\1.mlp.c_fc.'),
            (r'^(text_encoder\.resblocks\.\d+)\.mlp\.fc2\.', r'\1.mlp.c_proj.'),
            (r'^(text_encoder\.resblocks\.\d+)\.self_attn\.out_proj\.', r'\1.attn.out_proj.'),
            (r'^text_projection\.weight$', 'text_projection'),
        ],
    )
    state, skipped = _split(state, _TEXT, _NOT_TEXT)
    if 'text_projection' in state:
        state['text_projection'] = state['text_projection'].t().contiguous()  # [out, in] to [in, out]
    for key in [key for key in state if '.self_attn.q_proj.' in key]:
        parts = [state.pop(key.replace('q_proj', f'{name}_proj')) for name in 'qkv']
        state[re.sub(r'self_attn\.q_proj\.', 'attn.in_proj_', key)] = torch.cat(parts)
    return state, skipped


def _keep(state: StateDict) -> tuple[StateDict, Skipped]:
    return dict(state), {}


# the first that detects its keys is taken
FORMATS = [
    Format('UniCL', lambda k: _has(k, r'^image_encoder\.') and _has(k, r'^text_encoder\.'), _keep),
    Format(
        'MedImageInsight', lambda k: _has(k, r'^lang_encoder\.') or 'lang_projection' in k, _convert_medimageinsight
    ),
    Format('UniCL, old layout', lambda k: _has(k, r'^visual\.') and _has(k, r'^text\.resblocks\.'), _convert_old_unicl),
    Format('mmdet or mmpretrain Swin', lambda k: _has(k, r'^(backbone\.)?stages\.\d+\..*\.w_msa\.'), _convert_mm_swin),
    Format(
        'timm Swin',
        lambda k: _has(k, r'^layers\.1\.downsample\.') and not _has(k, r'^layers\.0\.downsample\.'),
        _convert_timm_swin,
    ),
    Format(
        'Swin or CoSwin',
        lambda k: _has(k, r'^layers\.\d+\.blocks\.\d+\.attn\.relative_position_bias_table$'),
        _convert_swin,
    ),
    Format('CLIP', lambda k: _has(k, r'^(text\.)?transformer\.resblocks\.'), _convert_clip),
    Format('Hugging Face CLIP', lambda k: _has(k, r'^text_model\.encoder\.layers\.'), _convert_hf_clip),
    Format('florence_mm', lambda k: True, _keep),
]


def convert_state_dict(state: StateDict) -> tuple[str, StateDict, Skipped]:
    """Recognise the layout of a state dict and give it our names.

    Args:
        state: tensors by key, without the dict that often lies around them.

    Returns:
        the format's name, the tensors under our names, and the keys left out with the reason.
    """
    skipped = {key: 'computed by the model' for key in state if key.endswith(_COMPUTED)}
    state = {key: value for key, value in state.items() if key not in skipped}
    if state and all(key.startswith('module.') for key in state):
        state = {key.removeprefix('module.'): value for key, value in state.items()}
    found = next(fmt for fmt in FORMATS if fmt.detect(set(state)))
    state, left_out = found.convert(state)
    return found.name, state, {**skipped, **left_out}
