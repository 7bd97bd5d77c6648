"""Florence-2's public checkpoints, in the layout of its own code and in that of transformers, to our names and back.

Sources of the layouts: ``modeling_florence2.py`` beside the weights of microsoft/Florence-2; transformers
``models/florence2/modeling_florence2.py``. The image encoder of both is DaViT, and the text part BART, whose output
layer is the word embeddings. Our head is named ``tasks``.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .bert_layers import join_projections, split_projections
from .classifiers import is_davit
from .clip_settings import as_dict
from .davit import (
    DAVIT_SIZES,
    davit_config,
    davit_settings,
    from_florence,
    from_hugging_face,
    take_davit,
    to_florence,
    to_hugging_face,
)
from .exporting import CONFIG, Exported, config_json, hold, register_export, require
from .formats import keep
from .renaming import Names, Skipped, Source, StateDict, add_prefix, any_key, pop_prefix, register_format
from .settings import Setting, read_config
from .text_settings import head_count

_WORDS, _BIAS = 'encoder.embeddings.word_embeddings.weight', 'heads.tasks.bias'
_PROJECTION = 'image_projector.dense.weight'
_STEPS = 100  # of the cosine embeddings of time, of which pictures have the first
#: BART's, of encoder and decoder alike.
_STACK = Names(
    # first, so that on the way back they are renamed last, when the outputs of attentions have their names
    ('.fc2.', '.output.dense.'),
    ('.final_layer_norm.', '.output.LayerNorm.'),
    ('.embed_positions.', '.embeddings.position_embeddings.'),
    ('.layernorm_embedding.', '.embeddings.LayerNorm.'),
    ('.self_attn.q_proj.', '.attention.self.query.'),
    ('.self_attn.k_proj.', '.attention.self.key.'),
    ('.self_attn.v_proj.', '.attention.self.value.'),
    ('.self_attn.out_proj.', '.attention.output.dense.'),
    ('.self_attn_layer_norm.', '.attention.output.LayerNorm.'),
    ('.encoder_attn.q_proj.', '.crossattention.self.query.'),
    ('.encoder_attn.k_proj.', '.crossattention.self.key.'),
    ('.encoder_attn.v_proj.', '.crossattention.self.value.'),
    ('.encoder_attn.out_proj.', '.crossattention.output.dense.'),
    ('.encoder_attn_layer_norm.', '.crossattention.output.LayerNorm.'),
    ('.fc1.', '.intermediate.dense.'),
)
_PROJECTOR = Names(
    ('^image_pos_embed.row_embeddings.', '^image_projector.rows.'),
    ('^image_pos_embed.column_embeddings.', '^image_projector.columns.'),
    ('^image_proj_norm.', '^image_projector.norm.'),
    ('^image_projection$', f'^{_PROJECTION}$'),
)
_HF_PROJECTOR = Names(
    ('^image_position_embed.row_embeddings.', '^image_projector.rows.'),
    ('^image_position_embed.column_embeddings.', '^image_projector.columns.'),
    ('^image_proj_norm.', '^image_projector.norm.'),
    ('^image_projection.', '^image_projector.dense.'),
)
_TIME = 'visual_temporal_embed.pos_idx_to_embed'
_TEXT, _HF_TEXT = 'language_model.model.', 'model.language_model.'
_HF_IMAGE, _HF_BETWEEN = 'model.vision_tower.', 'model.multi_modal_projector.'
#: Copies of the word embeddings in a whole file, behind the prefix of the text part.
_COPIES = ('encoder.embed_tokens.weight', 'decoder.embed_tokens.weight')
_OURS = (
    r'^((encoder|decoder)\.(embeddings\.(position_embeddings|LayerNorm)\.|layers\.\d+\.(attention|crossattention'
    r'|intermediate|output)\.)|encoder\.embeddings\.word_embeddings\.|image_projector\.)'
)
_PARTS = ('encoder', 'decoder')
_HEAD_WIDTH = 64
_FIXED = ('channel_scale', 'position_offset', 'layer_norm_eps')  # what transformers computes with, too
_RELEASED = Source('florence-2://')  # settings of released weights, beside which no config.json is looked for
_TIED = 'the word embeddings, to which the head is tied'
_HEADS = 'num_heads of the text stacks'


# --- settings ---------------------------------------------------------------------------------------------------------


def _head_width(module: nn.Module) -> int | None:
    """Channels of a head of self-attention; None for a stack too narrow to be a released one."""
    width = module.qkv.in_features
    return width // module.num_heads if width >= _HEAD_WIDTH else None


def _of(name: str) -> Any:
    return lambda module: getattr(module, name, None)


def _text(heads: Setting) -> Iterable[Setting]:
    yield Setting('position_offset', r'^(en|de)coder\.embeddings$', _of('position_offset'), (2,))
    yield Setting('layer_norm_eps', r'^((en|de)coder|image_projector)\..*(LayerNorm|norm)$', _of('eps'), (1e-5,))
    yield heads


def _heads(*accepted: int) -> Setting:
    return Setting(_HEADS, r'^(en|de)coder\.layers\.\d+\.attention$', _of('num_heads'), accepted)


def florence_settings(source: Source) -> Iterable[Setting]:
    """Settings of Florence-2: heads of 64 channels, and those of its image encoder."""
    width = 'hidden_size / num_heads of the text stacks'
    heads = Setting(width, r'^(en|de)coder\.layers\.\d+\.attention$', _head_width, (_HEAD_WIDTH,))
    return (*davit_settings(source), *_text(heads))


def hf_florence_settings(source: Source) -> Iterable[Setting]:
    """Settings of transformers' Florence-2, as the ``config.json`` beside the weights says; without one Florence-2's.

    Raises:
        ValueError: the config is that of a model that ours is not.
    """
    config = {} if '://' in str(source.path) else read_config(Path(source.path).expanduser().parent / CONFIG)
    text = as_dict(config.get('text_config'))
    if config.get('model_type') != 'florence2' or 'encoder_attention_heads' not in text:
        return florence_settings(source)
    heads = text['encoder_attention_heads']
    for name, right in (
        ('scale_embedding', False),
        ('activation_function', 'gelu'),
        ('decoder_attention_heads', heads),
    ):
        if (value := text.get(name, right)) != right:
            raise ValueError(
                f'the config beside {source.path} says {name}={value!r}, and our Florence-2 computes with {right!r}; '
                'use another checkpoint'
            )
    return (*davit_settings(source), *_text(_heads(heads)))


# --- to our names -----------------------------------------------------------------------------------------------------


register_format('florence_mm Florence-2', lambda keys: any_key(keys, r'^image_projector\.rows\.'))(keep)


@register_format(
    'Florence-2',
    lambda keys: any_key(keys, r'^image_proj_norm\.') and any_key(keys, r'^language_model\.model\.encoder\.layers\.'),
    settings=florence_settings,
)
def convert_florence(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert Florence-2 as its own code writes it."""
    state = dict(state)
    image = from_florence(pop_prefix(state, r'vision_tower\.'))
    bias = state.pop('language_model.final_logits_bias', None)
    text, skipped = _take_text(state, _TEXT, 'language_model.lm_head.weight')
    if state.pop(_TIME, None) is not None:
        skipped[_TIME] = 'computed by the model'
    between = _PROJECTOR.to_ours(state)
    if _PROJECTION in between:
        between[_PROJECTION] = between[_PROJECTION].t().contiguous()
    text[_BIAS] = torch.zeros(len(text[_WORDS])) if bias is None else bias.reshape(-1)
    return {**add_prefix(image, 'image_encoder.'), **between, **text}, skipped


@register_format(
    'Hugging Face Florence-2',
    lambda keys: (
        any_key(keys, r'^model\.multi_modal_projector\.image_proj_norm\.')
        and any_key(keys, r'^model\.language_model\.encoder\.layers\.')
    ),
    settings=hf_florence_settings,
)
def convert_hf_florence(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert transformers' ``Florence2ForConditionalGeneration``, which has no bias on the logits.

    A last row of zeros in the word embeddings, which our export adds for the image mark, is left out.
    """
    state = dict(state)
    image = from_hugging_face(pop_prefix(state, _HF_IMAGE.replace('.', r'\.')))
    text, skipped = _take_text(state, _HF_TEXT, 'lm_head.weight')
    between = pop_prefix(state, _HF_BETWEEN.replace('.', r'\.'))
    if between.pop(_TIME, None) is not None:
        skipped[_HF_BETWEEN + _TIME] = 'computed by the model'
    if not bool(text[_WORDS][-1].any()):
        text[_WORDS] = text[_WORDS][:-1]
    text[_BIAS] = torch.zeros(len(text[_WORDS]))
    return {**add_prefix(image, 'image_encoder.'), **_HF_PROJECTOR.to_ours(between), **text, **state}, skipped


def _take_text(state: StateDict, prefix: str, output: str) -> tuple[StateDict, Skipped]:
    """Take encoder, decoder and words out of a state, under our names.

    Raises:
        ValueError: there are no word embeddings, or copies of them differ.
    """
    part, skipped = pop_prefix(state, prefix.replace('.', r'\.')), {}
    found = {prefix + key: part.pop(key) for key in ('shared.weight', *_COPIES) if key in part}
    if output in state:
        found[output] = state.pop(output)
    if not found:
        raise ValueError(f'it lacks {prefix}shared.weight, so that it is not whole')
    (first, words), *copies = found.items()
    for key, copy in copies:
        if not torch.equal(copy, words):
            raise ValueError(f'its {key} is not tied to the word embeddings {first}, which Florence-2 needs')
        skipped[key] = _TIED if key == output else f'the same as {first}'
    return {_WORDS: words, **join_projections(_STACK.to_ours(part))}, skipped


# --- out of ours ------------------------------------------------------------------------------------------------------


def _is_florence(keys: Collection[str]) -> bool:
    return any_key(keys, r'^image_projector\.rows\.') and any_key(keys, r'^decoder\.layers\.\d+\.crossattention\.')


def _split(state: StateDict, layout: str) -> tuple[StateDict, StateDict, StateDict, Tensor, Tensor, Skipped]:
    """Take a Florence-2 apart: image encoder, projector, text stacks, words, bias, and what is left out.

    Raises:
        ValueError: a part is none of the public code.
    """
    image = pop_prefix(state, r'image_encoder\.')
    if not is_davit(image):
        raise ValueError("Florence-2's public code takes DaViT, and this has another image encoder")
    image, left_out = take_davit(image, layout, (3,))
    left_out = add_prefix(left_out, 'image_encoder.')
    names = {key.split('.')[1] for key in state if key.startswith('heads.')}
    if len(names) != 1 or any_key(state, r'^heads\.[^.]*\.(?!bias$)'):
        raise ValueError('it has more or other heads than one tied to the words, which is all that Florence-2 has')
    bias = state.pop(f'heads.{names.pop()}.bias')
    require(state, _WORDS, _PROJECTION)
    kept, more = hold(state, _OURS, layout)
    if wrong := next((key for key in more if key.startswith(('encoder.', 'decoder.'))), None):
        raise ValueError(f'it has {wrong}, which is in no Florence-2 of the public code')
    words, between = kept.pop(_WORDS), {key: kept.pop(key) for key in [*kept] if key.startswith('image_projector.')}
    return image, between, _STACK.to_theirs(split_projections(kept)), words, bias, left_out | more


def _time(width: int) -> Tensor:
    """The cosine embeddings of time ``(100, width)``, which both packages keep beside the weights."""
    half = width // 2
    rates = torch.exp(torch.arange(half, dtype=torch.int64).float() * -(math.log(10000) / half))
    angles = torch.arange(_STEPS, dtype=torch.float)[:, None] * rates[None]
    table = torch.empty(_STEPS, width)
    table[:, 0::2], table[:, 1::2] = torch.sin(angles), torch.cos(angles)
    return table


@register_export('Florence-2', _is_florence, settings=florence_settings(_RELEASED))
def export_florence(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write Florence-2 as its own code reads it.

    Raises:
        ValueError: the image encoder is no DaViT, or a part is none of Florence-2's.
    """
    image, between, text, words, bias, left_out = _split(dict(state), 'Florence-2')
    projection = between[_PROJECTION]
    between[_PROJECTION] = projection.t().contiguous()
    theirs = {
        **add_prefix(to_florence(image), 'vision_tower.'),
        **_PROJECTOR.to_theirs(between),
        _TIME: _time(projection.shape[1]),
        **add_prefix({'shared.weight': words, **dict.fromkeys(_COPIES, words), **text}, _TEXT),
        'language_model.lm_head.weight': words,
        'language_model.final_logits_bias': bias[None],
    }
    return Exported(theirs, left_out)


#: What its config.json tells, and what it does not.
_HF_SETTINGS = (_heads(), *DAVIT_SIZES, *(s for s in florence_settings(_RELEASED) if s.argument in _FIXED))


@register_export('Hugging Face Florence-2', _is_florence, settings=_HF_SETTINGS, model_types=('florence2',))
def export_hf_florence(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write transformers' ``Florence2ForConditionalGeneration`` with its config.

    Its word embeddings need a row for the mark that stands for the image in its prompts: where the source is not
    transformers' own, one of zeros is put behind the others.

    Raises:
        ValueError: the image encoder is no DaViT, a part is none of Florence-2's, or there is a bias on the logits.
    """
    image, between, text, words, bias, left_out = _split(dict(state), 'transformers')
    if bool(bias.any()):
        raise ValueError('its bias on the logits is not 0, and transformers has none; write it as Florence-2')
    before, notes = as_dict(settings.get(CONFIG)), []
    mark = before.get('image_token_id') if before.get('model_type') == 'florence2' else None
    if mark is None or not mark < len(words):
        mark, words = len(words), torch.cat([words, words.new_zeros(1, words.shape[1])])
        notes.append(f'the words got a row of zeros, {mark}, for the mark of an image, whose logit is 0')
    config, more = _config(image, between, text, words, mark, settings)
    time = _time(between[_PROJECTION].shape[1])
    theirs = {
        **add_prefix(to_hugging_face(image), _HF_IMAGE),
        **add_prefix({**_HF_PROJECTOR.to_theirs(between), _TIME: time}, _HF_BETWEEN),
        **add_prefix({'shared.weight': words, **text}, _HF_TEXT),
    }
    absent = dict.fromkeys((*(_HF_TEXT + copy for copy in _COPIES), 'lm_head.weight'), 'tied by transformers')
    return Exported(theirs, left_out, absent, config, notes + more)


def _config(
    image: StateDict, between: StateDict, text: StateDict, words: Tensor, mark: int, known: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    before = as_dict(known.get(CONFIG))
    known_text = as_dict(before.get('text_config'))
    told = {'num_heads': known.get(_HEADS, known_text.get('encoder_attention_heads'))}
    heads, notes = head_count({key: value for key, value in told.items() if value}, words.shape[1], 'text stacks')
    vision = davit_config(image, {**known, CONFIG: as_dict(before.get('vision_config'))})
    vision.pop('architectures')
    vision |= {
        'projection_dim': len(between[_PROJECTION]),
        'max_position_embeddings': len(between['image_projector.rows.weight']),
        'max_temporal_embeddings': _STEPS,
    }
    layers = {part: {key.split('.')[2] for key in text if key.startswith(f'{part}.layers.')} for part in _PARTS}
    sizes = {f'{part}_layers': len(layers[part]) for part in _PARTS}
    sizes |= {f'{part}_ffn_dim': len(text[f'{part}.layers.0.fc1.weight']) for part in _PARTS}
    marks = {'bos_token_id': 0, 'pad_token_id': 1, 'eos_token_id': 2, 'decoder_start_token_id': 2}
    text_config = {
        'model_type': 'bart',
        'vocab_size': len(words),
        'd_model': words.shape[1],
        'max_position_embeddings': len(text['encoder.embed_positions.weight']) - 2,
        **{f'{part}_attention_heads': heads for part in _PARTS},
        **sizes,
    }
    fixed = {
        'architectures': ['Florence2ForConditionalGeneration'],
        'model_type': 'florence2',
        'image_token_id': mark,
        'is_encoder_decoder': True,
        'vision_config': vision,
        'text_config': {**marks, **known_text, **text_config},
    }
    return config_json(known, fixed, {'tie_word_embeddings': True}), notes
