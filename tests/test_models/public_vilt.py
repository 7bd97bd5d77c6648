"""Small ViLTs of transformers with weights drawn anew, in the layout of the public code, and ours of the same sizes."""

import re

import torch
from transformers import ViltConfig, ViltForMaskedLM, ViltForQuestionAnswering

from florence_mm.models.multimodal import UNITER, ViLT

VOCAB, WIDTH, SIDE, PATCH, FEATURES = 601, 32, 32, 8, 12
_RENAMED = [
    (r'^vilt\.embeddings\.text_embeddings\.', 'text_embeddings.'),
    (r'^vilt\.embeddings\.token_type_embeddings\.', 'token_type_embeddings.'),
    (r'^vilt\.embeddings\.cls_token', 'transformer.cls_token'),
    (r'^vilt\.embeddings\.position_embeddings', 'transformer.pos_embed'),
    (r'^vilt\.embeddings\.patch_embeddings\.projection', 'transformer.patch_embed.proj'),
    (r'^vilt\.encoder\.layer', 'transformer.blocks'),
    (r'^vilt\.layernorm', 'transformer.norm'),
    (r'^vilt\.pooler', 'pooler'),
    (r'layernorm_before', 'norm1'),
    (r'layernorm_after', 'norm2'),
    (r'attention\.output\.dense', 'attn.proj'),
    (r'intermediate\.dense', 'mlp.fc1'),
    (r'(blocks\.\d+\.)output\.dense', r'\1mlp.fc2'),
    (r'mlm_score\.decoder\.bias', 'mlm_score.bias'),
    (r'^classifier', 'vqa_classifier'),
]


def drawn(model):
    """A model with weights of standard deviation 0.1 around 0, or around 1 for norms."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            parameter.normal_(0, 0.1, generator=generator)
            norm = re.search(r'(norm(_before|_after)?|LayerNorm|classifier\.1)\.weight$', name)
            parameter.add_(1 if norm else 0)
    return model.eval()


def their_vilt(kind=ViltForMaskedLM, **kwargs):
    """transformers' model in evaluation mode."""
    config = ViltConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=20,
        image_size=SIDE,
        patch_size=PATCH,
        num_labels=5,
        tie_word_embeddings=False,
        **kwargs,
    )
    model = kind(config)
    if kind is ViltForMaskedLM:  # ViLT's own weights are not tied
        model.mlm_score.decoder.weight = torch.nn.Parameter(torch.empty(VOCAB, WIDTH))
    return drawn(model)


def our_vilt(head='mlm', **kwargs):
    """Our model of the same sizes, with a head for masked words or for questions."""
    heads = {
        'mlm': {'type': 'FusionMLMHead'},
        'vqa': {'type': 'FusionVQAHead', 'num_answers': 5, 'width': 2 * WIDTH},
        'itm': {'type': 'FusionITMHead'},
        'ranking': {'type': 'FusionRankingHead'},
    }
    sizes = {'hidden_size': WIDTH, 'num_layers': 2, 'num_heads': 4, 'mlp_ratio': 2, 'patch_size': PATCH}
    tokenizer = {'type': 'MaskedCLIPTokenizer', 'vocab_size': VOCAB - 1}
    model = ViLT(
        tokenizer,
        **{**sizes, 'img_size': SIDE, 'max_text_len': 20, 'layer_norm_eps': 1e-12, **kwargs},
        heads={head: heads[head]},
    )
    return model.eval()


def in_public_layout(theirs):
    """transformers' tensors as ViLT's own code writes them, with a matching head."""
    state, joined = theirs.state_dict(), {}
    for key, value in state.items():
        if match := re.search(r'attention\.attention\.(query|key|value)\.(\w+)$', key):
            if match[1] == 'query':
                parts = [state[key.replace('query', part)] for part in ('query', 'key', 'value')]
                joined[key[: match.start()] + f'attn.qkv.{match[2]}'] = torch.cat(parts)
            continue
        joined[key] = value
    for pattern, name in _RENAMED:
        joined = {re.sub(pattern, name, key): value for key, value in joined.items()}
    joined |= {'itm_score.fc.weight': torch.randn(2, WIDTH), 'itm_score.fc.bias': torch.randn(2)}
    return {**joined, 'text_embeddings.position_ids': torch.arange(20)[None]}


def our_uniter(**kwargs):
    """A UNITER with the heads of its pretraining."""
    heads = {
        'itm': {'type': 'FusionITMHead', 'negatives': 'data_set', 'alignment': 0.1},
        'mlm': {'type': 'FusionMLMHead', 'tied': True, 'at_least_one': True},
        'mrfr': {'type': 'FusionMRFRHead'},
        'mrc': {'type': 'FusionMRCHead', 'num_classes': 4},
    }
    tokenizer = {'type': 'MaskedCLIPTokenizer', 'vocab_size': VOCAB - 1}
    text = {'hidden_size': WIDTH, 'num_layers': 2, 'num_heads': 4, 'mlp_ratio': 2, 'max_positions': 20}
    model = UNITER(tokenizer, FEATURES, text, **{'heads': heads, 'max_text_len': 20, **kwargs})
    return drawn(model)


def public_uniter():
    """Tensors of UNITER's pretraining as its code writes them, made by hand."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    def linear(name, outputs, inputs):
        return {f'{name}.weight': draw(outputs, inputs), f'{name}.bias': draw(outputs)}

    def norm(name):
        return {f'{name}.weight': draw(WIDTH), f'{name}.bias': draw(WIDTH)}

    words, mask = draw(VOCAB, WIDTH), torch.cat([torch.zeros(1, FEATURES), draw(1, FEATURES)])
    state = {
        'uniter.embeddings.word_embeddings.weight': words,
        'uniter.embeddings.position_embeddings.weight': draw(20, WIDTH),
        'uniter.embeddings.token_type_embeddings.weight': draw(2, WIDTH),
        **norm('uniter.embeddings.LayerNorm'),
        **linear('uniter.img_embeddings.img_linear', WIDTH, FEATURES),
        **linear('uniter.img_embeddings.pos_linear', WIDTH, 7),
        **norm('uniter.img_embeddings.img_layer_norm'),
        **norm('uniter.img_embeddings.pos_layer_norm'),
        **norm('uniter.img_embeddings.LayerNorm'),
        'uniter.img_embeddings.mask_embedding.weight': mask,
        **linear('uniter.pooler.dense', WIDTH, WIDTH),
        'cls.predictions.bias': draw(VOCAB),
        'cls.predictions.decoder.weight': words,
        **linear('cls.predictions.transform.dense', WIDTH, WIDTH),
        **norm('cls.predictions.transform.LayerNorm'),
        **linear('itm_output', 2, WIDTH),
        **linear('feat_regress.net.0', WIDTH, WIDTH),
        **norm('feat_regress.net.2'),
        'feat_regress.bias': draw(FEATURES),
        **linear('region_classifier.net.0', WIDTH, WIDTH),
        **norm('region_classifier.net.2'),
        **linear('region_classifier.net.3', 5, WIDTH),
    }
    state['feat_regress.weight'] = state['uniter.img_embeddings.img_linear.weight']
    for number in range(2):
        layer = f'uniter.encoder.layer.{number}'
        for part in ('query', 'key', 'value'):
            state |= linear(f'{layer}.attention.self.{part}', WIDTH, WIDTH)
        state |= linear(f'{layer}.attention.output.dense', WIDTH, WIDTH) | norm(f'{layer}.attention.output.LayerNorm')
        state |= linear(f'{layer}.intermediate.dense', 64, WIDTH)
        state |= linear(f'{layer}.output.dense', WIDTH, 64) | norm(f'{layer}.output.LayerNorm')
    return state


__all__ = ['ViltForMaskedLM', 'ViltForQuestionAnswering', 'in_public_layout', 'our_uniter', 'our_vilt', 'their_vilt']
