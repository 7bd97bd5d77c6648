"""BLIP-2 as its packages have it: transformers' models, and the layout of LAVIS's files with random weights."""

import torch
from public_blip import DEC, SHARED, WIDTH, Ids, randomise

import florence_mm  # noqa: F401  (first, it patches transformers)
from florence_mm.models.multimodal import BLIP2

QUERIES, IMAGE_WIDTH, LAYERS, WORDS = 5, 48, 4, 40
VISION = {
    **{'hidden_size': IMAGE_WIDTH, 'num_hidden_layers': 2, 'num_attention_heads': 4, 'image_size': 32},
    **{'intermediate_size': 96, 'patch_size': 8, 'layer_norm_eps': 1e-6, 'hidden_act': 'gelu'},
}
QFORMER = {
    **{'vocab_size': WORDS, 'hidden_size': WIDTH, 'num_hidden_layers': LAYERS, 'num_attention_heads': 4},
    **{'intermediate_size': 64, 'max_position_embeddings': 20, 'encoder_hidden_size': IMAGE_WIDTH},
}
#: Small language models: the arguments of their configs.
TINY = {
    'opt': {
        **{'model_type': 'opt', 'vocab_size': WORDS, 'hidden_size': 24, 'num_hidden_layers': 2, 'ffn_dim': 40},
        **{'num_attention_heads': 2, 'max_position_embeddings': 40, 'word_embed_proj_dim': 24},
        **{'bos_token_id': 1, 'eos_token_id': 2, 'pad_token_id': 0, 'dropout': 0.0},
    },
    't5': {
        **{'model_type': 't5', 'vocab_size': WORDS, 'd_model': 24, 'num_layers': 2, 'num_heads': 2, 'd_kv': 8},
        **{'d_ff': 40, 'feed_forward_proj': 'gated-gelu', 'tie_word_embeddings': False, 'dropout_rate': 0.0},
        **{'decoder_start_token_id': 1, 'eos_token_id': 2, 'pad_token_id': 0, 'bos_token_id': 1},
    },
}


def config(text=None, reads_texts=False):
    import transformers

    return transformers.Blip2Config(
        vision_config=VISION,
        qformer_config={**QFORMER, 'use_qformer_text_input': reads_texts},
        text_config=text or TINY['opt'],
        num_query_tokens=QUERIES,
        image_text_hidden_size=SHARED,
        image_token_index=WORDS - 1,
    )


def hugging_face(kind='ImageTextRetrieval', text=None):
    """One of transformers' models; its own weights would be zeros or nearly so."""
    import transformers

    made = config(text, reads_texts=kind == 'ImageTextRetrieval')
    if kind == 'ImageTextRetrieval':
        made.image_token_index = None  # queries are no part of the ids
    model = randomise(getattr(transformers, f'Blip2For{kind}')(made))
    for block in model.vision_model.encoder.layers:  # EVA's ViT has no bias of keys
        block.self_attn.qkv.bias.data[IMAGE_WIDTH : 2 * IMAGE_WIDTH] = 0
    return model


class Words(Ids):
    """Ids of texts that are numbers, behind which is ``[DEC]``, and no other mark."""

    extra_token_ids = {'[DEC]': DEC}


IMAGE = {
    **{'type': 'CLIPVisionTower', 'img_size': 32, 'out_type': 'raw', 'act': 'gelu', 'norm_eps': 1e-6},
    **{'pre_norm': False, 'patch_bias': True, 'post_norm': False},
    'arch': {'embed_dims': IMAGE_WIDTH, 'num_layers': 2, 'num_heads': 4, 'patch_size': 8, 'mlp_ratio': 2},
}
TEXT = {
    **{'vocab_size': WORDS, 'hidden_size': WIDTH, 'num_layers': LAYERS, 'num_heads': 4, 'mlp_ratio': 2},
    'max_positions': 20,
}
HEADS = {
    'itc': {'type': 'FusionITCHead', 'embed_dims': SHARED, 'positives': 'own_text', 'label_smoothing': 0.1},
    'itm': {'type': 'FusionITMHead', 'negatives': 'all'},
    'caption': {'type': 'FusionCaptionHead', 'tied': True, 'label_smoothing': 0.1, 'num_beams': 3, 'max_length': 6},
}


def ours(heads=None, **kwargs):
    """Our first stage of the same sizes."""
    kwargs = {'vision_norm_eps': 1e-6, 'max_text_len': 12, **kwargs}
    return BLIP2(IMAGE, Words(), TEXT, QUERIES, HEADS if heads is None else heads, **kwargs).eval()


def lavis(stage=1, kind='opt', clip=False, seed=0):
    """A file of LAVIS: of its first stage, or of the second one without the frozen language model."""
    state = {}
    for key, value in hugging_face().state_dict().items():
        name = f'Qformer.bert.{key}' if key.startswith('embeddings.') else key
        for theirs, other in _NAMES:
            name = name.replace(theirs, other)
        state[name] = value.clone()
    for key in [key for key in state if key.endswith('.attn.qkv.bias')]:
        query, _, values = state.pop(key).chunk(3)
        state |= {key.replace('qkv.bias', 'q_bias'): query, key.replace('qkv.bias', 'v_bias'): values}
    torch.manual_seed(seed)
    state['temp'] = torch.tensor(0.05)
    head = {
        'transform.dense.weight': torch.randn(WIDTH, WIDTH),
        'transform.dense.bias': torch.randn(WIDTH),
        'transform.LayerNorm.weight': torch.randn(WIDTH),
        'transform.LayerNorm.bias': torch.randn(WIDTH),
        'bias': torch.randn(WORDS),
    }
    words = state['Qformer.bert.embeddings.word_embeddings.weight']
    head |= {'decoder.weight': words, 'decoder.bias': head['bias']}
    state |= {f'Qformer.cls.predictions.{key}': value for key, value in head.items()}
    if clip:  # LAVIS also trains on CLIP's ViT-L/14
        state = {key: value for key, value in state.items() if not key.startswith('visual_encoder.')}
        state |= {f'visual_encoder.{key}': value for key, value in _clip_tower().items()}
    if stage == 1:
        return state
    dropped = ('cls.', 'word_embeddings', 'position_embeddings', '.intermediate.', 'vision_proj', 'text_proj', 'itm_')
    kept = {
        key: value
        for key, value in state.items()
        if not any(part in key for part in dropped) and not (key.count('.output.') == 1 and '.layer.' in key and 'attention' not in key)
    }
    kept.pop('temp')
    return kept | {f'{kind}_proj.weight': torch.randn(24, WIDTH), f'{kind}_proj.bias': torch.randn(24)}


def _clip_tower():
    from florence_mm.models.backbones import CLIPVisionTower

    tower = {key: value for key, value in IMAGE.items() if key != 'type'}
    model = CLIPVisionTower(**{**tower, 'pre_norm': True, 'patch_bias': False, 'act': 'quick_gelu', 'norm_eps': 1e-5})
    return {f'transformer.{k}' if k.startswith('resblocks.') else k: v.clone() for k, v in model.state_dict().items()}


_NAMES = (
    ('vision_model.embeddings.class_embedding', 'visual_encoder.cls_token'),
    ('vision_model.embeddings.position_embedding', 'visual_encoder.pos_embed'),
    ('vision_model.embeddings.patch_embedding.', 'visual_encoder.patch_embed.proj.'),
    ('vision_model.encoder.layers.', 'visual_encoder.blocks.'),
    ('vision_model.post_layernorm.', 'ln_vision.'),
    ('.self_attn.qkv.', '.attn.qkv.'),
    ('.self_attn.projection.', '.attn.proj.'),
    ('.layer_norm', '.norm'),
    ('qformer.layernorm.', 'Qformer.bert.embeddings.LayerNorm.'),
    ('qformer.encoder.', 'Qformer.bert.encoder.'),
    ('attention.attention.', 'attention.self.'),
    ('vision_projection.', 'vision_proj.'),
    ('text_projection.', 'text_proj.'),
)
