"""BLIP-2 gives the outputs of transformers' models and of LAVIS's files, and writes both layouts."""

import pytest
import torch
from mmpretrain.structures import DataSample
from public_blip import DEC, END, PAD, START
from public_blip2 import IMAGE, QUERIES, TEXT, TINY, WORDS, Words, hugging_face, lavis, ours
from torch.nn import functional as F

from florence_mm.models.checkpoints import convert_state_dict, load_checkpoint
from florence_mm.models.heads.multimodal import negatives
from florence_mm.models.multimodal import BLIP2Writer
from florence_mm.models.text import QFormer

CLOSE = {'rtol': 1e-5, 'atol': 1e-5}
TEXTS = ['5 9 12 30', '7 6', '20 21 22 23 24 25']


def loaded(model, state, tmp_path):
    torch.save(state, tmp_path / 'public.pth')
    report = load_checkpoint(model, tmp_path / 'public.pth', allow_missing=['image_encoder'])
    assert not report.unexpected, report.unexpected
    return model.eval()


def images(count=3):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope='module')
def pair(tmp_path_factory):
    """transformers' model and ours with the same weights, image tokens, and ids with their mask."""
    theirs = hugging_face()
    model = loaded(ours(), theirs.state_dict(), tmp_path_factory.mktemp('blip2'))
    with torch.no_grad():
        tokens = theirs.vision_model(images()).last_hidden_state
    return theirs, model, tokens, model.tokenize(TEXTS)


def their_states(theirs, tokens, ids, visible, image=True):
    """Hidden states of queries and text for a mask ``(B, Q + T, Q + T)`` of what sees what."""
    x = theirs.embeddings(input_ids=ids, query_embeds=theirs.query_tokens.expand(len(ids), -1, -1))
    mask = torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)[:, None]
    seen = {'encoder_hidden_states': tokens} if image else {}
    return theirs.qformer(query_embeds=x, query_length=QUERIES, attention_mask=mask, **seen).last_hidden_state


def visible(tokens, mode):
    """What each query and token sees: ``'apart'``, ``'joint'`` or ``'writing'``."""
    rows, length = tokens.mask.shape
    size = QUERIES + length
    real = torch.cat([torch.ones(rows, QUERIES, dtype=torch.bool), tokens.mask], 1)
    place = torch.arange(size)
    is_query = place < QUERIES
    allowed = {
        'apart': is_query[:, None] == is_query,
        'joint': torch.ones(size, size, dtype=torch.bool),
        'writing': torch.where(is_query[:, None], is_query, place <= place[:, None]),
    }[mode]
    return allowed & real[:, None]


@torch.no_grad()
def test_the_four_modes(pair):
    theirs, model, tokens, text = pair
    stack, real = model.qformer.stack, text.mask
    torch.testing.assert_close(model.encode_image(images()), tokens, **CLOSE)
    # apart: queries alone, and text alone
    expected = their_states(theirs, tokens, text.input_ids, visible(text, 'apart'))
    torch.testing.assert_close(model.pool_image(tokens), expected[:, :QUERIES], **CLOSE)
    torch.testing.assert_close(stack(text.input_ids, real)[real], expected[:, QUERIES:][real], **CLOSE)
    # joint
    expected = their_states(theirs, tokens, text.input_ids, visible(text, 'joint'))
    fused = model.fuse(model.encode_tokens(text), real, tokens)
    torch.testing.assert_close(fused.image, expected[:, :QUERIES], **CLOSE)
    torch.testing.assert_close(fused.text[real], expected[:, QUERIES:][real], **CLOSE)
    # writing, behind [DEC]
    ids = text.input_ids.clone()
    ids[:, 0] = DEC
    expected = their_states(theirs, tokens, ids, visible(text, 'writing'))
    written = model.write_on(text, model.start_writing(tokens, [0, 1, 2]))
    torch.testing.assert_close(written[real], expected[:, QUERIES:][real], **CLOSE)
    assert expected.std() > 0.1


@torch.no_grad()
def test_contrast_and_matching(pair):
    theirs, model, _, text = pair
    given = {'input_ids': text.input_ids, 'pixel_values': images(), 'attention_mask': text.mask.long()}
    batch = model.make_batch(images(), [DataSample(text=one) for one in TEXTS])
    features = model.heads['itc'].embed(batch)
    similarity = (features.image @ features.text.T).amax(1)
    torch.testing.assert_close(similarity, theirs(**given).logits_per_image, **CLOSE)
    logits = theirs(**given, use_image_text_matching_head=True).logits_per_image
    torch.testing.assert_close(model.heads['itm'](batch.fused.pooled), logits, **CLOSE)


def test_the_losses_and_their_gradient(pair, monkeypatch):
    """With negatives that are given, against the formulas on transformers' states."""
    theirs, model, tokens, text = pair
    texts, pictures = torch.tensor([1, 2, 0]), torch.tensor([2, 0, 1])
    drawn = iter([texts, pictures])
    monkeypatch.setattr(negatives, 'draw_negatives', lambda *_: (next(drawn), torch.ones(3, dtype=torch.bool)))
    head, scale = model.heads['caption'], 1 / model.heads['itc'].temperature
    losses = model.loss(images(), [DataSample(text=one) for one in TEXTS])

    apart = their_states(theirs, tokens, text.input_ids, visible(text, 'apart'))
    image = F.normalize(theirs.vision_projection(apart[:, :QUERIES]), dim=-1)
    sentence = F.normalize(theirs.text_projection(apart[:, QUERIES]), dim=-1)
    i2t = torch.einsum('iqd,td->itq', image, sentence).max(2)[0] * scale
    own = torch.arange(3)
    both = [F.cross_entropy(logits, own, label_smoothing=0.1) for logits in (i2t, i2t.T)]
    torch.testing.assert_close(losses['loss_itc'], sum(both) / 2, **CLOSE)

    total = 0
    for pictured, said, target in ((own, own, 1), (pictures, own, 0), (own, texts, 0)):
        few = type(text)(text.input_ids[said], text.mask[said])
        states = their_states(theirs, tokens[pictured], few.input_ids, visible(few, 'joint'))
        logits = theirs.itm_head(states[:, :QUERIES]).mean(1)
        total = total + F.cross_entropy(logits, torch.full((3,), target), reduction='sum')
    torch.testing.assert_close(losses['loss_itm'], total / 9, **CLOSE)

    ids = text.input_ids.clone()
    ids[:, 0] = DEC
    states = their_states(theirs, tokens, ids, visible(text, 'writing'))[:, QUERIES:]
    transform, words = head.transform, theirs.embeddings.word_embeddings.weight
    logits = (transform.LayerNorm(F.gelu(transform.dense(states))) @ words.T + head.bias)[:, :-1]
    labels = text.input_ids[:, 1:].masked_fill(~text.mask[:, 1:], -100)
    caption = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=0.1)
    torch.testing.assert_close(losses['loss_caption'], caption, **CLOSE)

    expected = (sum(both) / 2 + total / 9 + caption).detach()
    (sum(both) / 2 + total / 9 + caption).backward()
    got = sum(value for key, value in losses.items() if 'loss' in key)
    torch.testing.assert_close(got.detach(), expected, **CLOSE)
    got.backward()
    torch.testing.assert_close(model.qformer.query_tokens.grad, theirs.query_tokens.grad, rtol=1e-4, atol=1e-5)
    norm = theirs.vision_model.post_layernorm.weight.grad
    torch.testing.assert_close(model.ln_vision.weight.grad, norm, rtol=1e-4, atol=1e-5) if norm is not None else None
    assert model.image_encoder.conv1.weight.grad is None


@torch.no_grad()
def test_lavis_files_give_what_transformers_gives(pair, tmp_path):
    theirs, _, tokens, text = pair
    model = loaded(ours(vision_norm_eps=1e-5), lavis(), tmp_path)
    torch.testing.assert_close(model.pool_image(tokens), theirs.qformer(
        query_embeds=theirs.query_tokens.expand(3, -1, -1), encoder_hidden_states=tokens
    ).last_hidden_state, **CLOSE)
    name, state, _ = convert_state_dict(lavis(clip=True))
    assert name == 'BLIP-2' and 'image_encoder.ln_pre.weight' in state


# --- with a language model --------------------------------------------------------------------------------------------


def writer(kind, **kwargs):
    heads = {'caption': {'type': 'FusionCaptionHead', 'max_length': 6, **kwargs}}
    language_model = {'type': 'TransformersLanguageModel', 'config': TINY[kind]}
    text = {key: value for key, value in TEXT.items() if key != 'vocab_size'}
    sizes = {'vision_norm_eps': 1e-6, 'max_text_len': 12}
    return BLIP2Writer(IMAGE, language_model, Words(), text, QUERIES, heads, **sizes).eval()


def theirs_and_ours(kind, tmp_path, **kwargs):
    theirs = hugging_face('ConditionalGeneration', TINY[kind])
    model = loaded(writer(kind, **kwargs), theirs.state_dict(), tmp_path)
    return theirs, model


@pytest.mark.parametrize('kind', ['opt', 't5'])
def test_the_loss_of_a_text_behind_queries(kind, tmp_path):
    theirs, model = theirs_and_ours(kind, tmp_path)
    text = model.tokenize(TEXTS)
    placeholder = torch.full((3, QUERIES), WORDS - 1)
    targets = text.input_ids.masked_fill(~text.mask, -100)
    pictures = images()
    if kind == 'opt':
        ids = torch.cat([placeholder, text.input_ids], 1)
        mask = torch.cat([torch.ones_like(placeholder), text.mask.long()], 1)
        targets[:, 0] = -100
        labels = torch.cat([torch.full_like(placeholder, -100), targets], 1)
        expected = theirs(pixel_values=pictures, input_ids=ids, attention_mask=mask, labels=labels).loss
    else:
        ids = torch.cat([placeholder, torch.full((3, 1), END)], 1)  # an empty prompt
        expected = theirs(pixel_values=pictures, input_ids=ids, labels=targets[:, 1:].contiguous()).loss
    got = model.loss(pictures, [DataSample(text=one) for one in TEXTS])['loss_caption']
    torch.testing.assert_close(got, expected, **CLOSE)
    expected.backward()
    got.backward()
    for own, other in (
        (model.language_projection.weight, theirs.language_projection.weight),
        (model.qformer.query_tokens, theirs.query_tokens),
    ):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-4, atol=1e-5)
    assert all(p.grad is None for p in model.language_model.parameters())


@pytest.mark.parametrize('beams', [1, 3])
@pytest.mark.parametrize('kind', ['opt', 't5'])
@torch.no_grad()
def test_texts_that_are_generated(kind, beams, tmp_path):
    theirs, model = theirs_and_ours(kind, tmp_path, num_beams=beams)
    pictures = images(6)
    start = [WORDS - 1] * QUERIES + [START if kind == 'opt' else END]
    ids = torch.tensor([start] * 6)
    options = {'max_new_tokens': 7, 'num_beams': beams, 'do_sample': False, 'length_penalty': 1.0}
    # what our decoding never writes
    banned = [[one] for one in sorted(Words.special_ids - {END})]
    out = theirs.generate(
        pixel_values=pictures, input_ids=ids, bad_words_ids=banned, early_stopping=False, eos_token_id=END, **options
    )
    got = model.heads['caption'].decode(model, model.encode_image(pictures)).ids
    skip = 0 if kind == 'opt' and out.shape[1] <= 7 else len(start) if kind == 'opt' else 1
    for own, other in zip(got, out[:, skip:].tolist(), strict=True):
        written = [one for one in other[: other.index(END) if END in other else None] if one != PAD]
        assert own == written[:6]
    assert kind == 't5' or len({tuple(row) for row in got}) > 1


@torch.no_grad()
def test_prompts_of_any_length_are_read_by_an_encoder(tmp_path):
    theirs, model = theirs_and_ours('t5', tmp_path)
    prompts = model.tokenize_prompts(['5 6 7', '8'])
    texts = model.tokenize(['9 10', '11 12 13'])
    pictures = images(2)
    got = model.teach(model.encode_image(pictures), [0, 1], prompts, texts)
    ids = torch.cat([torch.full((2, QUERIES), WORDS - 1), prompts.input_ids[:, 1:]], 1)
    mask = torch.cat([torch.ones(2, QUERIES), prompts.mask[:, 1:]], 1).long()
    given = {'input_ids': ids, 'attention_mask': mask, 'decoder_input_ids': texts.input_ids[:, :-1]}
    logits = theirs(pixel_values=pictures, **given).logits
    real = texts.mask[:, 1:]
    torch.testing.assert_close(got[real], logits[real], **CLOSE)


# --- sizes ------------------------------------------------------------------------------------------------------------


def test_published_numbers_of_parameters():
    with torch.device('meta'):
        whole, alone = QFormer(1408, text={'vocab_size': 30523}), QFormer(1408, reads_texts=False)

    def millions(module):
        return round(sum(p.numel() for p in module.parameters()) / 1e6, 1)

    assert millions(whole.stack.layers) == 161.8 and millions(alone.stack.layers) == 105.1
    head = 768 * 768 + 768 + 2 * 768 + 30523  # of words, tied
    projections = 2 * (768 * 256 + 256) + 2 * 768 + 2
    assert round(millions(whole) + (head + projections) / 1e6) == 187  # 188 in the paper, with the norm and rounding


