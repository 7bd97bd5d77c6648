"""Public checkpoint formats and the conversion of their keys to our names.

A format is detected by its keys. Our names are, for a backbone, ``patch_embed.*``, ``layers.*`` and ``norm.*``; for two
towers ``image_encoder.*``, ``text_encoder.*``, ``image_projection``, ``text_projection`` and ``logit_scale``, as in
UniCL's releases. Sources of the layouts: Swin-Transformer ``models/swin_transformer.py``, UniCL ``model/model.py``,
MedImageInsight ``UniCLModel.py``, mmdet and mmpretrain ``swin``, timm ``swin_transformer.py``, Video-Swin-Transformer
``swin_transformer.py``, mmaction2 ``swin``, open_clip ``model.py``, transformers ``modeling_clip.py`` and
``modeling_roberta.py``, METER ``meter_module.py``.
"""

import re

import torch

from .detectors import convert_dyhead, convert_mmdet_dyhead
from .meter import convert_meter, convert_roberta
from .renaming import COMPUTED, Format, Skipped, StateDict, any_key, keep_matching, rename
from .swin import convert_mm_swin, convert_swin, convert_timm_swin, convert_video_swin

# --- two towers -----------------------------------------------------------------------------------------------------


def _convert_old_unicl(state: StateDict) -> tuple[StateDict, Skipped]:
    return rename(
        state,
        [(r'^visual\.', 'image_encoder.'), (r'^text\.', 'text_encoder.'), (r'^vision_projection$', 'image_projection')],
    ), {}


def _convert_medimageinsight(state: StateDict) -> tuple[StateDict, Skipped]:
    return rename(state, [(r'^lang_encoder\.', 'text_encoder.'), (r'^lang_projection$', 'text_projection')]), {}


# --- CLIP text towers -----------------------------------------------------------------------------------------------

_TEXT = r'^(text_encoder\.|text_projection$|logit_scale$)'
_NOT_TEXT = "not part of CLIP's text tower"


def _convert_clip(state: StateDict) -> tuple[StateDict, Skipped]:
    state = rename(
        state,
        [
            (r'^text\.(transformer\.|token_embedding\.|positional_embedding|ln_final\.|text_projection)', r'\1'),
            (r'^transformer\.', 'text_encoder.'),
            (r'^(token_embedding\.|positional_embedding$|ln_final\.)', r'text_encoder.\1'),
        ],
    )
    return keep_matching(state, _TEXT, _NOT_TEXT)


def _convert_hf_clip(state: StateDict) -> tuple[StateDict, Skipped]:
    state = rename(
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
    state, skipped = keep_matching(state, _TEXT, _NOT_TEXT)
    if 'text_projection' in state:
        state['text_projection'] = state['text_projection'].t().contiguous()  # [out, in] to [in, out]
    for key in [key for key in state if '.self_attn.q_proj.' in key]:
        parts = [state.pop(key.replace('q_proj', f'{name}_proj')) for name in 'qkv']
        state[re.sub(r'self_attn\.q_proj\.', 'attn.in_proj_', key)] = torch.cat(parts)
    return state, skipped


def _keep(state: StateDict) -> tuple[StateDict, Skipped]:
    return dict(state), {}


# the first format that matches is used
FORMATS = [
    Format('DyHead', lambda k: any_key(k, r'(^|\.)dyhead_tower\.\d+\.offset\.'), convert_dyhead),
    Format(
        'mmdet DyHead', lambda k: any_key(k, r'(^|\.)dyhead_blocks\.\d+\.spatial_conv_offset\.'), convert_mmdet_dyhead
    ),
    Format('METER', lambda k: any_key(k, r'^cross_modal_(text|image)_layers\.'), convert_meter),
    Format('florence_mm METER', lambda k: any_key(k, r'^cross_modal\.(text|image)_transform\.'), _keep),
    Format('UniCL', lambda k: any_key(k, r'^image_encoder\.') and any_key(k, r'^text_encoder\.'), _keep),
    Format(
        'MedImageInsight', lambda k: any_key(k, r'^lang_encoder\.') or 'lang_projection' in k, _convert_medimageinsight
    ),
    Format(
        'UniCL, old layout',
        lambda k: any_key(k, r'^visual\.') and any_key(k, r'^text\.resblocks\.'),
        _convert_old_unicl,
    ),
    Format(
        'mmdet or mmpretrain Swin', lambda k: any_key(k, r'^(backbone\.)?stages\.\d+\..*\.w_msa\.'), convert_mm_swin
    ),
    Format(
        'timm Swin',
        lambda k: any_key(k, r'^layers\.1\.downsample\.') and not any_key(k, r'^layers\.0\.downsample\.'),
        convert_timm_swin,
    ),
    Format(
        'Swin or CoSwin',
        lambda k: any_key(k, r'^layers\.\d+\.blocks\.\d+\.attn\.relative_position_bias_table$'),
        convert_swin,
    ),
    Format(
        'Video Swin or VideoCoSwin',
        lambda k: any_key(k, r'^backbone\.layers\.\d+\.blocks\.\d+\.attn\.') and any_key(k, r'^cls_head\.'),
        convert_video_swin,
    ),
    Format('CLIP', lambda k: any_key(k, r'^(text\.)?transformer\.resblocks\.'), _convert_clip),
    Format(
        'Hugging Face RoBERTa',
        lambda k: any_key(k, r'^(roberta\.)?encoder\.layer\.\d+\.attention\.self\.query\.'),
        convert_roberta,
    ),
    Format('Hugging Face CLIP', lambda k: any_key(k, r'^text_model\.encoder\.layers\.'), _convert_hf_clip),
    Format('florence_mm', lambda k: True, _keep),
]


def convert_state_dict(state: StateDict) -> tuple[str, StateDict, Skipped]:
    """Detect the format of a state dict and convert its keys to our names.

    Args:
        state: tensors by key, as :func:`~florence_mm.models.checkpoints.reading.read_checkpoint` returns them.

    Returns:
        the name of the format, the tensors under our names, and the skipped keys with the reason.
    """
    skipped = {key: 'computed by the model' for key in state if key.endswith(COMPUTED)}
    state = {key: value for key, value in state.items() if key not in skipped}
    if state and all(key.startswith('module.') for key in state):
        state = {key.removeprefix('module.'): value for key, value in state.items()}
    found = next(fmt for fmt in FORMATS if fmt.detect(set(state)))
    state, left_out = found.convert(state)
    return found.name, state, {**skipped, **left_out}
