"""Settings of text encoders by checkpoint format: activation, epsilon of the norms, and which tokens attention sees.

Sources: CLIP ``clip/model.py``; open_clip's model configs (``quick_gelu``); transformers ``CLIPTextConfig`` and
``RobertaConfig``; UniCL ``model/text_encoder/transformer.py``; MedImageInsight ``config.yaml`` (``AUTOGRESSIVE``);
METER ``meter_module.py``, whose layers have ``BertConfig``'s epsilon.
"""

import json
from collections.abc import Iterable
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
    """Settings of CLIP's text tower; the activation as a config file beside the weights says, or open without one."""
    act = _stated_act(source)
    return _tower((act,) if act else ('quick_gelu', 'gelu'), 1e-5, True, _WHOSE_ACT)


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


def _stated_act(source: Source) -> str | None:
    """The activation of a CLIP that its keys or a config file beside it tell."""
    if {'input_resolution', 'context_length', 'vocab_size'} <= source.keys:
        return 'quick_gelu'  # OpenAI's own files
    folder = Path(source.path).expanduser().parent
    if '://' not in str(source.path):
        if config := _json(folder / 'open_clip_config.json').get('model_cfg'):
            return 'quick_gelu' if config.get('quick_gelu') else 'gelu'
        config = _json(folder / 'config.json')
        config = config.get('text_config') or config
        if str(config.get('model_type', '')).startswith('clip'):
            return {'gelu': 'gelu', 'quick_gelu': 'quick_gelu'}.get(config.get('hidden_act', 'quick_gelu'))
    return None


def _json(file: Path) -> dict[str, Any]:
    """A JSON object; empty if the file is missing or none of transformers or open_clip."""
    try:
        content = json.loads(file.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
