"""Perceiver IO in transformers' layout (``models/perceiver/modeling_perceiver.py``), to our names and back.

The public files are deepmind/language-perceiver, and of image classifiers vision-perceiver-fourier, -learned and -conv.
The first is a ``PerceiverMaskedLM``; the others are an ``ImageClassifier`` of mmpretrain: ``backbone.*``, ``neck.*``
for the query of the class, ``head.fc.*``.
"""

import math
import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .exporting import CONFIG, Exported, config_json, hold, register_export, require
from .renaming import Names, Skipped, Source, StateDict, any_key, register_format
from .settings import Setting, read_config

_IMAGES, _BYTES = 'Hugging Face Perceiver', 'Hugging Face Perceiver LM'
_LAYER = (
    ('.attention.self.layernorm1.', '.query_norm.'),
    ('.attention.self.layernorm2.', '.token_norm.'),
    ('.attention.output.dense.', '.output.'),
    ('.layernorm.', '.mlp.norm.'),
    ('.mlp.dense1.', '.mlp.fc1.'),
    ('.mlp.dense2.', '.mlp.fc2.'),
)
_READER = '^perceiver.encoder.cross_attention.'
_IMAGE_NAMES = Names(
    ('^perceiver.embeddings.latents$', '^backbone.encoder.latents$'),
    (_READER, '^backbone.encoder.cross_attend.'),
    ('^perceiver.encoder.self_attends.', '^backbone.encoder.self_attends.'),
    ('^perceiver.input_preprocessor.convnet_1x1.', '^backbone.stem.'),
    ('^perceiver.input_preprocessor.position_embeddings.position_embeddings$', '^backbone.absolute_pos_embed$'),
    ('^perceiver.input_preprocessor.positions_projection.', '^backbone.position_projection.'),
    ('^perceiver.input_preprocessor.convnet.conv.', '^backbone.stem.conv.'),
    ('^perceiver.input_preprocessor.convnet.batchnorm.', '^backbone.stem.norm.'),
    ('^perceiver.decoder.decoder.output_position_encodings.position_embeddings$', '^neck.queries$'),
    ('^perceiver.decoder.decoder.decoding_cross_attention.', '^neck.cross_attend.'),
    ('^perceiver.decoder.decoder.final_layer.', '^head.fc.'),
    *_LAYER,
)
_BYTE_NAMES = Names(
    ('^perceiver.embeddings.latents$', '^encoder.latents$'),
    (_READER, '^encoder.cross_attend.'),
    ('^perceiver.encoder.self_attends.', '^encoder.self_attends.'),
    ('^perceiver.input_preprocessor.embeddings.', '^word_embeddings.'),
    ('^perceiver.input_preprocessor.position_embeddings.', '^position_embeddings.'),
    ('^perceiver.decoder.output_position_encodings.position_embeddings$', '^queries$'),
    ('^perceiver.decoder.decoding_cross_attention.', '^cross_attend.'),
    ('^embedding_decoder.bias$', '^bias$'),
    *_LAYER,
)
_OUR_LAYER = r'(query_norm|token_norm|query|key_value|output|mlp\.(norm|fc1|fc2))\.(weight|bias)$'
_OUR_ENCODER = rf'encoder\.(latents$|cross_attend\.{_OUR_LAYER}|self_attends\.\d+\.{_OUR_LAYER})'
_OUR_IMAGES = (
    rf'^(backbone\.({_OUR_ENCODER}|stem\.|absolute_pos_embed$|position_projection\.)|neck\.(queries$|cross_attend\.'
    rf'{_OUR_LAYER})|head\.fc\.)'
)
_OUR_BYTES = rf'^({_OUR_ENCODER}|(word|position)_embeddings\.weight$|queries$|cross_attend\.{_OUR_LAYER}|bias$)'
_POSITIONS = 'backbone.absolute_pos_embed'
#: What transformers has beside the sizes of a config: bands, pixels, and the decoder of bytes.
_BANDS, _PIXELS, _BYTE_HEADS, _BYTE_CHANNELS = 64, 224, 8, 256


# --- settings ---------------------------------------------------------------------------------------------------------


def _attribute(name: str, beside: str) -> Callable[[nn.Module], Any]:
    """A function that reads an attribute of modules that have another, too."""
    return lambda module: getattr(module, name, None) if hasattr(module, beside) else None


def _pixels(module: nn.Module) -> int | tuple[int, int] | None:
    """``img_size`` of a Perceiver with Fourier features."""
    if getattr(module, 'inputs', None) not in ('fourier', 'conv'):
        return None
    stride = 4 if module.inputs == 'conv' else 1
    height, width = (stride * side for side in module.patches_resolution)
    return height if height == width else (height, width)


def _settings(blocks: int, heads: int, cross_heads: int, decoder_heads: int) -> Iterable[Setting]:
    yield Setting('num_blocks', r'(^|\.)encoder$', _attribute('num_blocks', 'num_reads'), (blocks,))
    yield Setting('num_reads', r'(^|\.)encoder$', _attribute('num_reads', 'num_blocks'), (1,))
    for argument, modules, number in (
        ('num_heads', r'(^|\.)encoder\.self_attends\.\d+$', heads),
        ('cross_heads', r'(^|\.)encoder\.cross_attend$', cross_heads),
        ('heads of the decoder', r'^(neck\.)?cross_attend$', decoder_heads),
    ):
        yield Setting(argument, modules, _attribute('num_heads', 'qk_channels'), (number,))


def _told(source: Source) -> dict[str, Any]:
    config = {} if '://' in str(source.path) else read_config(Path(source.path).expanduser().parent / CONFIG)
    return config if config.get('model_type') == 'perceiver' else {}


def image_settings(source: Source) -> Iterable[Setting]:
    """Settings of image classifiers, as the ``config.json`` beside the weights says; without it those published."""
    config = _told(source)
    yield from _settings(
        config.get('num_blocks', 8),
        config.get('num_self_attention_heads', 8),
        config.get('num_cross_attention_heads', 1),
        1,
    )
    yield Setting('num_bands', '', _attribute('num_bands', 'patches_resolution'), (_BANDS,))
    yield Setting('img_size', r'^(backbone)?$', _pixels, (_PIXELS,))
    yield Setting(
        'query_residual of the decoder', r'^neck\.cross_attend$', _attribute('query_residual', 'qk_channels'), (True,)
    )


def byte_settings(source: Source) -> Iterable[Setting]:
    """Settings of masked language models, by the ``config.json`` beside the weights; without it those published."""
    config = _told(source)
    return _settings(
        config.get('num_blocks', 1),
        config.get('num_self_attention_heads', 8),
        config.get('num_cross_attention_heads', 8),
        _BYTE_HEADS,
    )


def _for_config(settings: Iterable[Setting]) -> tuple[Setting, ...]:
    """Settings that transformers reads from its config are not compared with what it computes."""
    free = ('num_blocks', 'num_heads', 'cross_heads')
    return tuple(Setting(s.argument, s.modules, s.read, ()) if s.argument in free else s for s in settings)


# --- to our names -----------------------------------------------------------------------------------------------------


@register_format(
    _IMAGES,
    lambda keys: any_key(keys, r'^perceiver\.decoder\.decoder\.decoding_cross_attention\.'),
    settings=image_settings,
)
def convert_perceiver_classifier(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert ``PerceiverForImageClassification{Fourier,Learned,ConvProcessing}``."""
    ours = _joined(_IMAGE_NAMES.to_ours(state))
    if _POSITIONS in ours:
        ours[_POSITIONS] = ours[_POSITIONS][None]
    return ours, {}


@register_format(
    _BYTES,
    lambda keys: any_key(keys, r'^perceiver\.decoder\.decoding_cross_attention\.') and 'embedding_decoder.bias' in keys,
    settings=byte_settings,
)
def convert_perceiver_lm(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert ``PerceiverForMaskedLM``."""
    return _joined(_BYTE_NAMES.to_ours(state)), {}


def _joined(state: StateDict) -> StateDict:
    """Join the projections to keys and values of each layer."""
    joined = {}
    for key, value in state.items():
        match = re.match(r'(.*)\.attention\.self\.(query|key|value)\.(weight|bias)$', key)
        if not match:
            joined[key] = value
            continue
        layer, name, what = match.groups()
        if name == 'query':
            joined[f'{layer}.query.{what}'] = value
        elif name == 'key':
            values = f'{layer}.attention.self.value.{what}'
            require(state, values)
            joined[f'{layer}.key_value.{what}'] = torch.cat([value, state[values]])
    return joined


# --- out of ours ------------------------------------------------------------------------------------------------------


def is_perceiver_classifier(keys: Collection[str]) -> bool:
    """Whether our keys are those of an image classifier whose neck decodes the latents of a Perceiver."""
    return any_key(keys, r'^backbone\.encoder\.cross_attend\.key_value\.') and any_key(keys, r'^neck\.cross_attend\.')


def is_perceiver_lm(keys: Collection[str]) -> bool:
    """Whether our keys are those of a ``PerceiverMaskedLM``."""
    return any_key(keys, r'^encoder\.cross_attend\.key_value\.') and {'queries', 'word_embeddings.weight'} <= set(keys)


@register_export(
    _IMAGES, is_perceiver_classifier, settings=_for_config(image_settings(Source('://'))), model_types=('perceiver',)
)
def export_perceiver_classifier(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write an image classifier of transformers with its config.

    Raises:
        ValueError: it is none of the three, or a part has other sizes.
    """
    _check_encoder(state, 'backbone.')
    require(state, 'neck.queries', 'head.fc.weight', 'head.fc.bias')
    kept, left_out = hold(state, _OUR_IMAGES, 'transformers')
    queries, classes = kept['neck.queries'], kept['head.fc.weight']
    latents = kept['backbone.encoder.latents']
    if queries.shape != (1, latents.shape[1]):
        raise ValueError(f'its queries are {tuple(queries.shape)}, and transformers has one of {latents.shape[1]}')
    positions = kept.get(_POSITIONS)
    sizes = {'image_size': _PIXELS}
    if positions is not None:
        side = math.isqrt(positions.shape[1])
        if side**2 != positions.shape[1] or positions.shape[2] != 256:
            raise ValueError(
                f'its learned positions are {tuple(positions.shape[1:])}, and transformers has those of a square of '
                'pixels with 256 channels'
            )
        sizes, kept[_POSITIONS] = {'image_size': side}, positions[0]
    elif (stem := kept.get('backbone.stem.conv.weight')) is not None and len(stem) != 64:
        raise ValueError(f'its convolution has {len(stem)} channels, and that of transformers 64')
    kind = 'Learned' if positions is not None else 'ConvProcessing' if stem is not None else 'Fourier'
    config = _config(kept, 'backbone.', settings, f'PerceiverForImageClassification{kind}', sizes)
    names = {str(number): f'LABEL_{number}' for number in range(len(classes))}
    before = config.get('id2label')
    if not isinstance(before, dict) or len(before) != len(classes):
        config |= {'id2label': names, 'label2id': {name: int(number) for number, name in names.items()}}
    return Exported(_IMAGE_NAMES.to_theirs(_split(kept)), left_out, {}, config)


@register_export(
    _BYTES, is_perceiver_lm, settings=_for_config(byte_settings(Source('://'))), model_types=('perceiver',)
)
def export_perceiver_lm(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write ``PerceiverForMaskedLM`` with its config.

    Raises:
        ValueError: its decoder has other sizes than that of transformers.
    """
    _check_encoder(state, '')
    require(state, 'position_embeddings.weight', 'bias', 'cross_attend.query.weight')
    kept, left_out = hold(state, _OUR_BYTES, 'transformers')
    if (channels := len(kept['cross_attend.query.weight'])) != _BYTE_CHANNELS:
        raise ValueError(
            f'its decoder has {channels} channels of queries and keys (decoder_qk_channels), and that of transformers '
            f'{_BYTE_CHANNELS}'
        )
    words, positions = kept['word_embeddings.weight'], kept['position_embeddings.weight']
    sizes = {'vocab_size': len(words), 'max_position_embeddings': len(positions)}
    config = _config(kept, '', settings, 'PerceiverForMaskedLM', sizes)
    return Exported(_BYTE_NAMES.to_theirs(_split(kept)), left_out, {}, config)


def _check_encoder(state: StateDict, prefix: str) -> None:
    require(state, *(f'{prefix}encoder.{name}' for name in ('latents', 'self_attends.0.query.weight')))
    if any_key(state, r'encoder\.next_cross_attend\.'):
        raise ValueError('its latents read the tokens more than once (num_reads), and those of transformers once')


def _config(
    state: StateDict, prefix: str, known: dict[str, Any], architecture: str, sizes: dict[str, int]
) -> dict[str, Any]:
    """What transformers builds the model from; heads and blocks are settings that no tensor tells."""
    reads, block = (f'{prefix}encoder.{name}' for name in ('cross_attend', 'self_attends.0'))
    latents = state[f'{prefix}encoder.latents']
    queries, keys_values = state[f'{block}.query.weight'], state[f'{block}.key_value.weight']
    token_dims = state[f'{reads}.key_value.weight'].shape[1]
    # the channels of both attentions are one argument, without which they are those of the tokens or the latents
    own = {len(state[f'{reads}.query.weight']), len(queries)} == {token_dims, latents.shape[1]}
    values = len(keys_values) - len(queries)
    fixed = {
        'architectures': [architecture],
        'model_type': 'perceiver',
        'num_latents': len(latents),
        'd_latents': latents.shape[1],
        'd_model': token_dims,
        'num_self_attends_per_block': len(
            {key for key in state if re.search(r'self_attends\.\d+\.query\.weight', key)}
        ),
        'qk_channels': None if own else len(queries),
        'v_channels': None if own else values,
        'cross_attention_widening_factor': len(state[f'{reads}.mlp.fc1.weight']) // latents.shape[1],
        'self_attention_widening_factor': len(state[f'{block}.mlp.fc1.weight']) // latents.shape[1],
        **sizes,
    }
    names = {
        'num_blocks': 'num_blocks',
        'num_self_attention_heads': 'num_heads',
        'num_cross_attention_heads': 'cross_heads',
    }
    bytes_alone = {'num_blocks': 1, 'num_self_attention_heads': 8, 'num_cross_attention_heads': 8}
    published = bytes_alone if not prefix else {**bytes_alone, 'num_blocks': 8, 'num_cross_attention_heads': 1}
    told = {theirs: known[ours] for theirs, ours in names.items() if ours in known}
    return config_json(known, fixed | told, published)


def _split(state: StateDict) -> StateDict:
    """Split the projections to keys and values of each layer, the inverse of :func:`_joined`."""
    split = {}
    for key, value in state.items():
        match = re.match(r'(.*)\.(query|key_value)\.(weight|bias)$', key)
        if not match:
            split[key] = value
            continue
        layer, name, what = match.groups()
        if name == 'query':
            split[f'{layer}.attention.self.query.{what}'] = value
            continue
        channels = len(state[f'{layer}.query.weight'])  # keys have as many as queries
        for part, rows in (('key', value[:channels]), ('value', value[channels:])):
            split[f'{layer}.attention.self.{part}.{what}'] = rows.clone()
    return split
