"""Perceivers against those of transformers, from whose checkpoints they are loaded, and whose sizes are published."""

import pytest
import torch
from kinds import numbers
from public_perceiver import CLASSES, KINDS, SIDE, our_classifier, our_lm, their_classifier, their_lm
from torch import nn
from torch.nn import functional as F

from florence_mm.models.algorithms import PerceiverMaskedLM
from florence_mm.models.backbones import Perceiver
from florence_mm.models.checkpoints import convert_state_dict, export_state_dict, load_checkpoint
from florence_mm.models.heads import PerceiverDecoder
from florence_mm.models.tokenizers import ByteTokenizer, TokenBatch

CLOSE = {'rtol': 1e-5, 'atol': 1e-5}


def load(ours, theirs):
    _, state, skipped = convert_state_dict(theirs.state_dict())
    assert not skipped
    ours.load_state_dict(state)
    return ours


@pytest.mark.parametrize('inputs', KINDS)
def test_classifiers_give_the_logits_and_gradients_of_transformers(inputs):
    theirs = their_classifier(inputs)
    ours = load(our_classifier(inputs), theirs)
    x = numbers(2, 3, SIDE, SIDE)
    target = torch.tensor([1, 5])
    expected, got = theirs(x).logits, ours.head(ours.extract_feat(x))
    torch.testing.assert_close(got, expected, **CLOSE)
    assert expected.std() > 0.1
    F.cross_entropy(expected, target).backward()
    F.cross_entropy(got, target).backward()
    state = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    _, gradients, _ = convert_state_dict(state)
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], **CLOSE)


@torch.no_grad()
def test_learned_positions_are_interpolated_as_those_of_transformers():
    theirs = their_classifier('learned')
    ours = load(our_classifier('learned'), theirs)
    x = numbers(2, 3, 18, 30)
    expected = theirs(x, interpolate_pos_encoding=True).logits
    torch.testing.assert_close(ours.head(ours.extract_feat(x)), expected, **CLOSE)


def test_masked_bytes_have_the_logits_and_gradients_of_transformers():
    theirs = their_lm()
    ours = load(our_lm(), theirs)
    batch = ByteTokenizer()(['two <mask>ogs', 'a'], 40)
    places = batch.input_ids.shape[1]
    padded = F.pad(batch.input_ids, (0, 40 - places))
    expected = theirs(padded, attention_mask=F.pad(batch.mask, (0, 40 - places)).long()).logits[:, :places]
    got = ours.decode(ours.encode(batch), torch.arange(places)[None])
    torch.testing.assert_close(got, expected, **CLOSE)
    assert expected.std() > 0.1
    real = batch.mask.flatten()
    for logits in (expected, got):
        F.cross_entropy(logits.flatten(0, 1)[real], batch.input_ids.flatten()[real]).backward()
    _, gradients, _ = convert_state_dict({name: value.grad for name, value in theirs.named_parameters()})
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], **CLOSE)


@torch.no_grad()
def test_an_output_depends_on_its_query_alone():
    ours = our_lm()
    latents = ours.encode(TokenBatch(torch.arange(6, 26).view(2, 10), torch.ones(2, 10, dtype=torch.bool)))
    every = ours.decode(latents, torch.arange(10)[None])
    some = torch.tensor([[7, 2], [0, 7]])
    torch.testing.assert_close(ours.decode(latents, some), every.gather(1, some[..., None].expand(-1, -1, 262)))


def test_bytes_are_those_of_transformers():
    from transformers import PerceiverTokenizer

    theirs, ours = PerceiverTokenizer(), ByteTokenizer()
    for text in ('A naïve 漢字, 7!', '', 'x' * 5):
        assert ours([text], 40).input_ids[0].tolist() == theirs(text)['input_ids']
        assert ours.decode(theirs(text)['input_ids']) == text
    special = ('cls', 'sep', 'pad', 'mask')
    assert [getattr(theirs, f'{name}_token_id') for name in special] == [4, 5, 0, 3]
    assert (ours.start_token_id, ours.end_token_id, ours.pad_token_id, ours.mask_token_id) == (4, 5, 0, 3)
    assert ours.vocab_size == len(theirs) == 262


# --- sizes ------------------------------------------------------------------------------------------------------------


def millions(*modules):
    return sum(parameter.numel() for module in modules for parameter in module.parameters()) / 1e6


@pytest.mark.parametrize(('inputs', 'published'), [('fourier', 48.4), ('learned', 62.3), ('conv', 48.6)])
def test_classifiers_of_imagenet_have_the_published_sizes(inputs, published):
    with torch.device('meta'):
        parts = Perceiver(inputs=inputs), PerceiverDecoder(1024), nn.Linear(1024, 1000)
    assert round(millions(*parts), 1) == published


def test_the_language_model_has_the_published_size():
    with torch.device('meta'):
        model = PerceiverMaskedLM()
    assert round(millions(model)) == 201


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('inputs', [*KINDS, 'bytes'])
def test_files_of_transformers_come_back_bit_by_bit_and_are_loaded_again(inputs, tmp_path):
    import transformers

    theirs = their_lm() if inputs == 'bytes' else their_classifier(inputs)
    theirs.save_pretrained(tmp_path)
    ours = our_lm() if inputs == 'bytes' else our_classifier(inputs)
    report = load_checkpoint(ours, tmp_path / 'model.safetensors')
    assert not report.missing and not report.unexpected
    heads = {'num_heads': 8, 'cross_heads': 8, 'num_blocks': 1}
    if inputs != 'bytes':
        heads = {'num_heads': 4, 'cross_heads': 1, 'num_blocks': 2}
    kind = 'Hugging Face Perceiver LM' if inputs == 'bytes' else 'Hugging Face Perceiver'
    exported = export_state_dict(ours.state_dict(), kind, settings=heads)
    expected = theirs.state_dict()
    assert not exported.left_out and exported.tensors.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in exported.tensors.items())
    config = transformers.PerceiverConfig(**{**exported.config, 'attention_probs_dropout_prob': 0.0})
    again = getattr(transformers, exported.config['architectures'][0])(config)
    again.load_state_dict(exported.tensors)
    x = torch.arange(6, 46).view(1, 40) if inputs == 'bytes' else numbers(1, 3, SIDE, SIDE)
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(x).logits, theirs(x).logits)
    assert inputs == 'bytes' or len(exported.config['id2label']) == CLASSES


def test_a_model_of_other_settings_is_refused(tmp_path):
    their_classifier(num_blocks=3).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match='need num_blocks=3 and .* has num_blocks=2'):
        load_checkpoint(our_classifier(), tmp_path / 'model.safetensors')


def test_what_transformers_does_not_have_is_refused():
    twice = our_classifier(num_reads=2).state_dict()
    with pytest.raises(ValueError, match='more than once'):
        export_state_dict(twice, 'Hugging Face Perceiver')
    narrow = PerceiverMaskedLM(encoder={'num_latents': 2, 'embed_dims': 16, 'depth': 1, 'num_heads': 8}, token_dims=16)
    with pytest.raises(ValueError, match='decoder_qk_channels'):
        state = {
            key: value[:8] if key.startswith('cross_attend.query.') else value
            for key, value in narrow.state_dict().items()
        }
        export_state_dict(state, 'Hugging Face Perceiver LM')
