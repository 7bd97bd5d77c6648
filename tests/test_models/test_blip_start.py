"""BLIP starts from BERT's weights, and a decoder of its own from those of a shared text model."""

import pytest
import torch
from mmpretrain.structures import DataSample
from public_blip import HEADS, VOCAB, WIDTH, Ids, hugging_face, ours, randomise, salesforce

from florence_mm.engine.run_weights import fit_run_weights
from florence_mm.errors import UsageError
from florence_mm.models.checkpoints import convert_file, convert_state_dict, load_checkpoint
from florence_mm.models.text import TextStack

CLOSE = {'rtol': 1e-5, 'atol': 1e-5}
WORDS = VOCAB - 2  # BERT lacks [DEC] and [ENC]
CAPTION = {'caption': HEADS['caption']}


def bert(kind='BertForPreTraining', **config):
    import transformers

    sizes = {'hidden_size': WIDTH, 'num_hidden_layers': 2, 'num_attention_heads': 4, 'intermediate_size': 64}
    return randomise(
        getattr(transformers, kind)(
            transformers.BertConfig(vocab_size=WORDS, max_position_embeddings=20, **{**sizes, **config})
        )
    )


def saved(state, tmp_path):
    torch.save(state, tmp_path / 'start.pth')
    return tmp_path / 'start.pth'


def texts():
    return Ids()(['5 9 12 30', '7 6', '20 21 22 23 24 25'], 12)


@torch.no_grad()
def test_a_text_stack_is_bert(tmp_path):
    theirs = bert()
    stack = TextStack(WORDS, WIDTH, 20, num_layers=2, num_heads=4, mlp_ratio=2).eval()
    report = load_checkpoint(stack, saved(theirs.state_dict(), tmp_path), prefix='text_encoder.')
    assert report.format == 'Hugging Face BERT' and not report.missing and not report.unexpected
    tokens = texts()
    expected = theirs.bert(tokens.input_ids, attention_mask=tokens.mask.long()).last_hidden_state
    got = stack(tokens.input_ids, tokens.mask)
    torch.testing.assert_close(got[tokens.mask], expected[tokens.mask], **CLOSE)


@pytest.mark.parametrize('old_names', [False, True])
@torch.no_grad()
def test_blips_text_model_starts_from_bert(old_names, tmp_path):
    """Both self-attentions, embeddings and MLPs are BERT's; cross-attention and the two marks are drawn."""
    reader, writer = bert(), bert('BertLMHeadModel', is_decoder=True)
    for theirs in (reader, writer):  # BLIP has no token types
        theirs.bert.embeddings.token_type_embeddings.weight.zero_()
    for key in ('bert.', 'cls.predictions.'):
        theirs, own = (m.get_submodule(key.rstrip('.')).state_dict() for m in (writer, reader))
        writer.get_submodule(key.rstrip('.')).load_state_dict({name: own[name] for name in theirs})
    state = reader.state_dict()
    if old_names:
        names = (('LayerNorm.weight', 'LayerNorm.gamma'), ('LayerNorm.bias', 'LayerNorm.beta'))
        for new, old in names:
            state = {key.replace(new, old): value for key, value in state.items()}
    file = str(saved(state, tmp_path))
    start = {'type': 'florence_mm.Pretrained', 'checkpoint': file}
    heads = {
        **HEADS,
        'caption': {**HEADS['caption'], 'init_cfg': {**start, 'prefix': 'heads.caption.'}},
    }
    model = ours(heads, init_cfg={**start, 'prefix': 'text_encoder.'})
    drawn = {key: value.clone() for key, value in model.text_encoder.state_dict().items()}
    model.init_weights()
    tokens = texts()
    expected = reader.bert(tokens.input_ids, attention_mask=tokens.mask.long()).last_hidden_state
    got = model.text_encoder(tokens.input_ids, tokens.mask)
    torch.testing.assert_close(got[tokens.mask], expected[tokens.mask], **CLOSE)
    expected = writer(tokens.input_ids, attention_mask=tokens.mask.long()).logits
    hidden = model.text_encoder(tokens.input_ids, tokens.mask, causal=True)
    logits = model.heads['caption'](hidden[tokens.mask])[:, :WORDS]
    torch.testing.assert_close(logits, expected[tokens.mask], **CLOSE)
    words = model.word_embeddings.weight
    assert torch.equal(words[WORDS:], drawn['embeddings.word_embeddings.weight'][WORDS:])
    assert not model.heads['caption'].bias[WORDS:].any()
    # what the file lacks is named
    report = load_checkpoint(model.text_encoder, file, prefix='text_encoder.')
    cross = {key for key in drawn if '.crossattention.' in key}
    assert cross == set(report.missing) and all(
        torch.equal(model.text_encoder.state_dict()[k], drawn[k]) for k in cross
    )
    assert report.unexpected == ['embeddings.token_type_embeddings.weight']
    assert report.resized == {'embeddings.word_embeddings.weight': f'{(WORDS, WIDTH)} to {(VOCAB, WIDTH)}'}
    assert 'crossattention' in report.summary


def test_a_converted_file_gives_the_same_start(tmp_path):
    file = saved(bert().state_dict(), tmp_path)
    convert_file(file, tmp_path / 'ours.safetensors')
    models = [ours(CAPTION) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    for model, name in zip(models, (file, tmp_path / 'ours.safetensors'), strict=True):
        report = load_checkpoint(model, name, allow_missing=['image_encoder'])
        assert report.resized.keys() == {'text_encoder.embeddings.word_embeddings.weight', 'heads.caption.bias'}
    states = [model.state_dict() for model in models]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_what_is_not_bert_is_refused(tmp_path):
    state = bert().state_dict()
    name = 'bert.encoder.task_layer.weight'
    with pytest.raises(ValueError, match=r'its text model has encoder\.task_layer\.weight, which BERT lacks'):
        convert_state_dict({**state, name: torch.ones(2)})
    stack = TextStack(WORDS, WIDTH, 20, num_layers=2, num_heads=4, mlp_ratio=2, layer_norm_eps=1e-5)
    with pytest.raises(ValueError, match='need layer_norm_eps=1e-12'):
        load_checkpoint(stack, saved(state, tmp_path), prefix='text_encoder.')
    # heads of 64 channels, as all of BERT's sizes have; no tensor tells
    wide = TextStack(WORDS, 128, 20, num_layers=2, num_heads=4, mlp_ratio=2)
    with pytest.raises(ValueError, match='need hidden_size / num_heads=64 and TextStack has .*=32'):
        load_checkpoint(wide, saved(bert(hidden_size=128).state_dict(), tmp_path), prefix='text_encoder.')
    saved(state, tmp_path)
    # words of another vocabulary, not one with words behind BERT's
    small = TextStack(WORDS - 1, WIDTH, 20, num_layers=2, num_heads=4, mlp_ratio=2)
    report = load_checkpoint(small, saved(state, tmp_path), prefix='text_encoder.')
    assert 'of another shape' in report.skipped['embeddings.word_embeddings.weight']


# --- a decoder of its own ---------------------------------------------------------------------------------------------


def apart(**kwargs):
    """Our BLIP for questions, as wide as its image encoder, so that cross-attention fits."""
    return ours({'vqa': {**HEADS['caption'], 'label_smoothing': 0.0}}, WIDTH, decoder={}, **kwargs)


def shared():
    """A file of ours with the shared text model, and its model."""
    model = randomise(ours(CAPTION, WIDTH))
    return model, model.state_dict()


def check_apart(model, theirs):
    """The encoder reads and the decoder writes as the shared model does."""
    tokens = texts()
    seen = torch.randn(3, 5, WIDTH, generator=torch.Generator().manual_seed(0))
    for stack, causal in ((model.text_encoder, False), (model.text_decoder, True)):
        got, expected = (
            one(tokens.input_ids, tokens.mask, causal=causal, memory=one.contexts(seen))
            for one in (stack, theirs.text_encoder)
        )
        torch.testing.assert_close(got, expected)
    assert not torch.equal(
        model.text_decoder.layers[0].attention.qkv.weight, model.text_encoder.layers[0].attention.qkv.weight
    )
    for name, value in theirs.heads['caption'].state_dict().items():
        assert torch.equal(model.heads['vqa'].state_dict()[name], value), name


@torch.no_grad()
def test_a_decoder_of_its_own_starts_from_the_shared_text_model(tmp_path):
    theirs, state = shared()
    model = apart()
    report = load_checkpoint(model, saved(state, tmp_path), strict=True)
    assert not report.missing
    check_apart(model, theirs)


@torch.no_grad()
def test_a_run_with_a_decoder_of_its_own_loads_from_the_shared_one():
    theirs, state = shared()
    model = apart()
    model.load_state_dict(fit_run_weights(model, state, 'epoch_20.pth', whole=False))
    check_apart(model, theirs)
    with pytest.raises(UsageError, match='lacks 49 of the 123 tensors'):  # a test needs the weights of the model itself
        fit_run_weights(model, state, 'epoch_20.pth', whole=True)


@pytest.mark.parametrize('kind', ['salesforce', 'ours'])
def test_it_starts_from_a_pretraining_whose_images_are_wider(kind, tmp_path):
    """As in the public code, which leaves out what does not fit: the decoder's cross-attention reads questions."""
    state = salesforce()
    if kind == 'ours':
        _, state, _ = convert_state_dict(state)
    model = ours({'vqa': {'type': 'FusionWrittenAnswerHead', 'tied': True, 'max_length': 4}}, decoder={})
    before = model.text_decoder.layers[0].crossattention.key_value.weight.clone()
    report = load_checkpoint(model, saved(state, tmp_path))
    unfit = {key for key, why in report.skipped.items() if 'of another shape' in why}
    assert unfit == {f'text_decoder.layers.{n}.crossattention.key_value.weight' for n in (0, 1)} == set(report.missing)
    assert torch.equal(before, model.text_decoder.layers[0].crossattention.key_value.weight)
    decoder = hugging_face('ConditionalGeneration').text_decoder.bert
    theirs = decoder.encoder.layer[1].attention.output.dense.weight
    assert torch.equal(model.text_decoder.layers[1].attention.output.dense.weight, theirs)
    samples = [DataSample(text='5 6', answers=['7']), DataSample(text='8', answers=['9 9'])]
    model(torch.randn(2, 3, 32, 32), samples, mode='loss')['loss_answer'].backward()
    assert all(parameter.grad is not None for parameter in model.text_decoder.parameters())


@torch.no_grad()
def test_weights_that_are_apart_stay_apart(tmp_path):
    theirs = randomise(apart())
    model = apart()
    load_checkpoint(model, saved(theirs.state_dict(), tmp_path), strict=True)
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in model.state_dict().items())
