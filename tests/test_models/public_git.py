"""A small GIT of transformers with weights drawn anew, its tensors in the layout of the public code, and our GIT."""

import re

import torch
from transformers import GitConfig, GitForCausalLM

from florence_mm.models.multimodal import GIT

VOCAB, WIDTH, SIDE, PATCH = 601, 32, 16, 8
START, END = 598, 599
TOWER = {'embed_dims': 24, 'num_layers': 2, 'num_heads': 2, 'patch_size': PATCH}
TEXT = {'hidden_size': WIDTH, 'num_layers': 2, 'num_heads': 4, 'mlp_ratio': 2, 'max_positions': 40}
#: Tokens of an image: its patches and the class token.
TOKENS = (SIDE // PATCH) ** 2 + 1


def their_git(frames=None, **kwargs):
    """transformers' model in evaluation mode; ``frames``: the number of its vectors of frames."""
    vision = {
        'hidden_size': 24,
        'intermediate_size': 96,
        'num_hidden_layers': 2,
        'num_attention_heads': 2,
        'image_size': SIDE,
        'patch_size': PATCH,
    }
    sizes = {
        'hidden_size': WIDTH,
        'num_hidden_layers': 2,
        'num_attention_heads': 4,
        'intermediate_size': 64,
        'max_position_embeddings': 40,
    }
    ids = {'vocab_size': VOCAB, 'bos_token_id': START, 'eos_token_id': END, 'pad_token_id': 0}
    config = GitConfig(
        vision_config=vision, num_image_with_embedding=frames, **{'tie_word_embeddings': True, **sizes, **ids, **kwargs}
    )
    return drawn(GitForCausalLM(config))


def drawn(model):
    """A model with weights of standard deviation 0.1 around 0, or around 1 for norms."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            parameter.normal_(0, 0.1, generator=generator)
            norm = re.search(r'(norm\d?|LayerNorm|layrnorm|visual_projection\.1)\.weight$', name)
            parameter.add_(1 if norm else 0)
    return model.eval()


def our_git(frames=0, head=None, **kwargs):
    """Our model of the same sizes."""
    head = {'type': 'FusionCaptionHead', 'tied': True, 'transform': False, **(head or {})}
    model = GIT(
        image_encoder={'type': 'CLIPVisionTower', 'arch': TOWER, 'img_size': SIDE, 'out_type': 'raw'},
        tokenizer={'type': 'MaskedCLIPTokenizer', 'vocab_size': VOCAB - 1},
        text=TEXT,
        heads={'caption': head},
        num_frames=frames,
        max_text_len=20,
        **kwargs,
    )
    return model.eval()


_RENAMED = [
    (r'^git\.embeddings\.word_embeddings', 'textual.embedding.words'),
    (r'^git\.embeddings\.position_embeddings', 'textual.embedding.positions'),
    (r'^git\.embeddings\.LayerNorm', 'textual.embedding.layer_norm'),
    (r'^git\.encoder\.layer', 'textual.transformer.encoder.layer'),
    (r'^git\.visual_projection\.visual_projection', 'textual.visual_projection'),
    (r'^git\.img_temporal_embedding', 'img_temperal_embedding'),
    (r'^output', 'textual.output'),
    (r'^git\.image_encoder\.vision_model\.', 'image_encoder.'),
    (r'embeddings\.(class_embedding)', r'\1'),
    (r'embeddings\.patch_embedding', 'conv1'),
    (r'embeddings\.position_embedding\.weight', 'positional_embedding'),
    (r'pre_layrnorm', 'ln_pre'),
    (r'post_layernorm', 'ln_post'),
    (r'image_encoder\.encoder\.layers', 'image_encoder.transformer.resblocks'),
    (r'layer_norm(\d)', r'ln_\1'),
    (r'mlp\.fc1', 'mlp.c_fc'),
    (r'mlp\.fc2', 'mlp.c_proj'),
    (r'self_attn\.out_proj', 'attn.out_proj'),
]


def in_public_layout(theirs):
    """Tensors of transformers' model as GIT's own code names them, with CLIP's projection, which it does not use."""
    state = {}
    for key, value in theirs.state_dict().items():
        for pattern, new in _RENAMED:
            key = re.sub(pattern, new, key)
        state[key] = value
    for key in [key for key in state if 'self_attn.q_proj' in key]:
        parts = [state.pop(key.replace('q_proj', f'{name}_proj')) for name in 'qkv']
        state[key.replace('self_attn.q_proj.', 'attn.in_proj_')] = torch.cat(parts)
    return {**state, 'image_encoder.proj': torch.randn(24, 16)}
