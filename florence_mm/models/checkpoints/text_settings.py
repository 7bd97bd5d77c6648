"""Settings of encoders by checkpoint format: activation, epsilon of the norms, and which tokens attention sees.

Sources: transformers ``RobertaConfig``; UniCL ``model/text_encoder/transformer.py``; MedImageInsight ``config.yaml``
(``AUTOGRESSIVE``); METER ``meter_module.py``, whose layers have ``BertConfig``'s epsilon. For CLIP's see
:mod:`.clip_settings`.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn

from .clip_settings import IMAGE, as_dict, of_class, openai_image_tower, text_tower
from .renaming import Source, any_key
from .settings import Setting

#: Channels of a head of self-attention in the released models.
HEAD_WIDTH = 64
_ROBERTA_EPS = "config's layer_norm_eps of the text encoder"


def norm_eps(norm: nn.Module) -> float | None:
    """Epsilon of a norm; None for another module."""
    return getattr(norm, 'eps', None)


def head_width(attention: nn.Module) -> int | None:
    """Channels of a head of our self-attention; None for one too narrow to be of a released model, and for others."""
    width = getattr(getattr(attention, 'qkv', None), 'in_features', 0)
    return width // attention.num_heads if width >= HEAD_WIDTH else None


def unicl_settings(source: Source) -> Iterable[Setting]:
    """Settings of the text tower of UniCL's releases."""
    return text_tower(('quick_gelu',), 1e-12, True)


def medimageinsight_settings(source: Source) -> Iterable[Setting]:
    """Settings of MedImageInsight's text tower."""
    return text_tower(('quick_gelu',), 1e-12, False)


def roberta_settings(source: Source) -> Iterable[Setting]:
    """Settings of RoBERTa."""
    return (Setting(_ROBERTA_EPS, r'(^|\.)model\..*LayerNorm$', norm_eps, (1e-5,)),)


def _image_pool(kind: str) -> Callable[[nn.Module], str | None]:
    """A function that reads what a METER with an image encoder of a class pools of it; None for others."""

    def read(module: nn.Module) -> str | None:
        image, fusion = of_class('METER', 'image_encoder')(module), of_class('METER', 'cross_modal')(module)
        return fusion.image_pool if type(image).__name__ == kind else None

    return read


def meter_settings(source: Source) -> Iterable[Setting]:
    """Settings of METER: RoBERTa's, BERT's epsilon in the layers that fuse, and those of its image encoder."""
    clip = any_key(source.keys, r'^vit_model\.visual\.')
    pool = 'image_pool of the fusion'
    return (
        *(openai_image_tower() if clip else ()),
        Setting('out_type of the image tower', '', of_class(IMAGE, 'out_type'), ('raw',)),
        Setting(pool, '', _image_pool(IMAGE), ('first',))
        if clip
        else Setting(pool, '', _image_pool('CoSwin'), ('mean',)),
        Setting(_ROBERTA_EPS, r'^text_encoder\.model\..*LayerNorm$', norm_eps, (1e-5,)),
        Setting('layer_norm_eps of the fusion', r'^cross_modal\..*LayerNorm$', norm_eps, (1e-12,)),
    )


def head_setting(modules: str, attribute: str) -> Setting:
    """The number of heads of a text encoder, for the config of a package that reads it from there."""
    return Setting('num_heads', modules, lambda m: getattr(m, attribute, None), ())


def head_count(known: Mapping[str, Any], width: int, what: str = 'text encoder') -> tuple[int, list[str]]:
    """The number of heads of an encoder, which no shape tells, and a note if it is assumed: heads of 64 channels.

    Args:
        known: what is known of the model beside its tensors.
        width: channels of the encoder.
        what: the encoder, for the note.
    """
    if heads := known.get('num_heads', as_dict(known.get('config.json')).get('num_attention_heads')):
        return heads, []
    heads = max(width // HEAD_WIDTH, 1)
    note = f'the file does not tell the number of heads of its {what}, {heads} of {HEAD_WIDTH} channels are taken'
    return heads, [note]
