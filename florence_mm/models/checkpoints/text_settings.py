"""Settings of text encoders by checkpoint format: activation, epsilon of the norms, and which tokens attention sees.

Sources: CLIP ``clip/model.py``; open_clip's model configs (``quick_gelu``); transformers ``CLIPTextConfig`` and
``RobertaConfig``; UniCL ``model/text_encoder/transformer.py``; MedImageInsight ``config.yaml`` (``AUTOGRESSIVE``);
METER ``meter_module.py``, whose layers have ``BertConfig``'s epsilon.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from .renaming import Source
from .settings import Setting

_ACTS = {'QuickGELU': 'quick_gelu', 'GELU': 'gelu'}
_WHOSE_ACT = "'quick_gelu' belongs to OpenAI's weights, 'gelu' to most of open_clip's (LAION, DataComp)"


def _eps(norm: nn.Module) -> float | None:
    return getattr(norm, 'eps', None)


def _tower(act: tuple[str, ...], eps: float, causal: bool, advice: str = '') -> Iterable[Setting]:
    """Settings of a ``CLIPTextTower``."""
    return (
        Setting('norm_eps', r'(^|\.)(resblocks\.\d+\.ln_[12]|ln_final)$', _eps, (eps,)),
        Setting('act', r'(^|\.)resblocks\.\d+\.mlp\.act$', lambda m: _ACTS.get(type(m).__name__), act, advice),
        Setting('causal', r'^$|(^|\.)(text_encoder|tower)$', lambda m: getattr(m, 'causal', None), (causal,)),
    )


def clip_settings(source: Source) -> Iterable[Setting]:
    """Settings of CLIP's text tower, as a config file beside the weights says; without one the activation is open."""
    stated = _stated(source)
    act, causal = stated.get('act'), stated.get('causal', True)
    return _tower((act,) if act else ('quick_gelu', 'gelu'), stated.get('eps', 1e-5), causal, _WHOSE_ACT)


def unicl_settings(source: Source) -> Iterable[Setting]:
    """Settings of the text tower of UniCL's releases."""
    return _tower(('quick_gelu',), 1e-12, True)


def medimageinsight_settings(source: Source) -> Iterable[Setting]:
    """Settings of MedImageInsight's text tower."""
    return _tower(('quick_gelu',), 1e-12, False)


def roberta_settings(source: Source) -> Iterable[Setting]:
    """Settings of RoBERTa."""
    return (Setting("config's layer_norm_eps of the text encoder", r'(^|\.)model\..*LayerNorm$', _eps, (1e-5,)),)


def meter_settings(source: Source) -> Iterable[Setting]:
    """Settings of METER: RoBERTa's, and BERT's epsilon in the layers that fuse."""
    return (
        Setting("config's layer_norm_eps of the text encoder", r'^text_encoder\.model\..*LayerNorm$', _eps, (1e-5,)),
        Setting('layer_norm_eps of the fusion', r'^cross_modal\..*LayerNorm$', _eps, (1e-12,)),
    )


def head_setting(modules: str, attribute: str) -> Setting:
    """The number of heads of a text encoder, for the config of a package that reads it from there."""
    return Setting('num_heads', modules, lambda m: getattr(m, attribute, None), ())


def head_count(known: Mapping[str, Any], width: int) -> tuple[int, list[str]]:
    """The number of heads of a text encoder, which no shape tells, and a note if it is assumed: heads of 64 channels.

    Args:
        known: what is known of the model beside its tensors.
        width: channels of the encoder.
    """
    if heads := known.get('num_heads', _dict(known.get('config.json')).get('num_attention_heads')):
        return heads, []
    heads = max(width // 64, 1)
    return heads, [f'the file does not tell the number of heads of its text encoder, {heads} of 64 channels are taken']


def _stated(source: Source) -> dict[str, Any]:
    """What a CLIP's keys or a config file beside it tell: ``act``, ``eps`` and ``causal``.

    Raises:
        ValueError: its text tower is one that ours is not.
    """
    if {'input_resolution', 'context_length', 'vocab_size'} <= source.keys:
        return {'act': 'quick_gelu'}  # OpenAI's own files
    folder = Path(source.path).expanduser().parent
    if '://' in str(source.path):
        return {}
    if config := _dict(_json(folder / 'open_clip_config.json').get('model_cfg')):
        return _open_clip(config, _dict(config.get('text_cfg')), source)
    config = _json(folder / 'config.json')
    config = _dict(config.get('text_config')) or config
    if not str(config.get('model_type', '')).startswith('clip'):
        return {}
    act = config.get('hidden_act', 'quick_gelu')
    if act not in _ACTS.values():
        raise _other_tower(source, f'hidden_act {act!r}')
    return {'act': act, 'eps': config.get('layer_norm_eps', 1e-5)}


def _open_clip(config: dict[str, Any], text: dict[str, Any], source: Source) -> dict[str, Any]:
    """Settings that open_clip's model config states; ``text`` is its part for the text tower."""
    pool, end = text.get('pool_type', 'argmax'), text.get('vocab_size', 49408) - 1
    if pool != 'argmax' and (pool != 'eos' or text.get('eos_id', end) != end):
        raise _other_tower(source, f'pool_type {pool!r}')
    if text.get('act_kwargs'):
        raise _other_tower(source, f'act_kwargs {text["act_kwargs"]}')
    return {
        'act': 'quick_gelu' if config.get('quick_gelu') else 'gelu',
        'eps': _dict(text.get('norm_kwargs')).get('eps', 1e-5),
        'causal': not text.get('no_causal_mask', False),
    }


def _other_tower(source: Source, what: str) -> ValueError:
    return ValueError(
        f'the config beside {source.path} says {what} of its text tower, which CLIPTextTower does not have; use '
        'another checkpoint'
    )


def _json(file: Path) -> dict[str, Any]:
    """A JSON object; empty if the file is missing or none of transformers or open_clip."""
    try:
        content = json.loads(file.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return {}
    return _dict(content)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
