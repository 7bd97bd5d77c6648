"""Conversion of two-tower models and CLIP's text towers to the names of UniCL's releases, which are ours.

Sources of the layouts: UniCL ``model/model.py``, MedImageInsight ``UniCLModel.py``, open_clip ``model.py``,
transformers ``modeling_clip.py``.
"""

import re

import torch

from .renaming import Skipped, StateDict, any_key, keep_matching, register_format, rename
from .text_settings import clip_settings, medimageinsight_settings, unicl_settings

# --- two towers -----------------------------------------------------------------------------------------------------


@register_format(
    'UniCL, old layout',
    lambda k: any_key(k, r'^visual\.') and any_key(k, r'^text\.resblocks\.'),
    settings=unicl_settings,
)
def convert_old_unicl(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert the layout of UniCL's first releases."""
    return rename(
        state,
        [(r'^visual\.', 'image_encoder.'), (r'^text\.', 'text_encoder.'), (r'^vision_projection$', 'image_projection')],
    ), {}


@register_format(
    'MedImageInsight', lambda k: any_key(k, r'^lang_encoder\.resblocks\.'), settings=medimageinsight_settings
)
def convert_medimageinsight(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert MedImageInsight's two towers."""
    return rename(state, [(r'^lang_encoder\.', 'text_encoder.'), (r'^lang_projection$', 'text_projection')]), {}


# --- CLIP text towers -----------------------------------------------------------------------------------------------

_TEXT = r'^(text_encoder\.|text_projection$|logit_scale$)'
_NOT_TEXT = "not part of CLIP's text tower"


@register_format(
    'CLIP',
    lambda k: (
        any_key(k, r'^(text\.)?transformer\.resblocks\.\d+\.attn\.in_proj_weight$')
        and any_key(k, r'^(text\.)?token_embedding\.weight$')
        # the text towers of SigLIP and CoCa have other pooling and masks
        and not any_key(k, r'^logit_bias$|^(text\.)?text_projection\.|^text\.cls_emb$')
    ),
    settings=clip_settings,
)
def convert_clip(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert the text tower of CLIP and open_clip."""
    state = rename(
        state,
        [
            (r'^text\.(transformer\.|token_embedding\.|positional_embedding|ln_final\.|text_projection)', r'\1'),
            (r'^transformer\.', 'text_encoder.'),
            (r'^(token_embedding\.|positional_embedding$|ln_final\.)', r'text_encoder.\1'),
        ],
    )
    return keep_matching(state, _TEXT, _NOT_TEXT)


@register_format(
    'Hugging Face CLIP',
    lambda k: (
        any_key(k, r'^text_model\.encoder\.layers\.\d+\.self_attn\.q_proj\.')
        and any_key(k, r'^text_model\.embeddings\.token_embedding\.')
        # SigLIP and GroupViT
        and not any_key(k, r'^logit_bias$|^text_model\.head\.|^text_projection\.\d')
    ),
    settings=clip_settings,
)
def convert_hf_clip(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert the text tower of transformers' CLIP."""
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
