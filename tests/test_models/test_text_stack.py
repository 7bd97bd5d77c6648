"""The stack of layers behind texts that are read and written, against transformers' models and its own forms."""

import pytest
import torch
from instances import build
from kinds import numbers
from small_text import STACK

from florence_mm.models.checkpoints.bert_layers import join_projections
from florence_mm.models.generation import CacheStack
from florence_mm.models.layers.token_layout import TokenLayout
from florence_mm.models.text import TextStack

CLOSE = {'rtol': 1e-5, 'atol': 1e-5}
IDS = torch.tensor([[5, 17, 200, 9, 31], [7, 8, 60, 1, 1]])
REAL = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
SIZES = {key: value for key, value in STACK.items() if key != 'type'}


def draw(module):
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.data.normal_(0, 0.1, generator=generator)
        parameter.data.add_(parameter.ndim == 1)
    return module.eval()


@torch.no_grad()
def test_it_is_bert():
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=261,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=60,
    )
    theirs = draw(BertModel(config, add_pooling_layer=False))
    state = {key.replace('encoder.layer.', 'layers.'): value for key, value in theirs.state_dict().items()}
    ours = TextStack(**SIZES).eval()
    ours.load_state_dict(join_projections({key: value for key, value in state.items() if 'position_ids' not in key}))
    got = theirs(IDS, REAL.long()).last_hidden_state
    torch.testing.assert_close(ours(IDS, REAL)[REAL], got[REAL], **CLOSE)


@torch.no_grad()
def test_it_has_the_embeddings_of_bart():
    from transformers import BartConfig
    from transformers.models.bart.modeling_bart import BartEncoder

    config = BartConfig(vocab_size=261, d_model=16, encoder_layers=0, max_position_embeddings=60)
    theirs = draw(BartEncoder(config))
    ours = TextStack(**{**SIZES, 'position_offset': 2, 'num_types': 0, 'layer_norm_eps': 1e-5}).eval()
    names = {'word': 'embed_tokens', 'position': 'embed_positions'}
    state = {f'embeddings.{mine}_embeddings.weight': theirs.get_parameter(f'{t}.weight') for mine, t in names.items()}
    state |= {
        f'embeddings.LayerNorm.{what}': theirs.get_parameter(f'layernorm_embedding.{what}')
        for what in ('weight', 'bias')
    }
    missing = ours.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys and all(key.startswith('layers.') for key in missing.missing_keys)
    ours.layers = torch.nn.ModuleList()
    torch.testing.assert_close(ours(IDS, REAL)[REAL], theirs(IDS, REAL.long()).last_hidden_state[REAL], **CLOSE)


# --- memories ---------------------------------------------------------------------------------------------------------


def with_memory(kind):
    model = build('TextStack', **({'cross_attention': True, 'context_dims': 24} if kind == 'contexts' else {}))
    tokens = numbers(2, 6, 24 if kind == 'contexts' else 16).double()
    return model, tokens, getattr(model, kind)(tokens)


@pytest.mark.parametrize('kind', ['contexts', 'prefixes'])
@torch.no_grad()
def test_texts_of_one_picture_share_its_memory(kind):
    model, _, memory = with_memory(kind)
    ids = torch.cat([IDS, IDS + 1])
    shared = model(ids, REAL.repeat(2, 1), True, memory=memory)
    torch.testing.assert_close(model(ids, REAL.repeat(2, 1), True, memory=memory.of_rows([0, 0, 1, 1])), shared)
    exchanged = model(ids, REAL.repeat(2, 1), True, memory=memory.of_rows([1, 1, 0, 0]))
    assert ((exchanged - shared).abs().amax(2) > 1e-6)[REAL.repeat(2, 1)].all()


@torch.no_grad()
def test_a_prefix_computed_apart_is_the_beginning_of_one_sequence_through_all_layers():
    model, tokens = build('TextStack', num_layers=3), numbers(2, 6, 16).double()
    text = model(IDS, REAL, True, memory=model.prefixes(tokens))
    words, layout = model.embed(IDS, REAL, True)
    together = torch.cat([tokens, layout.pad(words)], 1)  # (2, 6 + 5, 16)
    whole = TokenLayout.of(torch.cat([torch.ones(2, 6, dtype=torch.bool), REAL], 1), causal=True, prefix=6)
    expected = whole.pad(model.run(whole.pack(together), whole))[:, 6:]
    torch.testing.assert_close(text[REAL], expected[REAL])


@pytest.mark.parametrize('kind', ['contexts', 'prefixes'])
@torch.no_grad()
def test_a_cache_changes_nothing(kind):
    model, _, memory = with_memory(kind)
    whole = model(IDS, torch.ones_like(REAL), True, memory=memory)
    cache = CacheStack()
    cuts = [slice(0, 2), slice(2, 3), slice(3, 5)]
    parts = [model(IDS[:, cut], torch.ones_like(REAL)[:, cut], True, cache, memory) for cut in cuts]
    torch.testing.assert_close(torch.cat(parts, 1), whole)


@torch.no_grad()
def test_padding_of_another_sequence_is_not_seen():
    model, tokens, _ = with_memory('contexts')
    real = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    got = model(IDS, REAL, memory=model.contexts(tokens, real))
    alone = model(IDS[1:], REAL[1:], memory=model.contexts(tokens[1:, :4]))
    torch.testing.assert_close(got[1:], alone)


@pytest.mark.parametrize('kind', ['contexts', 'prefixes'])
def test_recomputed_layers_have_the_same_gradients(kind):
    model, tokens, _ = with_memory(kind)
    found = []
    for model.with_cp in (False, True):
        model.zero_grad()
        model(IDS, REAL, True, memory=getattr(model, kind)(tokens)).pow(2).sum().backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert len(found[0]) > 20 and found[0].keys() == found[1].keys()
    for name, grad in found[0].items():
        torch.testing.assert_close(found[1][name], grad)


@pytest.mark.parametrize('change', [{'num_layers': 0}, {'vocab_size': 0}, {'max_positions': 0}, {'num_types': -1}])
def test_refused_sizes(change):
    name, value = next(iter(change.items()))
    with pytest.raises(ValueError, match=rf'{name}( of the text stack is |=){value}'):
        TextStack(**{**SIZES, **change})


def test_too_long_texts():
    with pytest.raises(ValueError, match='texts have 61 tokens and the text stack takes 60; lower max_text_len'):
        TextStack(**SIZES)(torch.ones(1, 61, dtype=torch.long), torch.ones(1, 61, dtype=torch.bool))


# --- shared words, and tokens before texts ----------------------------------------------------------------------------

SMALL = {'vocab_size': 30, 'hidden_size': 8, 'num_layers': 1, 'num_heads': 2, 'max_positions': 9, 'num_types': 0}


def test_shared_words_are_part_of_one_stack():
    one = TextStack(**SMALL)
    words = one.embeddings.word_embeddings
    other = TextStack(**SMALL, words=words)
    assert other.embeddings.word_embeddings is words
    assert not [key for key in other.state_dict() if 'word_embeddings' in key]
    with pytest.raises(ValueError, match=r'embeddings are \(30, 8\) and the text stack has vocab_size=31'):
        TextStack(**{**SMALL, 'vocab_size': 31}, words=words)


@torch.no_grad()
def test_positions_count_from_the_first_token_before_a_text():
    stack = TextStack(**SMALL, position_offset=2).eval()
    words, table = stack.embeddings.word_embeddings.weight, stack.embeddings.position_embeddings.weight
    before = torch.randn(2, 3, 8)
    ids, mask = torch.tensor([[4, 5], [6, 0]]), torch.tensor([[True, True], [True, False]])
    x, layout = stack.embed(ids, mask, before=before)
    assert (layout.batch, layout.length, len(x)) == (2, 5, 9)
    rows = [torch.cat([before[0], words[[4, 5]]]) + table[2:7], torch.cat([before[1], words[[6]]]) + table[2:6]]
    torch.testing.assert_close(x, stack.embeddings.LayerNorm(torch.cat(rows)))
    with pytest.raises(
        ValueError, match='8 tokens before texts make 10 tokens and the text stack takes 9; make images smaller'
    ):
        stack.embed(ids, mask, before=torch.zeros(2, 8, 8))
