"""CLIP and open_clip, to and from the names of our two towers.

Sources of the layouts: CLIP ``clip/model.py`` and open_clip ``model.py``. A file may have one tower alone. The image
tower is a ViT (``CLIPVisionTower``), or a ResNet (``CLIPResNet``), which has its projection inside; others are skipped
with the reason.
"""

import re
from collections.abc import Collection
from typing import Any

from .clip_settings import clip_settings, clip_text_settings
from .clip_towers import image_tower
from .exporting import Exported, hold, register_export, require
from .renaming import (
    Names,
    Skipped,
    StateDict,
    add_prefix,
    any_key,
    keep_matching,
    pop_prefix,
    register_format,
    rename,
)

PARTS = r'^(image_encoder\.|image_projection$|text_encoder\.|text_projection$|logit_scale$)'
#: A stem with another patch would leave a tower of random patches.
FIXED_SHAPES = {r'(^|\.)image_encoder\.conv1\.weight$|^conv1\.weight$': 'arch of CLIPVisionTower, with its patch_size'}
_VIT = Names(('^transformer.resblocks.', '^resblocks.'))
_NOT_OURS = 'not part of the towers'
#: What an image tower has that is no ViT of CLIP's -> what it is.
_OTHER_TOWERS = {
    r'^layer1\.': 'a ResNet',
    r'^trunk\.': "a model of timm's",
    r'^attn_pool\.': 'a ViT with attentional pooling',
    r'^(conv1\.bias|patchnorm_pre_ln\.|conv1\.weight_v)': 'a ViT with another patch embedding',
}


def other_tower(state: StateDict) -> str | None:
    """Tell why an image tower, under open_clip's names without ``visual.``, is not CLIP's ViT; None if it is."""
    if not state:
        return None
    kind = next((kind for pattern, kind in _OTHER_TOWERS.items() if any_key(state, pattern)), None)
    if kind is None and not {'class_embedding', 'conv1.weight', 'ln_pre.weight', 'ln_post.weight'} <= state.keys():
        kind = 'a ViT without class token or without the norms around its blocks'
    return kind and f'of an image tower that is {kind}, which CLIPVisionTower is not'


def convert_vit(state: StateDict) -> StateDict:
    """Convert CLIP's ViT, under open_clip's names without ``visual.``, to the names of our tower."""
    return _VIT.to_ours(state)


def export_vit(state: StateDict) -> StateDict:
    """Give the tensors of our tower open_clip's names without ``visual.``."""
    return _VIT.to_theirs(state)


@register_format(
    'CLIP',
    lambda k: (
        any_key(k, r'^(text\.)?transformer\.resblocks\.\d+\.attn\.in_proj_weight$')
        and any_key(k, r'^(text\.)?token_embedding\.weight$')
        # the text towers of SigLIP and CoCa have other pooling and masks
        and not any_key(k, r'^logit_bias$|^(text\.)?text_projection\.|^text\.cls_emb$')
    ),
    settings=clip_settings,
    fixed_shapes=FIXED_SHAPES,
)
def convert_clip(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert the towers of CLIP and open_clip."""
    state = dict(state)
    image, reason = pop_prefix(state, r'visual\.'), None
    if image_tower(image) == 'CLIPResNet':
        skipped, image = {}, add_prefix(image, 'image_encoder.')
    elif reason := other_tower(image):
        skipped = {f'visual.{key}': reason for key in image}
        image = {}
    else:
        skipped, projection = {}, image.pop('proj', None)
        image = {f'image_encoder.{key}': value for key, value in convert_vit(image).items()}
        if projection is not None:
            image['image_projection'] = projection  # [in, out], as ours
    state = rename(
        state,
        [
            (r'^text\.(transformer\.|token_embedding\.|positional_embedding|ln_final\.|text_projection)', r'\1'),
            (r'^transformer\.', 'text_encoder.'),
            (r'^(token_embedding\.|positional_embedding$|ln_final\.)', r'text_encoder.\1'),
        ],
    )
    state, left_out = keep_matching({**image, **state}, PARTS, _NOT_OURS)
    return state, {**skipped, **left_out}


# --- out of ours ------------------------------------------------------------------------------------------------------

_TOWER = r'^(text_encoder\.)?(?=(resblocks|token_embedding|ln_final)\.|positional_embedding$)'
TEXT_SIZES = ('token_embedding.weight', 'positional_embedding', 'resblocks.0.mlp.c_fc.weight')
TEXT_PARTS = r'^(text_encoder\.|text_projection$|logit_scale$)'
_TEXT = Names(
    ('^transformer.', '^text_encoder.'),
    ('^token_embedding.', '^text_encoder.token_embedding.'),
    ('^positional_embedding$', '^text_encoder.positional_embedding$'),
    ('^ln_final.', '^text_encoder.ln_final.'),
)


def is_text_tower(keys: Collection[str]) -> bool:
    """Whether keys of ours have CLIP's text tower, alone or in a model of two towers."""
    alone = any_key(keys, r'^resblocks\.') and any_key(keys, r'^token_embedding\.')
    return alone or any_key(keys, r'^text_encoder\.resblocks\.\d+\.attn\.in_proj_weight$')


def take_text(state: StateDict, layout: str) -> tuple[StateDict, Skipped]:
    """Take a text tower, alone or out of a model of two, with what belongs to it."""
    if any_key(state, r'^token_embedding\.'):
        state = {re.sub(_TOWER, 'text_encoder.', key): value for key, value in state.items()}
    require(state, *(f'text_encoder.{name}' for name in TEXT_SIZES))
    return hold(state, TEXT_PARTS, layout)


@register_export('CLIP', is_text_tower, settings=clip_text_settings())
def export_clip(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write the towers of CLIP and open_clip; an image tower that is neither of CLIP's is left out."""
    absent = {}
    image, projection = pop_prefix(state, r'image_encoder\.'), state.pop('image_projection', None)
    theirs = add_prefix(export_vit(image), 'visual.')
    if projection is not None:
        theirs['visual.proj'] = projection
    if projection is None and image_tower(image) == 'CLIPResNet':
        theirs, left_out = add_prefix(image, 'visual.'), {}
    elif 'class_embedding' in image and projection is not None:
        left_out = {}
    else:
        absent['visual'] = 'not in the source'
        left_out = dict.fromkeys(add_prefix(image, 'image_encoder.'), 'CLIP has no place for it')
        left_out |= {} if projection is None else {'image_projection': 'CLIP has no place for it'}
        theirs = {}
    state, more = take_text(state, 'CLIP')
    absent |= {key: 'not in the source' for key in ('text_projection', 'logit_scale') if key not in state}
    return Exported({**theirs, **_TEXT.to_theirs(state)}, {**left_out, **more}, absent)
