"""The plain ViT of timm, DeiT and BLIP, to and from the names of ``CLIPVisionTower``.

Sources of the layout: timm ``models/vision_transformer.py``; salesforce/BLIP ``models/vit.py``. The tower needs
``pre_norm=False``, ``patch_bias=True``, ``act='gelu'`` and ``norm_eps=1e-6``.
"""

from collections.abc import Iterable

from .clip import FIXED_SHAPES
from .clip_settings import IMAGE, of_class
from .renaming import Names, Skipped, Source, StateDict, any_key, keep_matching, register_format
from .settings import Setting

_NAMES = Names(
    ('^cls_token$', '^class_embedding$'),
    ('^pos_embed$', '^positional_embedding$'),
    ('^patch_embed.proj.', '^conv1.'),
    ('^blocks.#.norm#.', '^resblocks.#.ln_#.'),
    ('^blocks.#.attn.qkv.', '^resblocks.#.attn.in_proj_'),
    ('^blocks.#.attn.proj.', '^resblocks.#.attn.out_proj.'),
    ('^blocks.#.mlp.fc1.', '^resblocks.#.mlp.c_fc.'),
    ('^blocks.#.mlp.fc2.', '^resblocks.#.mlp.c_proj.'),
    ('^norm.', '^ln_post.'),
)
_OURS = r'^(class_embedding$|positional_embedding$|conv1\.|resblocks\.|ln_post\.)'


def is_plain_vit(keys: Iterable[str]) -> bool:
    """Whether keys of ours are those of a tower without a norm before its blocks."""
    keys = set(keys)
    return {'class_embedding', 'conv1.bias'} <= keys and 'ln_pre.weight' not in keys


def to_tower(state: StateDict, names: Names) -> StateDict:
    """Rename a plain ViT's tensors to ours; class token and positions lose their axes of size 1."""
    state = names.to_ours(state)
    for key, rank in (('class_embedding', 1), ('positional_embedding', 2)):
        if key in state:
            state[key] = state[key].reshape(state[key].shape[-rank:])
    return state


def from_tower(state: StateDict, names: Names) -> StateDict:
    """Give our tensors a plain ViT's names; the inverse of :func:`to_tower`."""
    shaped = {
        'class_embedding': state['class_embedding'][None, None],
        'positional_embedding': state['positional_embedding'][None],
    }
    return names.to_theirs({**state, **shaped})


def convert_vit(state: StateDict) -> StateDict:
    """Convert timm's names, which BLIP's public code has, too."""
    return to_tower(state, _NAMES)


def export_vit(state: StateDict) -> StateDict:
    """Give the tensors of our tower timm's names."""
    return from_tower(state, _NAMES)


def plain_vit_settings(source: Source) -> Iterable[Setting]:
    """Settings of a plain ViT: activation, epsilon of the norms, channels of a head."""
    return (
        Setting('norm_eps of the image tower', '', of_class(IMAGE, 'norm_eps'), (1e-6,)),
        Setting('act of the image tower', '', of_class(IMAGE, 'act'), ('gelu',)),
    )


@register_format(
    'plain ViT',
    lambda keys: (
        any_key(keys, r'^blocks\.\d+\.attn\.qkv\.weight$')
        and {'cls_token', 'pos_embed', 'patch_embed.proj.bias', 'norm.weight'} <= keys
        and not any_key(keys, r'\.ls\d\.|\.gamma_\d|^dist_token$|^reg_token$|^norm_pre\.')
    ),
    priority=-1,
    settings=plain_vit_settings,
    fixed_shapes=FIXED_SHAPES,
)
def convert_plain_vit(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert an image tower alone, as DeiT's, from which BLIP starts."""
    return keep_matching(convert_vit(state), _OURS, 'not part of the tower')
