import pytest
import torch
from torch import nn

from florence_mm.models.layers.token_layout import TokenLayout
from florence_mm.models.layers.transformer import self_attention
from florence_mm.models.text import CLIPTextTower
from florence_mm.models.tokenizers import CLIPTokenizer
from florence_mm.registry import MODELS, TASK_UTILS

SMALL = {'embed_dims': 32, 'num_layers': 3, 'num_heads': 4}
VOCAB = 600
END = VOCAB - 1


def texts(*lengths, context=20):
    """Random ids of texts with so many tokens, the end included; zeros behind."""
    g = torch.Generator().manual_seed(0)
    ids = torch.randint(1, END, (len(lengths), context), generator=g)
    for row, n in zip(ids, lengths, strict=True):
        row[n - 1], row[n:] = END, 0
    return ids


def tower(**kwargs):
    torch.manual_seed(1)
    return CLIPTextTower(**{'arch': SMALL, 'context_length': 20, 'vocab_size': VOCAB} | kwargs)


def peer(ours, **kwargs):
    """open_clip's text transformer with our weights."""
    from open_clip.transformer import TextTransformer

    theirs = TextTransformer(20, VOCAB, 32, 4, 3, output_dim=None, **kwargs)
    state = {k.replace('resblocks', 'transformer.resblocks'): v for k, v in ours.state_dict().items()}
    theirs.load_state_dict(state, strict=True)
    return theirs


@pytest.mark.parametrize('lengths', [(20, 20), (3, 7, 4, 9), (2,)])
@pytest.mark.parametrize('act', ['quick_gelu', 'gelu'])
def test_equals_open_clip(act, lengths):
    from open_clip.transformer import QuickGELU

    ours = tower(act=act, norm_eps=1e-5).double()
    theirs = peer(ours, act_layer=QuickGELU if act == 'quick_gelu' else nn.GELU).double()
    ids = texts(*lengths)
    a, b = ours(ids), theirs(ids)
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    weight = torch.randn_like(a)
    (a * weight).sum().backward()
    (b * weight).sum().backward()
    grads = {k.replace('transformer.', ''): p.grad for k, p in theirs.named_parameters()}
    for name, p in ours.named_parameters():
        torch.testing.assert_close(p.grad, grads[name], rtol=1e-10, atol=1e-10, msg=name)


def test_not_causal_equals_open_clip_with_padding_mask():
    ours = tower(causal=False, norm_eps=1e-5, act='gelu').double()
    theirs = peer(ours, no_causal_mask=True, use_pad_mask=True).double()
    ids = texts(6, 13, 2)
    torch.testing.assert_close(ours(ids), theirs(ids), rtol=1e-10, atol=1e-10)


def test_causal_means_no_look_ahead():
    ids = texts(5, 9)[:1].repeat(2, 1)
    ids[1, 2] = 44

    def feature_of_third_token(causal):
        model, seen = tower(causal=causal), []
        model.resblocks[-1].register_forward_hook(lambda *args: seen.append(args[2]))
        model(ids)
        return seen[0].view(2, 5, 32)[:, 1]  # the token before the changed one

    a, b = feature_of_third_token(causal=True)
    torch.testing.assert_close(a, b)
    a, b = feature_of_third_token(causal=False)
    assert (a - b).abs().max() > 1e-3


def test_checkpointing_gives_the_same_gradients():
    plain, saving = tower(), tower(with_cp=True)
    ids = texts(4, 11)
    for model in (plain, saving):
        model(ids).square().sum().backward()
    for (name, p), q in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, msg=name)


def test_keys_are_those_of_the_public_code():
    block = {f'attn.{k}' for k in ('in_proj_weight', 'in_proj_bias', 'out_proj.weight', 'out_proj.bias')}
    block |= {f'{m}.{k}' for m in ('ln_1', 'ln_2', 'mlp.c_fc', 'mlp.c_proj') for k in ('weight', 'bias')}
    expected = {f'resblocks.{n}.{k}' for n in range(3) for k in block}
    expected |= {'token_embedding.weight', 'positional_embedding', 'ln_final.weight', 'ln_final.bias'}
    assert set(tower().state_dict()) == expected


@pytest.mark.parametrize(('arch', 'millions'), [('base', 63.2), ('large', 201.8), ('huge', 252.2)])
def test_parameter_counts(arch, millions):
    with torch.device('meta'):
        model = CLIPTextTower(arch)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


def test_built_from_configs():
    tokenizer = TASK_UTILS.build({'type': 'CLIPTokenizer', 'context_length': 20, 'vocab_size': VOCAB})
    model = MODELS.build({'type': 'CLIPTextTower', 'arch': 'micro', 'context_length': 20, 'vocab_size': VOCAB})
    assert isinstance(tokenizer, CLIPTokenizer)
    assert model(tokenizer(['one', 'two words'])).shape == (2, 64)


def test_bad_arguments():
    with pytest.raises(ValueError, match="no text tower named 'tiny'; use one of micro, base"):
        CLIPTextTower('tiny')
    with pytest.raises(ValueError, match='num_heads must divide embed_dims'):
        CLIPTextTower({'embed_dims': 30, 'num_layers': 1, 'num_heads': 4})
    with pytest.raises(ValueError, match="no activation named 'relu'"):
        CLIPTextTower('micro', act='relu')
    with pytest.raises(ValueError, match=r'shape \(2, 21\); give \(texts, tokens\)'):
        tower()(torch.ones(2, 21, dtype=torch.long))
    with pytest.raises(ValueError, match='at least one text'):
        tower()(torch.ones(0, 20, dtype=torch.long))


def branching(count=40):
    """Random ids whose texts share beginnings, of 2 to 20 tokens; some are equal."""
    g = torch.Generator().manual_seed(3)
    ids = torch.zeros(count, 20, dtype=torch.long)
    for row in ids:
        length = int(torch.randint(2, 21, (), generator=g))
        row[: length - 1] = torch.randint(1, 3, (length - 1,), generator=g)
        row[0], row[length - 1] = 7, END
    return ids


@pytest.mark.parametrize('ids', [branching(), branching()[:1], texts(20, 20), texts(2, 2, 2).fill_(END)])
def test_beginnings_that_are_computed_once_change_nothing(ids):
    ours = tower().double()
    whole = ours(ids)  # with gradients each token is computed
    with torch.no_grad():
        once = ours(ids)
    torch.testing.assert_close(once, whole.detach(), rtol=1e-10, atol=1e-10)
    with torch.inference_mode():
        reverse = ours(ids.flip(0)).flip(0)
    torch.testing.assert_close(reverse, once, rtol=1e-10, atol=1e-10)


def test_beginnings_are_computed_once():
    ids = torch.tensor([[1, 2, 9, 0], [1, 3, 4, 9], [1, 2, 9, 0], [1, 3, 9, 0]])
    real = torch.arange(4) <= ids.argmax(1)[:, None]
    layout = TokenLayout.of_prefixes(ids, real)
    rows, beginnings = layout.rows.view(4, 4), {}
    for text, place in real.nonzero().tolist():
        beginnings.setdefault(int(rows[text, place]), set()).add(tuple(ids[text, : place + 1].tolist()))
    # each row is of one beginning, and the other way round
    assert sorted(*zip(*beginnings.values(), strict=True)) == [
        *((1,), (1, 2), (1, 2, 9)),
        *((1, 3), (1, 3, 4), (1, 3, 4, 9), (1, 3, 9)),
    ]
    x = torch.arange(float(len(layout.index)))[:, None]
    assert layout.pack(layout.pad(x)).equal(x)


def test_shared_tokens_attend_to_their_beginning_once():
    ids = branching(12)
    real = torch.arange(20) <= ids.argmax(1)[:, None]
    layout = TokenLayout.of_prefixes(ids, real)
    shared, length = layout.shared, layout.length
    tokens = torch.arange(len(layout.index))
    # every token is a query in its place, and sees the beginning of its text up to itself
    assert torch.equal(shared.queries[shared.places], tokens)
    seen = shared.keys.view(-1, 1, length).expand(-1, shared.mask.shape[2], -1).flatten(0, 1)[shared.places]
    visible = shared.mask.flatten(0, 2)[shared.places]
    for token, position in zip(tokens.tolist(), layout.index.tolist(), strict=True):
        text, place = divmod(position, length)
        assert seen[token][visible[token]].tolist() == layout.rows.view(-1, length)[text, : place + 1].tolist()
    # in bfloat16 too, where it is written out
    qkv = torch.randn(len(tokens), 96, generator=torch.Generator().manual_seed(0))
    exact, half = (self_attention(x, layout, 4).float() for x in (qkv, qkv.bfloat16()))
    torch.testing.assert_close(half, exact, rtol=0, atol=0.03)


@pytest.mark.parametrize('causal', [True, False])
def test_features_without_gradients_are_those_with_them(causal):
    ours = tower(causal=causal).double().eval()
    ids = texts(20, 3, 7, 7, 4, 9)
    ids[1:, 0], ids[3, :5] = ids[0, 0], ids[2, :5]  # texts that begin alike
    wanted = ours(ids).detach()
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), wanted, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(ours(ids[3:4]), wanted[3:4], rtol=1e-12, atol=1e-12)
