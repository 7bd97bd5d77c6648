"""Language models of transformers of many kinds give their own logits, or are refused."""

import pytest
import torch
from instances import build
from torch import nn

from florence_mm.models.text import TransformersLanguageModel

SIZES = {'vocab_size': 50, 'hidden_size': 16, 'num_hidden_layers': 2, 'num_attention_heads': 2}
SIZES |= {'intermediate_size': 32, 'max_position_embeddings': 64}
PAIR = {'encoder_layers': 2, 'decoder_layers': 2, 'encoder_attention_heads': 2, 'decoder_attention_heads': 2}
PAIR |= {'vocab_size': 50, 'd_model': 16, 'encoder_ffn_dim': 32, 'decoder_ffn_dim': 32, 'max_position_embeddings': 64}
PAIR |= {'scale_embedding': True, 'pad_token_id': 0, 'decoder_start_token_id': 0}
HEADS = {'num_key_value_heads': 2, 'head_dim': 8, 'pad_token_id': 0}
CAUSAL = {
    'gpt2': {'vocab_size': 50, 'n_embd': 16, 'n_layer': 2, 'n_head': 2, 'n_positions': 64},
    'gpt_neox': SIZES,
    'gemma': {**SIZES, **HEADS},  # which multiplies its embeddings
    'bloom': {'vocab_size': 50, 'hidden_size': 16, 'n_layer': 2, 'n_head': 2},
    'phi': SIZES,  # whose outputs have a bias
}


def small(kind, config):
    torch.manual_seed(0)
    model = TransformersLanguageModel(config={'model_type': kind, **config}).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def ids(length, seed=0):
    return torch.randint(3, 50, (2, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize('kind', CAUSAL)
@torch.no_grad()
def test_a_causal_model_whole_and_apart(kind):
    model, text = small(kind, CAUSAL[kind]), ids(7)
    expected = model.model(input_ids=text).logits
    for got in (model.next_logits(text), model.logits(model.run(model.embed(text)))):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize('kind', ['bart', 'marian'])  # both multiply embeddings, in the table and behind it
@torch.no_grad()
def test_a_prompt_that_is_embedded_is_what_an_encoder_reads_of_ids(kind):
    model, prompt, text = small(kind, PAIR), ids(5, 1), ids(7)
    before = model.read(model.embed(prompt))
    expected = model.model(input_ids=prompt, decoder_input_ids=text).logits
    torch.testing.assert_close(model.next_logits(text, before), expected)


def test_a_model_without_keys_and_values_is_refused():
    config = {'model_type': 'mamba', 'vocab_size': 50, 'hidden_size': 16, 'num_hidden_layers': 2, 'state_size': 4}
    with pytest.raises(ValueError, match='MambaForCausalLM keeps a state and no keys and values.*give a transformer'):
        TransformersLanguageModel(config=config)


@pytest.mark.parametrize('kind', ['cohere', 'gemma2'])  # one multiplies logits, one holds them in a range
def test_flamingo_refuses_a_model_that_changes_its_logits(kind):
    config = {'model_type': kind, **SIZES, **HEADS}
    with pytest.raises(ValueError, match=r'ForCausalLM changes the logits behind it; give one that does not'):
        build('FlorenceFlamingo', language_model={'type': 'TransformersLanguageModel', 'config': config})
