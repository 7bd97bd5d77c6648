"""Florence-2 against transformers' on the same weights, and its public layouts in both directions."""

import pytest
import torch
from mmpretrain.structures import DataSample
from public_florence2 import END, PAD, START, VOCAB, florence, hugging_face, public

from florence_mm.models.checkpoints import convert_state_dict, export_state_dict, load_checkpoint

pytest.importorskip('transformers')
CLOSE = {'rtol': 1e-5, 'atol': 1e-5}
PROMPTS, TEXTS = ['8 7 11', '30', '12 13 5 9'], ['5 6', '9 41', '7 4 5 22 18']


def images(count=3):
    return torch.randn(count, 3, 64, 80, generator=torch.Generator().manual_seed(3))


def loaded(state, tmp_path, **kwargs):
    """Our model with the weights of a file."""
    words = next(value for key, value in state.items() if key.endswith('shared.weight'))
    model = florence(len(words), **kwargs)
    torch.save(state, tmp_path / 'public.pth')
    report = load_checkpoint(model, tmp_path / 'public.pth', strict=True)
    assert not report.missing and not report.unexpected
    return model


def as_prompts(model, prompts=PROMPTS):
    """What transformers reads: marks of the image before each prompt, and padding."""
    tokens = model.tokenizer(prompts, 20)
    places = model.encode_image(images(1)).shape[1]
    marks = torch.full((len(prompts), places), VOCAB)
    ids = torch.cat([marks, tokens.input_ids], 1)
    return {'input_ids': ids, 'attention_mask': torch.cat([marks > 0, tokens.mask], 1).long()}


def samples(texts=TEXTS):
    rows = zip(PROMPTS, texts, ('caption', 'ocr', 'caption'), strict=True)
    return [DataSample(prompt=prompt, text=text, task=task) for prompt, text, task in rows]


def test_logits_losses_and_gradients(tmp_path):
    theirs = hugging_face()
    model = loaded(theirs.state_dict(), tmp_path)
    texts = model.tokenizer(TEXTS, 20)
    labels = texts.input_ids.masked_fill(~texts.mask, -100)
    expected = theirs(pixel_values=images(), labels=labels, **as_prompts(model))
    hidden = model.teach_from_end(model.encode_image(images()), [0, 1, 2], model.tokenize_prompts(PROMPTS), texts)
    logits = model.heads['tasks'](hidden[texts.mask])
    torch.testing.assert_close(logits, expected.logits[texts.mask], **CLOSE)
    losses = model(images(), samples(), mode='loss')
    torch.testing.assert_close(losses['loss_tasks'], expected.loss, **CLOSE)
    # of each task alone
    of_tokens = torch.nn.functional.cross_entropy(expected.logits[texts.mask], labels[texts.mask], reduction='none')
    rows = texts.mask.nonzero()[:, 0]
    torch.testing.assert_close(losses['nll_ocr'], of_tokens[rows == 1].mean(), **CLOSE)
    torch.testing.assert_close(losses['nll_caption'], of_tokens[rows != 1].mean(), **CLOSE)
    losses['loss_tasks'].backward()
    expected.loss.backward()
    text, between = theirs.model.language_model, theirs.model.multi_modal_projector
    pairs = [
        (model.word_embeddings, text.shared),  # of encoder, decoder and head
        (model.encoder.embeddings.position_embeddings, text.encoder.embed_positions),
        (model.encoder.embeddings.LayerNorm, text.encoder.layernorm_embedding),
        (model.decoder.embeddings.position_embeddings, text.decoder.embed_positions),
        (model.decoder.layers[2].crossattention.query, text.decoder.layers[2].encoder_attn.q_proj),
        (model.encoder.layers[0].intermediate.dense, text.encoder.layers[0].fc1),
        (model.image_projector.rows, between.image_position_embed.row_embeddings),
        (model.image_projector.columns, between.image_position_embed.column_embeddings),
        (model.image_projector.dense, between.image_projection),
        (model.image_encoder.patch_embed.proj, theirs.model.vision_tower.convs[0].conv),
    ]
    for one, other in pairs:
        assert other.weight.grad.abs().max() > 1e-4
        torch.testing.assert_close(one.weight.grad, other.weight.grad, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_label_smoothing_spreads_over_all_words(tmp_path):
    theirs = hugging_face()
    head = {'type': 'TaskHead', 'label_smoothing': 0.1}
    model = loaded(theirs.state_dict(), tmp_path, heads={'tasks': head})
    texts = model.tokenizer(TEXTS, 20)
    logits = theirs(pixel_values=images(), labels=texts.input_ids, **as_prompts(model)).logits[texts.mask]
    chances = logits.log_softmax(1)
    right = chances.gather(1, texts.input_ids[texts.mask][:, None])[:, 0]
    expected = -(0.9 * right + 0.1 * chances.mean(1)).mean()
    torch.testing.assert_close(model(images(), samples(), mode='loss')['loss_tasks'], expected, **CLOSE)


@pytest.mark.parametrize('beams', [1, 3])
@torch.no_grad()
def test_what_is_written(beams, tmp_path):
    head = {'type': 'TaskHead', 'num_beams': beams, 'max_length': 20}
    seen = set()
    for seed in range(3):
        theirs = hugging_face()
        torch.manual_seed(seed)  # so that texts end, and not all alike
        decoder = theirs.model.language_model.decoder
        decoder.embed_positions.weight.normal_(std=0.8)
        theirs.model.language_model.shared.weight[END] += 0.08 * decoder.layers[-1].final_layer_norm.bias.sign()
        model = loaded(theirs.state_dict(), tmp_path, heads={'tasks': head}, max_text_len=30)
        bad = [[one] for one in sorted(model.tokenizer.special_ids - {END} | {VOCAB})]
        written = theirs.generate(
            pixel_values=4 * images(),
            **as_prompts(model),
            decoder_input_ids=torch.tensor([[END, START]] * 3),
            num_beams=beams,
            do_sample=False,
            max_new_tokens=21,
            bad_words_ids=bad,
            early_stopping=False,
            pad_token_id=PAD,
            eos_token_id=END,
        )
        got = [one.text for one in model.write(model.encode_image(4 * images()), PROMPTS)]
        assert got == [model.tokenizer.decode(row) for row in written]
        seen.update(map(len, got), got)
    assert len(seen) > 4


# --- layouts ----------------------------------------------------------------------------------------------------------


def saved_by_transformers():
    """What ``save_pretrained`` writes: tied tensors once."""
    copies = ('embed_tokens.weight', 'lm_head.weight')
    return {key: value for key, value in hugging_face().state_dict().items() if not key.endswith(copies)}


@pytest.mark.parametrize(
    ('make', 'name', 'known'),
    [
        (public, 'Florence-2', {}),
        (saved_by_transformers, 'Hugging Face Florence-2', {'model_type': 'florence2', 'image_token_id': VOCAB}),
    ],
)
def test_a_file_comes_back_bit_by_bit(make, name, known):
    state = make()
    found, converted, _ = convert_state_dict(state)
    assert found == name
    exported = export_state_dict(converted, name, settings={'config.json': known})
    assert not exported.left_out
    assert exported.tensors.keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in exported.tensors.items())
    assert all(value.shape == state[key].shape for key, value in exported.tensors.items())


@torch.no_grad()
def test_florence2s_own_files(tmp_path):
    """Without the mark of an image and with a bias it is transformers' model, but for these two."""
    state, theirs = public(), hugging_face()
    model = loaded_public(state, tmp_path)
    texts = model.tokenizer(TEXTS, 20)
    expected = theirs(pixel_values=images(), labels=texts.input_ids, **as_prompts(model)).logits[texts.mask]
    expected = expected[:, :VOCAB] + state['language_model.final_logits_bias']
    hidden = model.teach_from_end(model.encode_image(images()), [0, 1, 2], model.tokenize_prompts(PROMPTS), texts)
    torch.testing.assert_close(model.heads['tasks'](hidden[texts.mask]), expected, **CLOSE)
    assert not any(value.requires_grad for value in (model.heads['tasks'].bias,))


def loaded_public(state, tmp_path, **kwargs):
    model = florence(VOCAB, **kwargs)
    torch.save(state, tmp_path / 'public.pth')
    load_checkpoint(model, tmp_path / 'public.pth', strict=True)
    return model


def test_transformers_reads_what_we_write(tmp_path):
    import transformers

    model = florence(VOCAB)
    exported = export_state_dict(
        model.state_dict(),
        'Hugging Face Florence-2',
        settings={'num_heads of the text stacks': 4, **{key: [1, 2, 4] for key in ('num_heads', 'num_groups')}},
    )
    assert any(f'a row of zeros, {VOCAB}, for the mark of an image' in note for note in exported.notes)
    again = transformers.Florence2ForConditionalGeneration(transformers.Florence2Config(**exported.config)).eval()
    report = again.load_state_dict(exported.tensors, strict=False)
    again.tie_weights()
    assert set(report.missing_keys) == set(exported.absent)
    texts = model.tokenizer(TEXTS, 20)
    with torch.no_grad():
        expected = again(pixel_values=images(), labels=texts.input_ids, **as_prompts(model)).logits[texts.mask]
        hidden = model.teach_from_end(model.encode_image(images()), [0, 1, 2], model.tokenize_prompts(PROMPTS), texts)
        torch.testing.assert_close(model.heads['tasks'](hidden[texts.mask]), expected[:, :VOCAB], **CLOSE)
    # and it comes back, without that row
    _, converted, _ = convert_state_dict(exported.tensors)
    own = model.state_dict()
    assert converted.keys() == own.keys() and all(torch.equal(value, own[key]) for key, value in converted.items())


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda s: s.update({'heads.other.bias': s['heads.tasks.bias']}), 'more or other heads than one tied'),
        (lambda s: s.update({'heads.tasks.bias': s['heads.tasks.bias'] + 1}), 'its bias on the logits is not 0'),
        (lambda s: s.pop('encoder.embeddings.word_embeddings.weight'), 'it lacks encoder.embeddings.word_embeddings'),
        (lambda s: [s.pop(k) for k in [*s] if 'channel_block' in k], 'this has another image encoder'),
    ],
)
def test_what_transformers_cannot_hold(change, message):
    state = florence(VOCAB).state_dict()
    change(state)
    with pytest.raises(ValueError, match=message):
        export_state_dict(state, 'Hugging Face Florence-2')


def test_words_that_are_not_tied_are_refused():
    state = public()
    state['language_model.lm_head.weight'] = state['language_model.lm_head.weight'] + 1
    with pytest.raises(ValueError, match=r'language_model\.lm_head\.weight is not tied to the word embeddings'):
        convert_state_dict(state)


def test_settings_that_weights_need(tmp_path):
    text = {'num_layers': 2, 'hidden_size': 32, 'num_heads': 4, 'mlp_ratio': 2, 'max_positions': 52}
    with pytest.raises(ValueError, match='need position_offset=2 and Florence2 has position_offset=0'):
        loaded_public(public(), tmp_path, text={**text, 'vocab_size': VOCAB, 'position_offset': 0})


def test_its_image_encoder_starts_another_model(tmp_path):
    torch.save(public(), tmp_path / 'public.pth')
    tower = florence(VOCAB).image_encoder
    report = load_checkpoint(tower, tmp_path / 'public.pth', prefix='image_encoder.')
    assert not report.missing and torch.equal(
        tower.patch_embed.proj.weight, public()['vision_tower.convs.0.proj.weight']
    )
