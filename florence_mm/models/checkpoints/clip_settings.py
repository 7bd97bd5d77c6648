"""Settings of CLIP's towers that no tensor's shape tells: activation, epsilon of the norms, heads, mask.

Sources: CLIP ``clip/model.py``; open_clip's model configs (``open_clip_config.json``); transformers ``CLIPTextConfig``
and ``CLIPVisionConfig`` (``config.json``).
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torch import nn

from .renaming import Source
from .settings import Setting, read_config

_ACTS = ('quick_gelu', 'gelu')
_WHOSE_ACT = "'quick_gelu' belongs to OpenAI's weights, 'gelu' to most of open_clip's (LAION, DataComp)"
#: Names of the towers' classes.
TEXT, IMAGE = 'CLIPTextTower', 'CLIPVisionTower'
_HEAD_WIDTH = 64  # of all of OpenAI's towers
_OPENAI = {'act': ('quick_gelu',), 'width': (_HEAD_WIDTH,)}


def of_class(kind: str, name: str) -> Callable[[nn.Module], Any]:
    """A function that reads an attribute of modules of a class, by the class's name; it gives None for others."""

    def read(module: nn.Module) -> Any:
        found = any(cls.__name__ == kind for cls in type(module).__mro__)
        return getattr(module, name, None) if found else None

    return read


def _head_width(kind: str) -> Callable[[nn.Module], int | None]:
    """A function that reads the channels of a head of a tower; None for one too narrow to be a released CLIP's."""
    dims, heads = of_class(kind, 'embed_dims'), of_class(kind, 'num_heads')
    return lambda module: dims(module) // heads(module) if (dims(module) or 0) >= _HEAD_WIDTH else None


def _tower(kind: str, stated: dict[str, tuple], advice: str = '') -> Iterable[Setting]:
    """Settings of a tower; ``stated`` has accepted values by ``act``, ``eps``, ``width`` (of a head) and ``causal``."""
    what = ' of the image tower' if kind == IMAGE else ''
    settings = [
        Setting(f'norm_eps{what}', '', of_class(kind, 'norm_eps'), stated.get('eps', (1e-5,))),
        Setting(f'act{what}', '', of_class(kind, 'act'), stated.get('act', _ACTS), advice),
    ]
    if 'width' in stated:
        settings.append(Setting(f'embed_dims / num_heads{what}', '', _head_width(kind), stated['width']))
    if kind == TEXT:
        settings.append(Setting('causal', '', of_class(kind, 'causal'), stated.get('causal', (True,))))
    return settings


def text_tower(act: tuple[str, ...], eps: float, causal: bool) -> Iterable[Setting]:
    """Settings of a ``CLIPTextTower``."""
    return _tower(TEXT, {'act': act, 'eps': (eps,), 'causal': (causal,)})


def openai_image_tower() -> Iterable[Setting]:
    """Settings of a ``CLIPVisionTower`` with OpenAI's weights."""
    return _tower(IMAGE, _OPENAI)


def hugging_face_image_tower(config: dict[str, Any], source: Source) -> Iterable[Setting]:
    """Settings of a ``CLIPVisionTower`` as transformers' config of the tower says; without one, those of OpenAI's.

    Raises:
        ValueError: the tower is one that ours is not.
    """
    return _tower(IMAGE, _of_config(config, IMAGE, source) if config else _OPENAI, _WHOSE_ACT)


def clip_text_settings() -> Iterable[Setting]:
    """Settings of CLIP's text tower in general."""
    return _tower(TEXT, {}, _WHOSE_ACT)


def clip_settings(source: Source) -> Iterable[Setting]:
    """Settings of CLIP's towers, as a config file beside the weights says; without one the activation is open."""
    text, image = _stated(source)
    return [*_tower(TEXT, text, _WHOSE_ACT), *_tower(IMAGE, image, _WHOSE_ACT)]


def _stated(source: Source) -> tuple[dict[str, tuple], dict[str, tuple]]:
    """What a CLIP's keys or a config file beside it tell of its text and its image tower.

    Raises:
        ValueError: a tower is one that ours is not, or the config file is damaged.
    """
    if {'input_resolution', 'context_length', 'vocab_size'} <= source.keys:
        return _OPENAI, _OPENAI  # OpenAI's own files
    folder = Path(source.path).expanduser().parent
    if '://' in str(source.path):
        return {}, {}
    if config := as_dict(read_config(folder / 'open_clip_config.json').get('model_cfg')):
        act = ('quick_gelu',) if config.get('quick_gelu') else ('gelu',)
        return (
            {'act': act, **_open_clip_text(as_dict(config.get('text_cfg')), source)},
            {'act': act, **_open_clip_image(as_dict(config.get('vision_cfg')), source)},
        )
    config = read_config(folder / 'config.json')
    return tuple(_hugging_face(config, part, source) for part in ('text', 'vision'))


def _open_clip_text(text: dict[str, Any], source: Source) -> dict[str, tuple]:
    """Settings that open_clip's model config states of its text tower."""
    pool, end = text.get('pool_type', 'argmax'), text.get('vocab_size', 49408) - 1
    if pool != 'argmax' and (pool != 'eos' or text.get('eos_id', end) != end):
        raise _other_tower(source, f'pool_type {pool!r}', TEXT)
    if text.get('act_kwargs'):
        raise _other_tower(source, f'act_kwargs {text["act_kwargs"]}', TEXT)
    stated = {
        'eps': (as_dict(text.get('norm_kwargs')).get('eps', 1e-5),),
        'causal': (not text.get('no_causal_mask', False),),
    }
    if isinstance(text.get('width'), int) and text.get('heads'):
        stated['width'] = (text['width'] // text['heads'],)
    return stated


def _open_clip_image(vision: dict[str, Any], source: Source) -> dict[str, tuple]:
    """Settings that open_clip's model config states of its image tower."""
    if isinstance(vision.get('layers'), list) or 'timm_model_name' in vision:
        return {}  # no ViT of CLIP's, whose tensors are skipped
    for key, usual in (('pool_type', 'tok'), ('pos_embed_type', 'learnable'), ('final_ln_after_pool', False)):
        if vision.get(key, usual) != usual:
            raise _other_tower(source, f'{key} {vision[key]!r}', IMAGE)
    if vision.get('act_kwargs'):
        raise _other_tower(source, f'act_kwargs {vision["act_kwargs"]}', IMAGE)
    return {
        'eps': (as_dict(vision.get('norm_kwargs')).get('eps', 1e-5),),
        'width': (vision.get('head_width', _HEAD_WIDTH),),
    }


def _hugging_face(config: dict[str, Any], part: str, source: Source) -> dict[str, tuple]:
    """Settings that transformers' config states of a tower, ``'text'`` or ``'vision'``, of a whole CLIP or alone."""
    kind = IMAGE if part == 'vision' else TEXT
    config = as_dict(config.get(f'{part}_config')) or config
    named = str(config.get('model_type', ''))
    if not named.startswith('clip') or named not in ('clip', f'clip_{part}_model'):
        return {}
    return _of_config(config, kind, source)


def _of_config(config: dict[str, Any], kind: str, source: Source) -> dict[str, tuple]:
    act = config.get('hidden_act', 'quick_gelu')
    if act not in _ACTS:
        raise _other_tower(source, f'hidden_act {act!r}', kind)
    stated = {'act': (act,), 'eps': (config.get('layer_norm_eps', 1e-5),)}
    if config.get('hidden_size') and config.get('num_attention_heads'):
        stated['width'] = (config['hidden_size'] // config['num_attention_heads'],)
    return stated


def _other_tower(source: Source, what: str, kind: str) -> ValueError:
    part = 'text' if kind == TEXT else 'image'
    return ValueError(
        f'the config beside {source.path} says {what} of its {part} tower, which {kind} does not have; use '
        'another checkpoint'
    )


def as_dict(value: Any) -> dict[str, Any]:
    """A dict as it is; an empty one for anything else, as a file of JSON may hold."""
    return value if isinstance(value, dict) else {}
