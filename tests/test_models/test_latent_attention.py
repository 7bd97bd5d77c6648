"""The block by which latents read tokens, against the layers of Perceiver, Idefics and open_flamingo."""

import pytest
import torch
from kinds import numbers

from florence_mm.models.layers.latent_attention import LatentAttention, SquaredReLU

CLOSE = {'rtol': 1e-5, 'atol': 1e-5}


def draw(module, std=0.1):
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.data.normal_(0, std, generator=generator)
    return module.eval()


# --- the layers of others ---------------------------------------------------------------------------------------------


def perceiver_layer(**options):
    from transformers import PerceiverConfig
    from transformers.models.perceiver.modeling_perceiver import PerceiverLayer

    return draw(PerceiverLayer(PerceiverConfig(), **options))


def of_perceiver(state):
    joined = {}
    for what in ('weight', 'bias'):
        theirs = {name: state[f'attention.self.{name}.{what}'] for name in ('query', 'key', 'value')}
        joined[f'query.{what}'] = theirs['query']
        joined[f'key_value.{what}'] = torch.cat([theirs['key'], theirs['value']])
        for mine, name in {
            'query_norm': 'attention.self.layernorm1',
            'token_norm': 'attention.self.layernorm2',
            'output': 'attention.output.dense',
            'mlp.norm': 'layernorm',
            'mlp.fc1': 'mlp.dense1',
            'mlp.fc2': 'mlp.dense2',
        }.items():
            if f'{name}.{what}' in state:
                joined[f'{mine}.{what}'] = state[f'{name}.{what}']
    return joined


@torch.no_grad()
@pytest.mark.parametrize('residual', [True, False])
def test_it_is_perceivers_cross_attend_block_and_the_decoder_of_perceiver_io(residual):
    sizes = {'qk_channels': 24, 'v_channels': 40, 'num_heads': 4}
    theirs = perceiver_layer(
        is_cross_attention=True, q_dim=32, kv_dim=18, widening_factor=2, use_query_residual=residual, **sizes
    )
    ours = LatentAttention(32, token_dims=18, mlp_ratio=2, query_residual=residual, **sizes).eval()
    ours.load_state_dict(of_perceiver(theirs.state_dict()))
    queries, tokens = numbers(3, 5, 32), numbers(3, 7, 18, seed=1)
    real = torch.tensor([[True] * 7, [True] * 4 + [False] * 3, [True] + [False] * 6])
    hidden = (~real).float()[:, None, None] * torch.finfo(torch.float).min
    torch.testing.assert_close(ours(queries, tokens, real), theirs(queries, None, tokens, hidden)[0], **CLOSE)
    torch.testing.assert_close(ours(queries, tokens), theirs(queries, None, tokens)[0], **CLOSE)


@torch.no_grad()
def test_it_is_perceivers_self_attend_block():
    theirs = perceiver_layer(q_dim=32, kv_dim=32, qk_channels=16, v_channels=32, num_heads=4, widening_factor=1)
    ours = LatentAttention(32, 4, qk_channels=16, v_channels=32, mlp_ratio=1).eval()
    ours.load_state_dict(of_perceiver(theirs.state_dict()))
    x = numbers(2, 5, 32)
    torch.testing.assert_close(ours(x), theirs(x)[0], **CLOSE)


@torch.no_grad()
def test_it_reads_tokens_and_itself_as_the_resampler_of_idefics():
    from transformers.models.idefics.perceiver import IdeficsPerceiverAttention

    theirs = draw(IdeficsPerceiverAttention(24, 3, 16, False))
    ours = draw(LatentAttention(24, 3, 24, qk_channels=48, reads_itself=True, bias=False))
    state = theirs.state_dict()
    renamed = {'key_value.weight': torch.cat([state['k_proj.weight'], state['v_proj.weight']])}
    renamed |= {f'token_norm.{what}': state[f'context_layer_norm.{what}'] for what in ('weight', 'bias')}
    renamed |= {f'query_norm.{what}': state[f'latents_layer_norm.{what}'] for what in ('weight', 'bias')}
    renamed |= {'query.weight': state['q_proj.weight'], 'output.weight': state['output_proj.weight']}
    ours.load_state_dict(ours.state_dict() | renamed)
    latents, tokens = numbers(2, 5, 24), numbers(2, 9, 24, seed=1)
    torch.testing.assert_close(ours.read(latents, tokens), theirs(tokens, latents), **CLOSE)


@torch.no_grad()
def test_it_is_the_gated_cross_attention_of_open_flamingo():
    helpers = pytest.importorskip('open_flamingo.src.helpers')
    theirs = draw(helpers.GatedCrossAttentionBlock(dim=24, dim_visual=20, dim_head=8, heads=4), 0.3)
    ours = LatentAttention(24, 4, 20, qk_channels=32, norm_tokens=False, gated=True, bias=False).eval()
    names = {'attn.norm': 'query_norm', 'attn.to_q': 'query', 'attn.to_kv': 'key_value', 'attn.to_out': 'output'}
    names |= {'ff.0': 'mlp.norm', 'ff.1': 'mlp.fc1', 'ff.3': 'mlp.fc2', 'attn_gate': 'attn_gate', 'ff_gate': 'mlp_gate'}
    state = {}
    for name, tensor in theirs.state_dict().items():
        old = next(old for old in names if name == old or name.startswith(f'{old}.'))
        state[names[old] + name[len(old) :]] = tensor
    ours.load_state_dict(state)
    text, media = numbers(2, 6, 24), numbers(2, 2, 3, 20, seed=1)
    places = torch.tensor([[0, 1, 0, 0, 1, 0], [0, 0, 0, 1, 0, 0]]).bool()
    last = places.cumsum(1)  # the number of the last picture before each token; 0: there is none
    mask = last[:, :, None] == torch.arange(1, 3).repeat_interleave(3)
    got = ours(text, media.flatten(1, 2), mask)
    torch.testing.assert_close(got, theirs(text, media, media_locations=places), **CLOSE)


# --- properties -------------------------------------------------------------------------------------------------------


def test_a_query_that_may_read_nothing_reads_zeros_and_has_finite_gradients():
    block = draw(LatentAttention(8, 2, 6), 1.0)
    queries, tokens = numbers(2, 3, 8).requires_grad_(), numbers(2, 4, 6, seed=1).requires_grad_()
    mask = torch.ones(2, 3, 4, dtype=torch.bool)
    mask[1, 1] = False
    read = block.read(queries, tokens, mask)
    assert (read[1, 1] == 0).all() and (read[0, 1] != 0).any()
    torch.testing.assert_close(read[0], block.read(queries, tokens)[0])
    read.square().sum().backward()
    assert queries.grad.isfinite().all() and tokens.grad.isfinite().all()
    assert (queries.grad[1, 1] == 0).all()


def test_gates_are_closed_at_first_and_learn():
    block = LatentAttention(8, 2, 6, gated=True, norm_tokens=False, bias=False)
    queries, tokens = numbers(2, 3, 8), numbers(2, 4, 6, seed=1)
    out = block(queries, tokens)
    assert torch.equal(out, queries)
    out.sum().backward()
    assert block.attn_gate.grad != 0 and block.mlp_gate.grad != 0


@torch.no_grad()
def test_equal_queries_of_all_sets_are_given_once():
    block = draw(LatentAttention(8, 2, 8, reads_itself=True))
    latents, tokens = numbers(1, 3, 8), numbers(4, 5, 8, seed=1)
    torch.testing.assert_close(block(latents, tokens), block(latents.expand(4, -1, -1), tokens))
    torch.testing.assert_close(block(latents, keys_values=block.keys_values(tokens)), block(latents, tokens))


@torch.no_grad()
def test_masked_tokens_are_not_read_and_the_queries_are():
    block = draw(LatentAttention(8, 2, 8, reads_itself=True), 1.0)
    latents, tokens, others = numbers(2, 3, 8), numbers(2, 5, 8, seed=1), numbers(2, 5, 8, seed=2)
    mask = torch.tensor([[True, True, False, False, False], [False] * 5])
    mixed = torch.where(mask[..., None], tokens, others)
    torch.testing.assert_close(block(latents, tokens, mask), block(latents, mixed, mask))
    alone = draw(LatentAttention(8, 2), 1.0)
    alone.load_state_dict({k: v for k, v in block.state_dict().items() if not k.startswith('token_norm')})
    torch.testing.assert_close(block(latents, tokens, mask)[1], alone(latents)[1])


def test_squared_relu():
    assert SquaredReLU()(torch.tensor([-2.0, 0.5, 3.0])).tolist() == [0, 0.25, 9]
    assert isinstance(LatentAttention(8, 2, act='squared_relu').mlp.act, SquaredReLU)


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        ({'embed_dims': 9, 'num_heads': 2}, 'qk_channels is 9, which num_heads=2 does not divide'),
        ({'embed_dims': 8, 'num_heads': 2, 'v_channels': 5}, 'v_channels is 5'),
        ({'embed_dims': 8, 'num_heads': 2, 'act': 'relu'}, "no activation named 'relu'; use one of gelu, squared_relu"),
        ({'embed_dims': 8, 'num_heads': 2, 'reads_itself': True, 'token_dims': 6}, 'give token_dims=embed_dims'),
    ],
)
def test_options_that_do_not_fit_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        LatentAttention(**options)
