"""open_flamingo's checkpoints to our names and back.

Source of the layout: open_flamingo ``src/helpers.py``, ``src/flamingo_lm.py`` and ``train/train_utils.py``. Files hold
what was trained, the resampler and the gated blocks, and tables of words, into which those of the language model are
copied with the marks behind them. Blocks are ``lang_encoder.gated_cross_attn_layers.N``, or in files of its training
``lang_encoder.LAYERS.N.gated_cross_attn_layer``. Image encoder and language model come from their own checkpoints.
"""

import re
from collections.abc import Collection, Iterable
from typing import Any

import torch

from .clip_settings import of_class
from .exporting import Exported, hold, register_export
from .renaming import Names, Skipped, Source, StateDict, any_key, register_format
from .settings import Setting

_NAMES = Names(
    ('^perceiver.', '^resampler.'),  # the others are of what this makes
    ('^resampler.frame_embs$', '^resampler.frame_embeddings$'),
    ('^resampler.layers.#.0.norm_media.', '^resampler.layers.#.token_norm.'),
    ('^resampler.layers.#.0.norm_latents.', '^resampler.layers.#.query_norm.'),
    ('^resampler.layers.#.0.to_q.', '^resampler.layers.#.query.'),
    ('^resampler.layers.#.0.to_kv.', '^resampler.layers.#.key_value.'),
    ('^resampler.layers.#.0.to_out.', '^resampler.layers.#.output.'),
    ('^resampler.layers.#.1.0.', '^resampler.layers.#.mlp.norm.'),
    ('^resampler.layers.#.1.1.', '^resampler.layers.#.mlp.fc1.'),
    ('^resampler.layers.#.1.3.', '^resampler.layers.#.mlp.fc2.'),
    ('^lang_encoder.gated_cross_attn_layers.#.attn.norm.', '^blocks.#.query_norm.'),
    ('^lang_encoder.gated_cross_attn_layers.#.attn.to_q.', '^blocks.#.query.'),
    ('^lang_encoder.gated_cross_attn_layers.#.attn.to_kv.', '^blocks.#.key_value.'),
    ('^lang_encoder.gated_cross_attn_layers.#.attn.to_out.', '^blocks.#.output.'),
    ('^lang_encoder.gated_cross_attn_layers.#.ff.0.', '^blocks.#.mlp.norm.'),
    ('^lang_encoder.gated_cross_attn_layers.#.ff.1.', '^blocks.#.mlp.fc1.'),
    ('^lang_encoder.gated_cross_attn_layers.#.ff.3.', '^blocks.#.mlp.fc2.'),
    ('^lang_encoder.gated_cross_attn_layers.#.attn_gate$', '^blocks.#.attn_gate$'),
    ('^lang_encoder.gated_cross_attn_layers.#.ff_gate$', '^blocks.#.mlp_gate$'),
    ('^lang_encoder.', '^language_model.model.'),
)
_IN_LAYERS = re.compile(r'^lang_encoder\..*\.(\d+)\.gated_cross_attn_layer\.')
_DECODER = re.compile(r'\.(\d+)\.decoder_layer\.')
_WORDS = re.compile(r'^language_model\.model\.(.*\.)?(embed_tokens|wte|embed_in)\.weight$')
_OUTPUTS = re.compile(r'^language_model\.model\.(lm_head|embed_out)\.weight$')
_MARKS, _MARK_OUTPUTS = 'marks.marks', 'marks.mark_outputs'
_NUM_MARKS = 2
#: Words of public tokenizers without a padding token, behind whose marks open_flamingo puts one.
_WITHOUT_PADDING = (32000, 50257, 50277)


def open_flamingo_settings(source: Source) -> Iterable[Setting]:
    """Settings of open_flamingo's code, which are in it and in no file."""
    yield Setting('act', '', of_class('FlorenceFlamingo', 'act'), ('gelu',))
    yield Setting('head_dims', r'^(blocks\.\d+|resampler\.layers\.\d+)$', _head_dims, (64,))


#: Words of the tokenizer, behind which the marks stand; a language model may have more rows.
_NUM_WORDS = Setting('num_words', r'^marks$', of_class('WordsAndMarks', 'num_words'), ())


def _head_dims(module: torch.nn.Module) -> int | None:
    heads = of_class('LatentAttention', 'num_heads')(module)
    return None if heads is None else module.qk_channels // heads


@register_format(
    'open_flamingo',
    lambda keys: 'perceiver.latents' in keys and any_key(keys, r'^lang_encoder\..*gated_cross_attn_layer'),
    settings=open_flamingo_settings,
    optional_parts={r'^resampler\.frame_embeddings$': 'num_frames of the resampler to the number of its frames'},
    more_rows=f'{_WORDS.pattern}|{_OUTPUTS.pattern}',
)
def convert_open_flamingo(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert open_flamingo's model, whole or as its training writes it.

    Raises:
        ValueError: it has learned vectors of the order of pictures, which ours lacks, or no table of words.
    """
    if 'perceiver.media_time_embs' in state:
        raise ValueError('its resampler has media_time_embs, vectors of the order of pictures, which Flamingo has not')
    skipped, theirs = {}, {}
    for key, value in state.items():
        if key.startswith('vision_encoder.'):
            skipped[key] = 'the frozen image encoder, which comes from its own checkpoint'
        elif key.startswith('lang_encoder.old_decoder_blocks.'):
            skipped[key] = 'another name of the layers of the language model'
        else:
            key = _IN_LAYERS.sub(r'lang_encoder.gated_cross_attn_layers.\1.', key)
            theirs[_DECODER.sub(r'.\1.', key)] = value
    ours = _NAMES.to_ours(theirs)
    words = next((key for key in ours if _WORDS.match(key)), None)
    if words is None:
        raise ValueError('it has no table of words, in which its marks are; use a checkpoint with lang_encoder.*embed*')
    marks = _marks_from(ours[words])
    ours[_MARKS] = ours[words][marks : marks + _NUM_MARKS]
    for key in [key for key in ours if _OUTPUTS.match(key)]:
        rows = ours[key][marks : marks + _NUM_MARKS]
        if not torch.equal(rows, ours[_MARKS]):
            ours[_MARK_OUTPUTS] = rows
        ours[key] = ours[key][:marks]
    if marks + _NUM_MARKS < len(ours[words]):
        skipped['<PAD>'] = 'the row behind the marks, which nothing reads'
    ours[words] = ours[words][:marks]
    return ours, skipped


def _marks_from(words: torch.Tensor) -> int:
    """Row of the first mark in a table of words."""
    padded = next((size for size in _WITHOUT_PADDING if len(words) == size + _NUM_MARKS + 1), None)
    return len(words) - _NUM_MARKS if padded is None else padded


def _is_flamingo(keys: Collection[str]) -> bool:
    return 'resampler.latents' in keys and any_key(keys, r'^blocks\.\d+\.attn_gate$')


@register_export('open_flamingo', _is_flamingo, settings=(*open_flamingo_settings(Source('')), _NUM_WORDS))
def export_open_flamingo(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write what open_flamingo's code reads: resampler, blocks, and the tables of words with the marks.

    Raises:
        ValueError: the language model is none of transformers, or its words are not there.
    """
    words = next((key for key in state if _WORDS.match(key)), None)
    if words is None or _MARKS not in state:
        other = any(key.startswith('language_model.') for key in state)
        advice = 'take one around such a model' if other else 'take a checkpoint of a model with keep_frozen=True'
        raise ValueError(
            'it has no word embeddings of a language model of transformers, into whose table open_flamingo puts the '
            f'marks; {advice}'
        )
    kept, left_out = hold(
        state, rf'^(resampler|blocks)\.|{_WORDS.pattern}|{_OUTPUTS.pattern}|embed_positions\.', 'open_flamingo'
    )
    number = settings.get('num_words', len(kept[words]))
    for key in [key for key in kept if _OUTPUTS.match(key)]:
        kept[key] = torch.cat([kept[key][:number], state.get(_MARK_OUTPUTS, state[_MARKS])])
    kept[words] = torch.cat([kept[words][:number], state[_MARKS]])
    left_out = {key: why for key, why in left_out.items() if key not in (_MARKS, _MARK_OUTPUTS)}
    return Exported(_NAMES.to_theirs(kept), left_out, {})
