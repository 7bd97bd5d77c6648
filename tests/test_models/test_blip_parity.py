"""BLIP gives the outputs of transformers' models and of salesforce's files, and writes both layouts."""

import pytest
import torch
from mmpretrain.structures import DataSample
from public_blip import (
    DEC,
    ENC,
    HEADS,
    IMAGE_WIDTH,
    MOMENTUM,
    SHARED,
    WIDTH,
    hugging_face,
    in_their_names,
    ours,
    randomise,
    salesforce,
)
from torch.nn import functional as F

from florence_mm.models.checkpoints import convert_state_dict, export_state_dict, load_checkpoint
from florence_mm.models.heads.multimodal import momentum
from florence_mm.models.tokenizers.protocol import TokenBatch

CLOSE = {'rtol': 1e-5, 'atol': 1e-5}
TEXTS = ['5 9 12 30', '7 6', '20 21 22 23 24 25']


def loaded(model, state, tmp_path, **kwargs):
    torch.save(state, tmp_path / 'public.pth')
    report = load_checkpoint(model, tmp_path / 'public.pth', **kwargs)
    assert not report.unexpected, report.unexpected
    return model


def images(count=3):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def ids(model, mark=None):
    tokens = model.tokenize(TEXTS)
    given = tokens.input_ids.clone()
    if mark is not None:
        given[:, 0] = mark
    return given, tokens.mask.long()


@pytest.mark.parametrize('kind', ['hugging_face', 'salesforce'])
@torch.no_grad()
def test_contrast_and_matching(kind, tmp_path):
    theirs = hugging_face('ImageTextRetrieval')
    state = theirs.state_dict() if kind == 'hugging_face' else salesforce()
    if kind == 'salesforce':  # its file has the same values
        state = {key: value for key, value in state.items() if '_m.' not in key and 'queue' not in key}
    model = loaded(ours(HEADS), state, tmp_path)
    pictures = images()
    given, mask = ids(model)
    # the image encoder, and the text alone
    tokens = theirs.vision_model(pictures).last_hidden_state
    torch.testing.assert_close(model.encode_image(pictures), tokens, **CLOSE)
    alone = theirs.text_encoder(given, attention_mask=mask, return_dict=True).last_hidden_state
    own = model.text_encoder(*(lambda t: (t.input_ids, t.mask))(model.tokenize(TEXTS)))
    torch.testing.assert_close(own[mask.bool()], alone[mask.bool()], **CLOSE)
    similarity = theirs(given, pictures, attention_mask=mask, use_itm_head=False).itm_score
    batch = model.make_batch(pictures, [DataSample(text=text) for text in TEXTS])
    features = model.heads['itc'].embed(batch)
    torch.testing.assert_close(features.image @ features.text.T, similarity, **CLOSE)
    # text and image; transformers leaves the mark to the caller
    given, mask = ids(model, ENC)
    fused = theirs.text_encoder(
        given, attention_mask=mask, encoder_hidden_states=tokens, return_dict=True
    ).last_hidden_state
    torch.testing.assert_close(batch.fused.text[mask.bool()], fused[mask.bool()], **CLOSE)
    logits = theirs(given, pictures, attention_mask=mask, use_itm_head=True).itm_score
    torch.testing.assert_close(model.heads['itm'](batch.fused.pooled), logits, **CLOSE)
    scores = model.match(model.encode_image(pictures), TEXTS, [(0, 0), (1, 1), (2, 2)])
    torch.testing.assert_close(scores, logits[:, 1] - logits[:, 0], **CLOSE)


def test_the_loss_of_captions_and_its_gradients(tmp_path):
    theirs = hugging_face('ConditionalGeneration', label_smoothing=0.1)
    model = loaded(ours({'caption': HEADS['caption']}), theirs.state_dict(), tmp_path)
    given, mask = ids(model, DEC)
    labels = given.masked_fill(mask == 0, -100)
    expected = theirs(images(), given, attention_mask=mask, labels=labels)
    loss = model(images(), [DataSample(text=text) for text in TEXTS], mode='loss')['loss_caption']
    torch.testing.assert_close(loss, expected.loss, **CLOSE)
    tokens = TokenBatch(model.tokenize(TEXTS).input_ids, mask.bool())
    state = model.start_writing(model.encode_image(images()), [0, 1, 2])
    logits = model.heads['caption'](model.write_on(tokens, state)[mask.bool()])
    torch.testing.assert_close(logits, expected.logits[mask.bool()], **CLOSE)
    loss.backward()
    expected.loss.backward()
    decoder = theirs.text_decoder.bert
    for one, other in (
        (model.word_embeddings, decoder.embeddings.word_embeddings),  # of the head, too
        (model.text_encoder.layers[0].causal_attention.output.dense, decoder.encoder.layer[0].attention.output.dense),
        (model.text_encoder.layers[1].intermediate.dense, decoder.encoder.layer[1].intermediate.dense),
        (model.image_encoder.conv1, theirs.vision_model.embeddings.patch_embedding),
    ):
        torch.testing.assert_close(one.weight.grad, other.weight.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('beams', [1, 3])
@torch.no_grad()
def test_captions(beams, tmp_path):
    theirs = hugging_face('ConditionalGeneration')
    # so that captions end, and not all alike
    torch.manual_seed(2)
    theirs.text_decoder.bert.embeddings.position_embeddings.weight.normal_(std=0.3)
    theirs.text_decoder.cls.predictions.bias[2] += 0.8
    heads = {'caption': {**HEADS['caption'], 'num_beams': beams, 'max_length': 10}}
    model = loaded(ours(heads), theirs.state_dict(), tmp_path)
    pictures = 4 * images(4)
    prompt = torch.tensor([[DEC, 2]]).repeat(4, 1)  # it leaves the last out
    bad = [[one] for one in sorted(model.tokenizer.special_ids - {2})]
    written = theirs.generate(
        pictures, prompt, num_beams=beams, max_new_tokens=7, bad_words_ids=bad, early_stopping=False
    )
    got = model.write(model.encode_image(pictures))
    assert [one.text for one in got] == [model.tokenizer.decode(row) for row in written]
    assert len({one.text for one in got}) > 1


@torch.no_grad()
def test_an_answer_sees_the_states_of_its_question(tmp_path):
    theirs = hugging_face('QuestionAnswering', image_width=WIDTH)
    head = {**HEADS['caption'], 'label_smoothing': 0.0}
    model = loaded(ours({'vqa': head}, WIDTH, decoder={}), theirs.state_dict(), tmp_path)
    questions, answers = model.tokenize(['8 7 11', '30', '12 13']), model.tokenize(['5 6', '9', '7 4 5'])
    pictures, image_of = images()[:2], [0, 1, 1]
    hidden = model.teach(model.encode_image(pictures), image_of, questions, answers)
    for row, image in enumerate(image_of):
        # one by one, as transformers' decoder sees the padding of questions
        asked, written = (
            torch.cat([torch.tensor([mark]), tokens.input_ids[row, tokens.mask[row]][1:]])[None]
            for mark, tokens in ((ENC, questions), (DEC, answers))
        )
        seen = theirs.vision_model(pictures[image : image + 1]).last_hidden_state
        states = theirs.text_encoder(asked, encoder_hidden_states=seen, return_dict=True).last_hidden_state
        expected = theirs.text_decoder(written, encoder_hidden_states=states, return_dict=True).logits[0, :-1]
        torch.testing.assert_close(model.heads['vqa'](hidden[row, : len(expected)]), expected, **CLOSE)


@torch.no_grad()
def test_an_image_encoder_can_start_from_timms(tmp_path):
    from timm.models.vision_transformer import VisionTransformer

    sizes = {'img_size': 32, 'patch_size': 8, 'embed_dim': IMAGE_WIDTH, 'depth': 2, 'num_heads': 4, 'mlp_ratio': 2}
    theirs = randomise(VisionTransformer(num_classes=5, **sizes))
    tower = ours({}).image_encoder
    torch.save(theirs.state_dict(), tmp_path / 'vit.pth')
    report = load_checkpoint(tower, tmp_path / 'vit.pth', strict=True)
    assert report.format == 'plain ViT'
    pictures = images()
    torch.testing.assert_close(tower(pictures)[0], theirs.forward_features(pictures), **CLOSE)


# --- layouts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('make', 'name'),
    [
        (lambda: hugging_face('ConditionalGeneration').state_dict(), 'Hugging Face BLIP'),
        (lambda: hugging_face('ImageTextRetrieval').state_dict(), 'Hugging Face BLIP'),
        (lambda: hugging_face('QuestionAnswering').state_dict(), 'Hugging Face BLIP'),
        (salesforce, 'BLIP'),
        (lambda: salesforce(retrieval=True), 'BLIP'),
        (lambda: in_their_names(hugging_face('ConditionalGeneration').state_dict()), 'BLIP'),
        (lambda: in_their_names(hugging_face('QuestionAnswering', image_width=WIDTH).state_dict()), 'BLIP'),
    ],
)
def test_a_file_comes_back_bit_by_bit(make, name):
    state = make()
    found, converted, skipped = convert_state_dict(state)
    assert found == name and not skipped
    exported = export_state_dict(converted, name)
    assert not exported.left_out
    assert exported.tensors.keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in exported.tensors.items())


@pytest.mark.parametrize('kind', ['ConditionalGeneration', 'ImageTextRetrieval', 'QuestionAnswering'])
@torch.no_grad()
def test_transformers_reads_what_we_write(kind, tmp_path):
    import transformers

    width = WIDTH if kind == 'QuestionAnswering' else IMAGE_WIDTH
    theirs = hugging_face(kind, image_width=width)
    heads, more = {
        'ConditionalGeneration': ({'caption': HEADS['caption']}, {}),
        'ImageTextRetrieval': ({name: HEADS[name] for name in ('itc', 'itm')}, {}),
        'QuestionAnswering': ({'vqa': HEADS['caption']}, {'decoder': {}}),
    }[kind]
    model = loaded(ours(heads, width, **more), theirs.state_dict(), tmp_path)
    exported = export_state_dict(
        model.state_dict(),
        'Hugging Face BLIP',
        settings={'num_heads of the image tower': 4, 'num_heads of the text model': 4},
    )
    assert not exported.notes
    config = transformers.BlipConfig(**exported.config)
    assert config.architectures == [f'BlipFor{kind}']
    again = getattr(transformers, config.architectures[0])(config).eval()
    report = again.load_state_dict(exported.tensors, strict=False)
    assert not report.missing_keys and not report.unexpected_keys
    given, mask = ids(model, ENC)
    inputs = {'input_ids': given, 'pixel_values': images(), 'attention_mask': mask}
    if kind == 'QuestionAnswering':
        inputs['decoder_input_ids'] = given
    results = [one(**inputs).to_tuple()[0] for one in (theirs, again)]
    assert torch.equal(*results)


def test_of_a_pretrained_model_transformers_reads_contrast_and_matching():
    import transformers

    settings = {'num_heads of the image tower': 4, 'num_heads of the text model': 4}
    exported = export_state_dict(randomise(ours(HEADS)).state_dict(), 'Hugging Face BLIP', settings=settings)
    assert exported.config['architectures'] == ['BlipForImageTextRetrieval']
    theirs = transformers.BlipForImageTextRetrieval(transformers.BlipConfig(**exported.config))
    report = theirs.load_state_dict(exported.tensors, strict=False)
    assert not report.missing_keys and all(key.startswith('text_decoder.') for key in report.unexpected_keys)


def test_a_momentum_model_goes_on_from_a_public_file(tmp_path):
    heads = {**HEADS, 'itc': MOMENTUM, 'itm': {**HEADS['itm'], 'negatives': 'all'}}
    state = salesforce()
    model = loaded(ours(heads), state, tmp_path, strict=True)
    head = model.heads['itc']
    assert bool(head.copies.started) and int(head.queue.place) == 4
    torch.testing.assert_close(head.queue.image.T, state['image_queue'])
    before = head.copies['image_proj'].weight.clone()
    torch.testing.assert_close(before, state['vision_proj_m.weight'])
    model.train()
    losses = model(images(4), [DataSample(text=text) for text in (*TEXTS, '8')], mode='loss')
    assert all(value.isfinite() for value in losses.values())
    moved = 0.9 * before + 0.1 * head.image_proj.weight
    torch.testing.assert_close(head.copies['image_proj'].weight, moved)
    assert int(head.queue.place) == 8


def test_a_momentum_model_of_another_size(tmp_path, monkeypatch):
    state, said = salesforce(), []
    monkeypatch.setattr(momentum, 'print_log', lambda text, *_: said.append(text))
    torch.save(state, tmp_path / 'public.pth')
    # features of another width: what is left of the momentum model would follow no model
    narrow = ours({**HEADS, 'itc': {**MOMENTUM, 'embed_dims': SHARED // 2}})
    report = load_checkpoint(narrow, tmp_path / 'public.pth')
    assert 'of another shape' in report.skipped['heads.itc.copies.image_proj.weight']
    lost = 'lacks 4 of the 78 tensors or has them in another shape, among them heads.itc.copies.image_proj.weight'
    assert len(said) == 1 and said[0].startswith(
        f'the momentum model in the checkpoint is of another model, which {lost}'
    )
    assert not narrow.heads['itc'].copies.started
    narrow.heads['itc'].follow_weights()
    for key, value in narrow.heads['itc'].copies['towers'].image_encoder.named_parameters():
        assert torch.equal(value, narrow.image_encoder.get_parameter(key)), key
    other = {**HEADS, 'itc': {**MOMENTUM, 'queue_size': 24}}
    with pytest.raises(ValueError, match=r'heads\.itc\.queue'):
        load_checkpoint(ours(other), tmp_path / 'public.pth', strict=True)


@torch.no_grad()
def test_contrast_equals_another_implementation():
    """torchmultimodal's ALBEF loss with the same features, where it is installed."""
    losses = pytest.importorskip(
        'torchmultimodal.modules.losses.albef',
        reason='runs with torchmultimodal-nightly 2024.4.1, iopath and portalocker, installed without dependencies',
    )
    from florence_mm.ops.distilled_contrastive import distilled_contrastive_loss

    rows = [F.normalize(torch.randn(n, 8, generator=torch.Generator().manual_seed(n)), dim=1) for n in (4, 5, 6, 7, 11)]
    image, text = rows[0], F.normalize(rows[1][:4] + 1, dim=1)
    image_m, text_m = F.normalize(rows[2][:4], dim=1), F.normalize(rows[3][:4], dim=1)
    image_keys, text_keys = torch.cat([image_m, rows[4]]), torch.cat([text_m, rows[4].flip(0)])
    sims = [
        a @ b.T / 0.07 for a, b in ((image, text_keys), (text, image_keys), (image_m, text_keys), (text_m, image_keys))
    ]
    expected = losses.ImageTextContrastiveLoss()(*sims, alpha=0.4)
    positives = torch.eye(4, 15).bool()
    got = sum(
        distilled_contrastive_loss(q, m, k, positives, torch.tensor(0.07), 0.4) / 2
        for q, m, k in ((image, image_m, text_keys), (text, text_m, image_keys))
    )
    torch.testing.assert_close(got, expected)
