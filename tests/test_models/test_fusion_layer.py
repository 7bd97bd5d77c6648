"""The layer of METER, BERT, BART, GIT, BLIP and the Q-Former, against transformers' layers and its own forms."""

import pytest
import torch
from kinds import numbers

from florence_mm.models.checkpoints.bert_layers import join_projections
from florence_mm.models.layers.fusion_layer import FusionLayer
from florence_mm.models.layers.token_layout import TokenLayout
from florence_mm.ops import recomputed
from florence_mm.ops.attention import attention, prefixed_attention
from florence_mm.ops.mkldnn_products import has_mkldnn

C, H, SIZES = 32, 4, {'drop_rate': 0.0, 'attn_drop_rate': 0.0}
CLOSE = {'rtol': 1e-5, 'atol': 1e-5}


def draw(module, std=0.1):
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.data.normal_(0, std, generator=generator)
        parameter.data.add_(parameter.ndim == 1)  # norms and biases around 1
    return module.eval()


def bert_config(kind, **more):
    sizes = {'hidden_size': C, 'num_attention_heads': H, 'intermediate_size': 4 * C, 'layer_norm_eps': 1e-12}
    return kind(**sizes, attn_implementation='eager', **more)


# --- the layers of others ---------------------------------------------------------------------------------------------


@torch.no_grad()
def test_it_is_the_layer_of_blip_in_both_modes():
    from transformers.models.blip.configuration_blip import BlipTextConfig
    from transformers.models.blip.modeling_blip_text import BlipTextLayer

    theirs = draw(BlipTextLayer(bert_config(BlipTextConfig, encoder_hidden_size=48, is_decoder=True), 0))
    ours = FusionLayer(C, H, context_dims=48, **SIZES).eval()
    ours.load_state_dict(join_projections(theirs.state_dict()))
    x, context = numbers(2, 5, C), numbers(2, 7, 48, seed=1)
    causal = torch.full((5, 5), -1e9).triu(1)[None, None]
    got = theirs(x, context, causal, torch.zeros(1, 1, 1, 7))
    torch.testing.assert_close(ours(x, context, causal=True), got[0] if isinstance(got, tuple) else got, **CLOSE)


@torch.no_grad()
def test_it_is_the_decoder_layer_of_bart():
    from transformers import BartConfig
    from transformers.models.bart.modeling_bart import BartDecoderLayer

    config = BartConfig(d_model=C, decoder_attention_heads=H, decoder_ffn_dim=4 * C, attn_implementation='eager')
    theirs = draw(BartDecoderLayer(config, layer_idx=0))
    state = theirs.state_dict()
    ours = FusionLayer(C, H, layer_norm_eps=1e-5, **SIZES).eval()
    renamed = {}
    for what in ('weight', 'bias'):
        query, key, value = (state[f'self_attn.{name}_proj.{what}'] for name in 'qkv')
        renamed[f'attention.qkv.{what}'] = torch.cat([query, key, value])
        renamed[f'crossattention.query.{what}'] = state[f'encoder_attn.q_proj.{what}']
        key, value = (state[f'encoder_attn.{name}_proj.{what}'] for name in 'kv')
        renamed[f'crossattention.key_value.{what}'] = torch.cat([key, value])
        for mine, their in {
            'attention.output.dense': 'self_attn.out_proj',
            'attention.output.LayerNorm': 'self_attn_layer_norm',
            'crossattention.output.dense': 'encoder_attn.out_proj',
            'crossattention.output.LayerNorm': 'encoder_attn_layer_norm',
            'intermediate.dense': 'fc1',
            'output.dense': 'fc2',
            'output.LayerNorm': 'final_layer_norm',
        }.items():
            renamed[f'{mine}.{what}'] = state[f'{their}.{what}']
    ours.load_state_dict(renamed)
    x, context = numbers(2, 5, C), numbers(2, 7, C, seed=1)
    causal = torch.full((5, 5), -1e9).triu(1).expand(2, 1, 5, 5)
    got = theirs(x, attention_mask=causal, encoder_hidden_states=context)
    torch.testing.assert_close(ours(x, context, causal=True), got[0] if isinstance(got, tuple) else got, **CLOSE)


@torch.no_grad()
def test_its_leading_tokens_are_the_queries_of_the_q_former():
    from transformers import Blip2QFormerConfig
    from transformers.models.blip_2.modeling_blip_2 import Blip2QFormerLayer

    config = bert_config(Blip2QFormerConfig, encoder_hidden_size=48, cross_attention_frequency=1)
    config.use_qformer_text_input = True
    theirs = draw(Blip2QFormerLayer(config, 0))
    names = (('intermediate_query.', 'lead_intermediate.'), ('output_query.', 'lead_output.'))
    state = {}
    for key, value in theirs.state_dict().items():
        key = key.replace('.attention.query', '.self.query').replace('.attention.key', '.self.key')
        key = key.replace('.attention.value', '.self.value')
        for their, mine in names:
            key = mine + key.removeprefix(their) if key.startswith(their) else key
        state[key] = value
    ours = FusionLayer(C, H, context_dims=48, lead_mlp=True, **SIZES).eval()
    ours.load_state_dict(join_projections(state))
    x, context = numbers(2, 9, C), numbers(2, 7, 48, seed=1)
    real = torch.tensor([[True] * 9, [True] * 6 + [False] * 3])
    hidden = torch.where(real, 0.0, -1e9)[:, None, None]
    got = theirs(x, hidden, encoder_hidden_states=context, encoder_attention_mask=None, query_length=4)
    got = got[0] if isinstance(got, tuple) else got
    torch.testing.assert_close(ours(x, context, real, lead=4)[real], got[real], **CLOSE)


# --- its own forms ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_leading_tokens_are_the_same_beside_padding_and_without():
    layer = draw(FusionLayer(C, H, context_dims=48, lead_mlp=True, **SIZES))
    x, context = numbers(2, 5, C), numbers(2, 7, 48, seed=1)
    full = layer(x, context, lead=2)
    mask = torch.tensor([[True] * 5 + [False]] * 2)
    padded = layer(torch.cat([x, numbers(2, 1, C, seed=2)], 1), context, mask, lead=2)
    torch.testing.assert_close(padded[:, :5], full, **CLOSE)


@pytest.mark.parametrize('prefix', [0, 2, torch.tensor([3, 0])])
@torch.no_grad()
def test_what_a_token_behind_a_prefix_sees(prefix):
    real = torch.tensor([[True] * 5, [True] * 4 + [False]])
    layer = draw(FusionLayer(C, H, cross_attention=False, **SIZES)).double()
    x = numbers(2, 5, C).double()
    before = layer(x, mask=real, causal=True, prefix=prefix)
    for place in range(5):
        other = x.clone()
        other[:, place] += 1
        changed = ((layer(other, mask=real, causal=True, prefix=prefix) - before).abs().amax(2) > 1e-9) & real
        for row in range(2):
            first = int(prefix[row]) if isinstance(prefix, torch.Tensor) else prefix
            sees = [real[row, place] and (place <= i or (place < first and i < first)) for i in range(5)]
            assert changed[row].tolist() == [bool(s and real[row, i]) for i, s in enumerate(sees)]


@pytest.mark.parametrize(
    ('prefix', 'causal'), [(3, True), (torch.tensor([1, 2, 3]), True), (-1, True), (1, False)], ids=str
)
def test_prefixes_that_do_not_fit(prefix, causal):
    real = torch.tensor([[True, True], [True, False]])
    with pytest.raises(ValueError, match=r'prefix is \[.*for sequences of \[2, 1\] tokens'):
        TokenLayout.of(real, causal, prefix=prefix)


@pytest.mark.parametrize('each', [1, 3])
@torch.no_grad()
def test_a_prefix_computed_apart_is_the_beginning_of_its_texts(each):
    layer = draw(FusionLayer(C, H, cross_attention=False, **SIZES)).double()
    pictures, texts = numbers(2, 6, C).double(), numbers(2 * each, 4, C, seed=1).double()
    layout, own = TokenLayout(2, 6), TokenLayout(2 * each, 4, causal=True)
    image, memory = layer.prefix_step(layout.pack(pictures), layout)
    text = own.pad(layer.step(own.pack(texts), own, prefix=memory))
    rows = torch.cat([pictures.repeat_interleave(each, 0), texts], 1)
    whole = layer(rows, causal=True, prefix=6)
    torch.testing.assert_close(text, whole[:, 6:])
    torch.testing.assert_close(layout.pad(image), whole[::each, :6])


@pytest.mark.parametrize('length', [1, 5, 20])
@pytest.mark.parametrize('each', [1, 3])
def test_keys_of_a_prefix_may_be_shared(each, length):
    query, key, value = (numbers(2 * each, H, length, 8, seed=seed).double() for seed in range(3))
    before = [numbers(2, H, 7, 8, seed=seed).double() for seed in (3, 4)]
    rows = [x.repeat_interleave(each, 0) for x in before]
    mask = torch.ones(length, 7 + length, dtype=torch.bool).tril(7)[None, None]
    whole = attention(query, *(torch.cat(pair, 2) for pair in zip(rows, (key, value), strict=True)), mask)
    torch.testing.assert_close(prefixed_attention(query, key, value, *before, causal=True), whole)
    query.requires_grad_(True)  # which takes the other path
    torch.testing.assert_close(prefixed_attention(query, key, value, *before, causal=True), whole)


def test_a_causal_text_has_an_attention_of_its_own():
    layer = draw(FusionLayer(C, H, cross_attention=False, causal_attention=True, **SIZES))
    x = numbers(2, 5, C)
    plain = draw(FusionLayer(C, H, cross_attention=False, **SIZES))
    for causal, name in ((False, 'attention.'), (True, 'causal_attention.')):
        state = {
            ('attention.' + key.removeprefix(name) if key.startswith(name) else key): value
            for key, value in layer.state_dict().items()
            if key.startswith(name) or not key.startswith(('attention.', 'causal_attention.'))
        }
        plain.load_state_dict(state)
        torch.testing.assert_close(layer(x, causal=causal), plain(x, causal=causal))


@pytest.mark.skipif(not has_mkldnn(), reason='runs where PyTorch has oneDNN')
def test_training_by_onednn_gives_the_values_and_gradients_of_plain_layers(monkeypatch):
    layer = draw(FusionLayer(C, H, context_dims=48, lead_mlp=True, **SIZES)).train()
    x, context = numbers(2, 5, C).requires_grad_(), numbers(2, 7, 48, seed=1)

    def learn():
        layer.zero_grad()
        x.grad = None
        out = layer(x, context=context, lead=2)
        out.square().sum().backward()
        return out.detach(), x.grad, [weight.grad.clone() for weight in layer.parameters()]

    plain, calls = learn(), []
    monkeypatch.setattr(recomputed, '_ONEDNN_MULTIPLICATIONS', 0)
    monkeypatch.setattr(recomputed, 'prefers_onednn', lambda: True)
    counted = recomputed.trained_linear
    monkeypatch.setattr(recomputed, 'trained_linear', lambda *args: calls.append(1) or counted(*args))
    torch.testing.assert_close(learn(), plain, **CLOSE)
    assert len(calls) == 2 + 3 + 2 * 2  # self-attention, cross-attention, and the MLPs of leading and other tokens
