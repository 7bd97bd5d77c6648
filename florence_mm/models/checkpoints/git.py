"""GIT's public checkpoints, in the layout of its code and in that of transformers, to our names and back.

Sources of the layouts: GenerativeImage2Text ``model.py`` and ``layers/decoder.py``; transformers
``models/git/modeling_git.py``. The image encoder of both is CLIP's ViT. The output layer of the words becomes the head
``caption``, tied to the word embeddings unless its weights differ from them.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .bert_layers import join_projections, split_projections
from .clip import FIXED_SHAPES, convert_vit, export_vit
from .clip_hugging_face import convert_hf_clip, to_hugging_face, vision_config
from .clip_settings import IMAGE, as_dict, hugging_face_image_tower, of_class, openai_image_tower
from .exporting import CONFIG, Exported, config_json, hold, register_export, require
from .renaming import Names, Skipped, Source, StateDict, add_prefix, any_key, pop_prefix, register_format
from .settings import Setting, read_config
from .text_settings import HEAD_WIDTH, head_count, head_setting, head_width, norm_eps

_WORDS = 'text_stack.embeddings.word_embeddings.weight'
_OUTPUT, _BIAS = 'heads.caption.decoder.weight', 'heads.caption.bias'
_FRAMES = 'frame_embeddings'
_TIED = 'the word embeddings, to which the head is tied'
_NAMES = Names(
    ('^textual.embedding.words.', '^text_stack.embeddings.word_embeddings.'),
    ('^textual.embedding.positions.', '^text_stack.embeddings.position_embeddings.'),
    ('^textual.embedding.layer_norm.', '^text_stack.embeddings.LayerNorm.'),
    ('^textual.transformer.encoder.layer.', '^text_stack.layers.'),
    ('^textual.visual_projection.', '^image_projection.'),
    ('^textual.output.weight$', f'^{_OUTPUT}$'),
    ('^textual.output.bias$', f'^{_BIAS}$'),
)
_HF_NAMES = Names(
    ('^git.embeddings.', '^text_stack.embeddings.'),
    ('^git.encoder.layer.', '^text_stack.layers.'),
    ('^git.visual_projection.visual_projection.', '^image_projection.'),
    ('^output.weight$', f'^{_OUTPUT}$'),
    ('^output.bias$', f'^{_BIAS}$'),
)
_FRAME, _HF_FRAME = 'img_temperal_embedding.', 'git.img_temporal_embedding.'  # the one is misspelt in the public code
_OURS = (
    r'^(text_stack\.(embeddings\.(word_embeddings|position_embeddings|LayerNorm)\.|layers\.\d+\.(attention|intermediate'
    r'|output)\.)|image_projection\.|heads\.caption\.(decoder\.weight|bias)$)'
)
_OPTIONAL = {
    r'^frame_embeddings$': 'num_frames of GIT to the number of its frames',
    r'^heads\.caption\.decoder\.': 'tied=False of the caption head',
}
_EPS_ADVICE = "GIT's own code has 1e-8 and transformers the epsilon of the layers, with the same weights"


# --- settings ---------------------------------------------------------------------------------------------------------


def _eps(argument: str, modules: str, *accepted: float, advice: str = '') -> Setting:
    return Setting(argument, modules, norm_eps, accepted, advice)


def _text(eps: float, embed_eps: tuple[float, ...], projection_eps: float, width: int | None) -> Iterable[Setting]:
    layers, embeddings = r'^text_stack\.layers\..*LayerNorm$', r'^text_stack\.embeddings\.LayerNorm$'
    yield Setting('out_type of the image tower', '', of_class(IMAGE, 'out_type'), ('raw',))
    yield Setting('cross_attention', '', of_class('GIT', 'cross_attention'), (False,))
    yield _eps('layer_norm_eps', layers, eps)
    yield _eps('embed_norm_eps', embeddings, *embed_eps, advice=_EPS_ADVICE if len(embed_eps) > 1 else '')
    yield _eps('projection_eps', r'^image_projection\.1$', projection_eps)
    if width is not None:
        heads = r'^text_stack\.layers\.\d+\.attention$'
        yield Setting('hidden_size / num_heads of the text stack', heads, head_width, (width,))


def git_settings(source: Source) -> Iterable[Setting]:
    """Settings of GIT's own code, which are in it and in no file."""
    return (*openai_image_tower(), *_text(1e-12, (1e-8,), 1e-5, HEAD_WIDTH))


def hf_git_settings(source: Source) -> Iterable[Setting]:
    """Settings of transformers' GIT, as the ``config.json`` beside the weights says; without one those of GIT's.

    Raises:
        ValueError: the config is that of a model that ours is not.
    """
    config = {} if '://' in str(source.path) else read_config(Path(source.path).expanduser().parent / CONFIG)
    config = config if config.get('model_type') == 'git' else {}
    if (act := config.get('hidden_act', 'gelu')) != 'gelu':
        raise ValueError(
            f'the config beside {source.path} says hidden_act {act!r} of its text layers, which GIT does not have; use '
            'another checkpoint'
        )
    vision, eps = as_dict(config.get('vision_config')), config.get('layer_norm_eps', 1e-12)
    width = config.get('hidden_size', 768) // config.get('num_attention_heads', 12)
    image = hugging_face_image_tower(vision, source)
    projection_eps = vision.get('layer_norm_eps', 1e-5)
    return (*image, *_text(eps, tuple(dict.fromkeys((1e-8, eps))), projection_eps, width))


#: What its config.json tells, and what it does not.
_HF_SETTINGS = (
    head_setting(r'^text_stack\.layers\.0\.attention$', 'num_heads'),
    Setting('num_heads of the image tower', '', of_class(IMAGE, 'num_heads'), ()),
    *(
        s if s.argument in ('out_type of the image tower', 'cross_attention') else replace(s, accepted=())
        for s in hf_git_settings(Source('git://'))
        if '/' not in s.argument
    ),
)


# --- to our names -----------------------------------------------------------------------------------------------------


@register_format(
    'GIT',
    lambda keys: any_key(keys, r'^textual\.transformer\.encoder\.layer\.'),
    settings=git_settings,
    optional_parts=_OPTIONAL,
    fixed_shapes=FIXED_SHAPES,
)
def convert_git(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert GIT as its own code writes it."""
    state = dict(state)
    image, skipped = pop_prefix(state, r'image_encoder\.'), {}
    if image.pop('proj', None) is not None:
        skipped['image_encoder.proj'] = "CLIP's projection, which GIT does not use"
    image = add_prefix(convert_vit(image), 'image_encoder.')
    return _joined({**image, **_NAMES.to_ours(state)}, _FRAME, 'textual.output.weight', skipped)


@register_format(
    'Hugging Face GIT',
    lambda keys: any_key(keys, r'^git\.encoder\.layer\.') and any_key(keys, r'^git\.image_encoder\.'),
    settings=hf_git_settings,
    optional_parts=_OPTIONAL,
    fixed_shapes=FIXED_SHAPES,
)
def convert_hf_git(state: StateDict) -> tuple[StateDict, Skipped]:
    """Convert transformers' ``GitForCausalLM``."""
    state = dict(state)
    image, skipped = convert_hf_clip(pop_prefix(state, r'git\.image_encoder\.'))
    skipped = add_prefix(skipped, 'git.image_encoder.')
    return _joined({**image, **_HF_NAMES.to_ours(state)}, _HF_FRAME, 'output.weight', skipped)


def _joined(state: StateDict, frame: str, output: str, skipped: Skipped) -> tuple[StateDict, Skipped]:
    """Stack the vectors of frames, join projections, and leave the output layer out if it is the word embeddings."""
    require(state, _WORDS)
    if frames := pop_prefix(state, frame):
        absent = next((number for number in range(len(frames)) if str(number) not in frames), None)
        if absent is not None:
            raise ValueError(f'it has vectors of {len(frames)} frames and not {frame}{absent}; it is incomplete')
        state[_FRAMES] = torch.cat([frames[str(number)].flatten(0, 1) for number in range(len(frames))])
    if _OUTPUT in state and torch.equal(state[_OUTPUT], state[_WORDS]):
        del state[_OUTPUT]
        skipped[output] = _TIED
    return join_projections(state), skipped


# --- out of ours ------------------------------------------------------------------------------------------------------


def _is_git(keys: Collection[str]) -> bool:
    return any_key(keys, r'^text_stack\.layers\.\d+\.attention\.qkv\.') and any_key(keys, r'^image_projection\.\d')


def _split(state: StateDict) -> tuple[StateDict, StateDict, list[torch.Tensor], Skipped]:
    """Take a GIT apart: its image tower without prefix, what is renamed, the vectors of frames, what is left out.

    Raises:
        ValueError: a part is none of GIT's public code.
    """
    image, frames = pop_prefix(state, r'image_encoder\.'), state.pop(_FRAMES, None)
    if 'class_embedding' not in image:
        raise ValueError("GIT's public code takes CLIP's ViT, and this has another image encoder")
    if names := {key.split('.')[1] for key in state if key.startswith('heads.') and key.endswith('.bias')} - {
        'caption'
    }:
        # heads that write are alike, whatever they are called
        name = names.pop()
        if names or _BIAS in state or any_key(state, rf'^heads\.{name}\.(?!bias$|decoder\.weight$)'):
            raise ValueError('it has more or other heads than one on the words, which is all that GIT has')
        state = {key.replace(f'heads.{name}.', 'heads.caption.'): value for key, value in state.items()}
    require(state, _WORDS, _BIAS)
    kept, left_out = hold(state, _OURS, 'GIT')
    if wrong := next((key for key in left_out if key.startswith(('text_stack.', 'heads.caption.'))), None):
        raise ValueError(f'it has {wrong}, which is in no GIT of the public code')
    kept.setdefault(_OUTPUT, kept[_WORDS])
    frames = [] if frames is None else [vector.view(1, 1, -1) for vector in frames]
    return image, split_projections(kept), frames, left_out


def _numbered(prefix: str, values: list[torch.Tensor]) -> StateDict:
    return {f'{prefix}{number}': value for number, value in enumerate(values)}


@register_export('GIT', _is_git, wrapper='model', settings=git_settings(Source('')))
def export_git(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write GIT as its own code reads it.

    Raises:
        ValueError: the image encoder is none of CLIP's, or a part is none of GIT's.
    """
    image, kept, frames, left_out = _split(state)
    theirs = add_prefix(export_vit(image), 'image_encoder.') | _NAMES.to_theirs(kept) | _numbered(_FRAME, frames)
    return Exported(theirs, left_out, {'image_encoder.proj': 'not used by GIT'})


@register_export(
    'Hugging Face GIT',
    _is_git,
    settings=_HF_SETTINGS,
    model_types=('git',),
)
def export_hf_git(state: StateDict, settings: dict[str, Any]) -> Exported:
    """Write transformers' ``GitForCausalLM`` with its config.

    Raises:
        ValueError: the image encoder is none of CLIP's, or a part is none of GIT's.
    """
    image, kept, frames, left_out = _split(state)
    config, notes = _config(kept, image, len(frames), settings)
    tower = to_hugging_face(add_prefix(image, 'image_encoder.'))
    theirs = add_prefix(tower, 'git.image_encoder.') | _HF_NAMES.to_theirs(kept) | _numbered(_HF_FRAME, frames)
    return Exported(theirs, left_out, {}, config, notes)


def _config(
    kept: StateDict, image: StateDict, frames: int, known: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    vision, notes = vision_config(image, None, known, 'git_vision_model')
    words, hidden = kept[_WORDS], kept['text_stack.layers.0.intermediate.dense.weight']
    heads, more = head_count(known, words.shape[1], 'text stack')
    tied = torch.equal(kept[_OUTPUT], words)
    fixed = {
        'architectures': ['GitForCausalLM'],
        'model_type': 'git',
        'vocab_size': len(words),
        'hidden_size': words.shape[1],
        'intermediate_size': len(hidden),
        'num_hidden_layers': len({key.split('.')[2] for key in kept if key.startswith('text_stack.layers.')}),
        'num_attention_heads': heads,
        'max_position_embeddings': len(kept['text_stack.embeddings.position_embeddings.weight']),
        'num_image_with_embedding': frames or None,
        'vision_config': vision,
        **({} if tied else {'tie_word_embeddings': False}),
    }
    config = config_json(known, fixed, {'hidden_act': 'gelu', 'layer_norm_eps': 1e-12, 'tie_word_embeddings': tied})
    eps = config['layer_norm_eps'] = known.get('layer_norm_eps', config['layer_norm_eps'])
    same = {'embed_norm_eps': (eps, 1e-8), 'projection_eps': (vision['layer_norm_eps'],)}
    for name, right in same.items():
        if known.get(name, right[0]) not in right:
            raise ValueError(f'its {name} is {known[name]}, and transformers computes with {right[0]}')
    if known.get('embed_norm_eps', eps) != eps:
        more.append(f'transformers computes the norm of embeddings with {eps}, also for the weights that GIT published')
    return config, notes + more
