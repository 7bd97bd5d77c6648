"""Two-tower models, to and from the names of UniCL's releases, which are ours.

Sources of the layouts: UniCL ``model/model.py``, MedImageInsight ``UniCLModel.py``.
"""

from collections.abc import Callable, Collection
from typing import Any

from .classifiers import is_davit
from .davit import from_florence, take_davit, to_florence
from .exporting import Exported, hold, register_export, require
from .renaming import Names, Skipped, Source, StateDict, add_prefix, any_key, pop_prefix, register_format
from .swin import is_backbone, is_swin, position_indices, take_swin
from .text_settings import medimageinsight_settings, unicl_settings

_OLD_UNICL = Names(
    ('^visual.', '^image_encoder.'), ('^text.', '^text_encoder.'), ('^vision_projection$', '^image_projection$')
)
_MEDIMAGEINSIGHT = Names(('^lang_encoder.', '^text_encoder.'), ('^lang_projection$', '^text_projection$'))


@register_format(
    'UniCL, old layout',
    lambda k: any_key(k, r'^visual\.') and any_key(k, r'^text\.resblocks\.'),
    settings=unicl_settings,
)
def convert_old_unicl(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert the layout of UniCL's first releases."""
    return _OLD_UNICL.to_ours(state), {}


@register_format(
    'MedImageInsight', lambda k: any_key(k, r'^lang_encoder\.resblocks\.'), settings=medimageinsight_settings
)
def convert_medimageinsight(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert MedImageInsight's two towers; that of its release for images is a DaViT."""
    state = _MEDIMAGEINSIGHT.to_ours(state)
    image = pop_prefix(state, r'image_encoder\.')
    image = image if is_backbone(image) else from_florence(image)
    return {**add_prefix(image, 'image_encoder.'), **state}, {}


def _has_two_towers(keys: Collection[str]) -> bool:
    return any_key(keys, r'^image_encoder\.') and any_key(keys, r'^text_encoder\.(?!model\.)')


@register_export('UniCL', _has_two_towers, wrapper='model', settings=unicl_settings(Source('')))
def export_unicl(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write the layout of UniCL's releases, whose names are ours; a window backbone must be a Swin."""
    return _two_towers(state, 'UniCL', take_swin)


@register_export('UniCL, old layout', _has_two_towers, settings=unicl_settings(Source('')))
def export_old_unicl(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write the layout of UniCL's first releases."""
    exported = _two_towers(state, 'UniCL', take_swin)
    exported.tensors = _OLD_UNICL.to_theirs(exported.tensors)
    return exported


@register_export('MedImageInsight', _has_two_towers, settings=medimageinsight_settings(Source('')))
def export_medimageinsight(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write MedImageInsight's layout; a window backbone must be a CoSwin, or a DaViT."""
    exported = _two_towers(state, 'MedImageInsight', _take_coswin)
    exported.tensors = _MEDIMAGEINSIGHT.to_theirs(exported.tensors)
    return exported


def _two_towers(state: StateDict, layout: str, take: Callable[[StateDict, str], tuple[StateDict, Skipped]]) -> Exported:
    state, left_out = hold(state, r'^((image|text)_encoder\.|(image|text)_projection$|logit_scale$)', layout)
    require(state, 'image_projection', 'text_projection', 'logit_scale')
    image, absent = pop_prefix(state, r'image_encoder\.'), {}
    if is_backbone(image):
        image, more = take(image, layout)
        image |= position_indices(image)
        left_out |= add_prefix(more, 'image_encoder.')
        absent = {'image_encoder.*.attn_mask': 'computed by the package, from the size of its pictures'}
    if is_davit(image):
        if take is take_swin:
            raise ValueError(f'its image encoder is a DaViT, which {layout} lacks; write it as MedImageInsight')
        image, more = take_davit(image, layout, (3,))
        image, left_out = to_florence(image), left_out | add_prefix(more, 'image_encoder.')
    return Exported({**add_prefix(image, 'image_encoder.'), **state}, left_out, absent)


def _take_coswin(state: StateDict, layout: str) -> tuple[StateDict, Skipped]:
    if is_swin(state):
        raise ValueError(f"its patch merging is Swin's, and the backbone of {layout} is a CoSwin with convolutions")
    return state, {}
