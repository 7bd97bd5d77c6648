"""open_flamingo's model around a small language model of transformers, and ours with the same weights."""

import re

import torch
from torch import nn

from florence_mm.models.multimodal import FlorenceFlamingo
from florence_mm.models.text import TransformersLanguageModel

VOCAB = 601  # of CLIP's small tokenizer with its mask
SIZES = {'num_hidden_layers': 4, 'num_attention_heads': 4, 'vocab_size': VOCAB, 'hidden_size': 32}
LANGUAGE = {
    'opt': {**SIZES, 'model_type': 'opt', 'ffn_dim': 64, 'max_position_embeddings': 64, 'word_embed_proj_dim': 32},
    'llama': {**SIZES, 'model_type': 'llama', 'intermediate_size': 64, 'max_position_embeddings': 64},
    'gpt_neox': {**SIZES, 'model_type': 'gpt_neox', 'intermediate_size': 64, 'max_position_embeddings': 64},
}
TOKENIZER = {'type': 'MaskedCLIPTokenizer', 'vocab_size': VOCAB - 1}


class Patches(nn.Module):
    """An image encoder of one convolution; a map for ours, tokens for theirs."""

    num_features = 24

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, self.num_features, 8, 8)

    def forward(self, x):
        return self.conv(x)


class Visual(nn.Module):
    def __init__(self, patches):
        super().__init__()
        self.patches = patches

    def forward(self, x):
        return None, self.patches(x).flatten(2).transpose(1, 2)


def drawn(module, std=0.1):
    """Weights drawn anew, gates included."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * std + (parameter.ndim == 1) * 0.5)
    return module


def ours(kind='opt', every=2, act='gelu', **changes):
    torch.manual_seed(3)
    config = dict(LANGUAGE[kind])
    if kind != 'llama':
        config |= {'hidden_dropout': 0.0} if kind == 'gpt_neox' else {'dropout': 0.0}
    model = FlorenceFlamingo(
        Patches(),
        TransformersLanguageModel(config=config),
        TOKENIZER,
        resampler={'num_layers': 6, 'num_latents': 64},
        every=every,
        act=act,
        max_text_len=60,
        **{'heads': {'caption': {'type': 'DocumentHead'}}, **changes},
    )
    return drawn(model).eval()


def in_public_layout(model):
    """The tensors that open_flamingo has, from those of ours, by hand."""
    state = {}
    attention = {'query_norm': 'norm_latents', 'token_norm': 'norm_media', 'query': 'to_q', 'key_value': 'to_kv',
                 'output': 'to_out'}  # fmt: skip
    mlp = {'norm': '0', 'fc1': '1', 'fc2': '3'}
    for key, value in model.resampler.state_dict().items():
        if found := re.fullmatch(r'layers\.(\d+)\.mlp\.(\w+)\.(\w+)', key):
            key = f'layers.{found[1]}.1.{mlp[found[2]]}.{found[3]}'
        elif found := re.fullmatch(r'layers\.(\d+)\.(\w+)\.(\w+)', key):
            key = f'layers.{found[1]}.0.{attention[found[2]]}.{found[3]}'
        state[f'perceiver.{key}'] = value
    attention['query_norm'] = 'norm'
    for key, value in model.blocks.state_dict().items():
        if found := re.fullmatch(r'(\d+)\.mlp\.(\w+)\.(\w+)', key):
            key = f'{found[1]}.ff.{mlp[found[2]]}.{found[3]}'
        elif found := re.fullmatch(r'(\d+)\.(\w+)\.(\w+)', key):
            key = f'{found[1]}.attn.{attention[found[2]]}.{found[3]}'
        else:
            key = key.replace('mlp_gate', 'ff_gate')
        state[f'lang_encoder.gated_cross_attn_layers.{key}'] = value
    return state


def trained(kind='opt'):
    """The file that open_flamingo's training writes: what was trained, and the tables of words."""
    model = ours(kind)
    state = in_public_layout(model)
    language = {key: value for key, value in model.language_model.model.state_dict().items() if 'embed' in key}
    for key, value in language.items():
        if len(value) == VOCAB:
            value = torch.cat([value, model.marks.mark_outputs if 'embed_out' in key else model.marks.marks])
        state[f'lang_encoder.{key}'] = value
    return {key: value.detach() for key, value in state.items()}


def in_layers(state):
    """The same with blocks inside the layers of OPT, where open_flamingo's training leaves them."""
    return {
        re.sub(r'\.gated_cross_attn_layers\.(\d+)\.', r'.model.decoder.layers.\1.gated_cross_attn_layer.', key): value
        for key, value in state.items()
    }


def theirs(model, every=2):
    """open_flamingo's model with the weights of ours."""
    import copy

    from open_flamingo.src.flamingo import Flamingo as TheirFlamingo
    from open_flamingo.src.flamingo_lm import FlamingoLMMixin
    from open_flamingo.src.utils import extend_instance

    language = copy.deepcopy(model.language_model.model)
    path = {'opt': 'model.decoder.layers', 'llama': 'model.layers', 'gpt_neox': 'gpt_neox.layers'}
    extend_instance(language, FlamingoLMMixin)
    language.set_decoder_layers_attr_name(path[language.config.model_type])
    language.resize_token_embeddings(VOCAB + 2, mean_resizing=False)
    language.get_input_embeddings().requires_grad_(True)  # as their factory does
    with torch.no_grad():
        language.get_input_embeddings().weight[VOCAB:] = model.marks.marks
        if model.marks.mark_outputs is not None:
            language.get_output_embeddings().weight[VOCAB:] = model.marks.mark_outputs
    clip = nn.Module()
    clip.visual = Visual(copy.deepcopy(model.image_encoder))
    made = TheirFlamingo(clip, language, VOCAB, VOCAB + 1, vis_dim=24, cross_attn_every_n_layers=every)
    missing = made.load_state_dict(in_public_layout(model), strict=False)
    assert not missing.unexpected_keys
    assert not [key for key in missing.missing_keys if 'perceiver' in key or 'cross_attn_layers' in key]
    return made.eval()
