import copy
import math
import pickle
import runpy
from pathlib import Path

import pytest
import torch
from mmpretrain.structures import DataSample

from florence_mm.models.multimodal.batch import FusionBatch
from florence_mm.models.text.roberta import RobertaTextEncoder
from florence_mm.models.tokenizers.protocol import TokenBatch, pad_ids

tiny = runpy.run_path(str(Path(__file__).with_name('tiny_meter.py')))
tiny_meter, pictures = tiny['tiny_meter'], tiny['pictures']
TEXTS = ('a red two and a blue five', 'no digits', 'a nine')


def captioner(**kwargs):
    head = {'type': 'FusionCaptionHead', **kwargs.pop('head', {})}
    return tiny_meter({'caption': head}, **kwargs)


def samples(texts=TEXTS):
    return [DataSample(text=text) for text in texts]


def log_probs_step_by_step(model, image, text):
    """Of each token of one text, from the beginnings alone."""
    ids = model.tokenize([text]).input_ids
    layers = model.cross_modal.layers
    contexts = layers.image_contexts(model.encode_image(image[None]))
    found = []
    for end in range(1, ids.shape[1]):
        tokens = TokenBatch(ids[:, :end], torch.ones(1, end, dtype=torch.bool))
        out = layers.decode(model.encode_tokens(tokens, causal=True), contexts)
        found.append(model.heads.caption(out[0, -1:]).log_softmax(1)[0, ids[0, end]])
    return torch.stack(found)


@pytest.mark.parametrize('roberta', [False, True])
@torch.no_grad()
def test_the_loss_of_a_caption_is_that_of_writing_it(roberta):
    model, images = captioner(roberta=roberta, max_text_len=40), pictures(3)
    losses = model.loss(images, samples())
    steps = torch.cat([log_probs_step_by_step(model, *pair) for pair in zip(images, TEXTS, strict=True)])
    assert losses['loss_caption'].item() == pytest.approx(-steps.mean().item(), rel=1e-5)
    # captions of one picture, which is encoded once
    model.image_encoder.seen = 0
    shared = model.loss(images[[0, 0, 1]], samples())
    assert model.image_encoder.seen == 2
    steps = torch.cat([log_probs_step_by_step(model, *pair) for pair in zip(images[[0, 0, 1]], TEXTS, strict=True)])
    assert shared['loss_caption'].item() == pytest.approx(-steps.mean().item(), rel=1e-5)


@pytest.mark.parametrize('beams', [1, 3])
@pytest.mark.parametrize('roberta', [False, True])
@torch.no_grad()
def test_kept_keys_and_values_change_nothing(roberta, beams):
    head = {'num_beams': beams, 'max_length': 30, 'min_length': 20}
    model = captioner(head=head, roberta=roberta, max_text_len=50).double()
    tokens = model.encode_image(pictures(4).double())
    for prompts in (None, ['a red', 'two', 'a blue', 'no red digits']):
        kept, again = (model.heads.caption.decode(model, tokens, prompts, cached) for cached in (True, False))
        assert kept.ids == again.ids and len({tuple(ids) for ids in kept.ids}) == 4
        assert min(map(len, kept.ids)) >= 20
        torch.testing.assert_close(kept.log_probs, again.log_probs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda state: pickle.loads(pickle.dumps(state))])
@torch.no_grad()
def test_a_copy_of_a_state_goes_on_by_itself(copied):
    model = captioner(max_text_len=40).double()
    tokens = model.encode_image(pictures(1).double())
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    state = model.start_writing(tokens, [0, 0], cached=True)
    model.write_on(TokenBatch(ids, ids >= 0), state)
    state.select(torch.tensor([0, 1]))  # from here on the layers share memory
    other = copied(state)
    rows, last = torch.tensor([1, 1]), torch.tensor([[11], [12]])
    other.select(rows)
    got = model.write_on(TokenBatch(last, last >= 0), other)
    texts = torch.cat([ids[rows], last], 1)
    expected = model.write_on(TokenBatch(texts, texts >= 0), model.start_writing(tokens, [0, 0]))[:, 3:]
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    # the first one has not changed
    texts = torch.cat([ids, last], 1)
    expected = model.write_on(TokenBatch(texts, texts >= 0), model.start_writing(tokens, [0, 0]))[:, 3:]
    got = model.write_on(TokenBatch(last, last >= 0), state)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_kept_keys_of_a_model_that_recomputes_its_layers():
    model = captioner(head={'max_length': 6, 'min_length': 6}, roberta=True, max_text_len=20).double()
    tokens = model.encode_image(pictures(2).double())
    encoder = {'hidden_dropout_prob': 0.0, 'attention_probs_dropout_prob': 0.0}
    recomputed = RobertaTextEncoder(config={**model.text_encoder.model.config.to_diff_dict(), **encoder}, with_cp=True)
    recomputed.load_state_dict(model.text_encoder.state_dict())
    model.text_encoder = recomputed.double()
    model.train()
    kept, again = (model.heads.caption.decode(model, tokens, None, cached) for cached in (True, False))
    assert kept.ids == again.ids and recomputed.model.is_gradient_checkpointing
    torch.testing.assert_close(kept.log_probs, again.log_probs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('beams', [1, 3])
def test_no_images_have_no_captions(beams):
    for prompt in ('', 'a red'):
        model = captioner(head={'num_beams': beams, 'prompt': prompt})
        none = model.encode_image(pictures(2)).detach()[:0]
        assert model.write(none) == [] and model.write(none, []) == []


@torch.no_grad()
def test_a_prompt_is_read_and_neither_learned_nor_reported():
    model, plain = captioner(head={'prompt': ' a red '}, max_text_len=16), captioner(max_text_len=16)
    images = pictures(3)
    tokens = plain.encode_image(images)
    # writing goes on from the prompt: the same ids as from a text that begins so
    written = model.predict(images, [DataSample() for _ in images])
    prompted = plain.write(tokens, ['a red'] * 3)
    assert [sample.pred_caption for sample in written] == [text.text for text in prompted]
    assert [sample.pred_caption for sample in written] != [text.text for text in plain.write(tokens)]
    # the loss is that of the words after it
    texts = ('two and a blue five', 'digits', 'nine')
    losses = model.loss(images, samples(texts))
    steps = [
        log_probs_step_by_step(plain, image, f'a red {text}')[2:] for image, text in zip(images, texts, strict=True)
    ]
    assert losses['loss_caption'].item() == pytest.approx(-torch.cat(steps).mean().item(), rel=1e-5)
    # prompts of several lengths, each as if alone
    prompts = ['a red', 'no', 'a red two and']
    together = plain.write(tokens, prompts)
    for number, prompt in enumerate(prompts):
        (alone,) = plain.write(tokens[number : number + 1], [prompt])
        assert alone.text == together[number].text
        assert alone.score == pytest.approx(together[number].score, rel=1e-5)
    with pytest.raises(ValueError, match='at most 1 tokens'):
        short = captioner(head={'max_length': 2, 'prompt': 'a red two and a'}, max_text_len=8)
        short.predict(images, [DataSample() for _ in images])


def test_a_caption_that_is_cut_at_its_beginning_has_its_prompt_all_the_same():
    class KeepsEnd:
        def __init__(self, tokenizer):
            self.inner = tokenizer

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def __call__(self, texts, max_length):
            tokens = self.inner(texts, 99)
            rows = [row[:length] for row, length in zip(tokens.input_ids.tolist(), tokens.mask.sum(1), strict=True)]
            return pad_ids([[row[0], *row[1:][1 - max_length :]] for row in rows], self.pad_token_id)

    model = captioner(head={'prompt': 'a red'}, max_text_len=8)
    images = pictures(2)
    expected = model.loss(images, samples(['two and a blue', 'two']))
    model.tokenizer = KeepsEnd(model.tokenizer)
    seen = model.loss(images, samples(['digits no digits no two and a blue', 'two']))
    assert seen == expected and seen['loss_caption'] > 0


def test_words_see_the_picture_and_the_words_before_them():
    model = captioner()
    layers = model.cross_modal.layers
    image = pictures(1).requires_grad_()
    tokens = model.tokenize([TEXTS[0]])
    text = model.encode_tokens(tokens, causal=True).detach().requires_grad_()
    out = layers.decode(text, layers.image_contexts(model.encode_image(image)))
    (by_text, by_image) = torch.autograd.grad(out[0, 3, 0], (text, image))
    assert (by_text[0, :4].abs().sum(1) > 1e-4).all()
    assert (by_text[0, 4:] == 0).all()
    # each patch of 8 pixels
    assert (by_image[0].unfold(1, 8, 8).unfold(2, 8, 8).abs().sum((0, 3, 4)) > 1e-6).all()


def test_label_smoothing_and_accuracy_by_hand():
    model = captioner(head={'label_smoothing': 0.1})
    head = model.heads.caption
    torch.nn.init.zeros_(head.decoder.weight)
    start, a, red, end = model.tokenize(['a red']).input_ids[0].tolist()
    head.bias.data[a] = 2.0
    losses = model.loss(pictures(1), samples(['a red']))
    log_probs = head.bias.log_softmax(0)
    own = log_probs[[a, red, end]].mean()
    expected = -(0.9 * own + 0.1 * log_probs.mean())
    assert losses['loss_caption'].item() == pytest.approx(expected.item(), rel=1e-5)
    assert losses['acc_caption'].item() == pytest.approx(1 / 3)


def test_label_smoothing_over_the_other_tokens_by_hand():
    model = captioner(head={'label_smoothing': 0.1, 'smoothing_over': 'others'})
    head = model.heads.caption
    torch.nn.init.zeros_(head.decoder.weight)
    head.bias.data = torch.randn(len(head.bias), generator=torch.Generator().manual_seed(0))
    ids = model.tokenize(['a red']).input_ids[0, 1:]
    log_probs, expected = head.bias.log_softmax(0), 0.0
    for token in ids.tolist():
        others = log_probs.sum() - log_probs[token]
        expected -= 0.9 * log_probs[token] + 0.1 / (len(log_probs) - 1) * others
    losses = model.loss(pictures(1), samples(['a red']))
    assert losses['loss_caption'].item() == pytest.approx(expected.item() / 3, rel=1e-5)
    # of three tokens, where it makes a difference that is seen
    head.vocab_size, logits = 3, torch.tensor([[1.0, 0.0, -1.0]])
    log_probs = logits[0].log_softmax(0)
    for over, weights in {'others': [0.9, 0.05, 0.05], 'all': [0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3]}.items():
        head.smoothing_over = over
        (loss,) = head.token_losses(logits, torch.tensor([0]))
        assert loss.item() == pytest.approx(-(torch.tensor(weights) * log_probs).sum().item(), rel=1e-6)


@torch.no_grad()
def test_captions_are_drawn():
    head = {'top_p': 0.9, 'temperature': 2.0, 'max_length': 6, 'min_length': 2}
    model, plain = captioner(head=head), captioner(head={'max_length': 6, 'min_length': 2})
    tokens = model.encode_image(pictures(3))

    def seeded(numbers):
        return [torch.Generator().manual_seed(number) for number in numbers]

    together = model.write(tokens, generator=seeded([4, 5, 6]))
    assert [text.text for text in together] != [text.text for text in plain.write(tokens)]
    for row in range(3):  # whatever is drawn beside it
        (alone,) = model.write(tokens[row : row + 1], generator=seeded([4 + row]))
        assert alone.text == together[row].text and alone.score == pytest.approx(together[row].score, rel=1e-4)
        ids = model.heads.caption.decode(model, tokens[row : row + 1], generator=seeded([4 + row])).ids[0]
        assert 2 <= len(ids) <= 6
    # after prompts, which are read in groups of one length, each keeps its numbers
    prompts = ['a red two', 'no', 'a red']
    together = model.write(tokens, prompts, seeded([7, 8, 9]))
    for row, prompt in enumerate(prompts):
        (alone,) = model.write(tokens[row : row + 1], [prompt], seeded([7 + row]))
        assert alone.text == together[row].text
    first = model.write(tokens, generator=torch.Generator().manual_seed(1))
    assert first == model.write(tokens, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(1)
    drawn = model.predict(pictures(3), [DataSample() for _ in range(3)])
    assert [sample.pred_caption for sample in drawn] == [text.text for text in first]


@pytest.mark.parametrize('beams', [1, 3])
def test_a_written_caption_has_the_probability_of_its_loss(beams):
    model, images = captioner(head={'num_beams': beams, 'max_length': 6}), pictures(4)
    batch = FusionBatch(model, images[[0, 1, 2, 3, 1]], samples([''] * 5))
    model.heads.caption.predict(batch)
    captions = [sample.pred_caption for sample in batch.samples]
    assert captions[1] == captions[4] and len(set(captions)) > 1
    written = model.heads.caption.decode(model, batch.image_tokens)
    for number, ids in enumerate(written.ids):
        assert 0 < len(ids) <= 6 and not model.tokenizer.special_ids & set(ids)
        assert model.tokenizer.decode(ids) == captions[number]
        alone = model.heads.caption.decode(model, batch.image_tokens[number : number + 1])
        assert alone.ids == [ids]
        rows = torch.tensor([[model.tokenizer.start_token_id, *ids, model.tokenizer.end_token_id]])
        model.tokenize = lambda texts, r=rows: TokenBatch(r, r >= 0)
        loss = model.loss(images[number : number + 1], samples(['']))['loss_caption'].item()
        del model.tokenize
        assert written.log_probs[number].item() == pytest.approx(-loss * (len(ids) + 1), rel=1e-4)
        assert batch.samples[number].caption_score == pytest.approx(-loss, rel=1e-4)


def test_beams_are_no_less_likely_than_greedy():
    images = pictures(6)
    greedy, beams = (
        captioner(head={'num_beams': n, 'length_penalty': 0.0, 'max_length': 5, 'min_length': 2}) for n in (1, 8)
    )
    one, eight = (model.heads.caption.decode(model, model.encode_image(images)) for model in (greedy, beams))
    assert (eight.log_probs >= one.log_probs - 1e-5).all() and (eight.log_probs > one.log_probs + 1e-3).any()
    assert min(len(ids) for ids in one.ids + eight.ids) >= 2


@pytest.mark.parametrize('seed', [0, 1, 2])
def test_a_picture_is_learnt_by_heart(seed):
    model, images = captioner(seed=seed).train(), pictures(3, seed)
    with torch.no_grad():  # wide weights make a rough loss: whether it is learnt would hang on rounding
        for parameter in model.parameters():
            parameter.mul_(0.3 if parameter.ndim > 1 else 1)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(90):
        loss = model.loss(images, samples())['loss_caption']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    written = model.eval().predict(images, [DataSample() for _ in images])  # no text is needed
    assert [sample.pred_caption for sample in written] == list(TEXTS)
    # with a margin: the mean token has a probability of 0.98
    assert min(sample.caption_score for sample in written) > math.log(0.9)


@pytest.mark.parametrize('beams', [1, 3])
def test_a_padded_head_writes_tokens_alone(beams):
    model = captioner(head={'num_beams': beams, 'vocab_size': tiny['VOCAB'] + 64, 'max_length': 4})
    model.heads.caption.bias.data[tiny['VOCAB'] + 1 :] = 1e3  # likeliest; the mask token is the last that there is
    written = model.heads.caption.decode(model, model.encode_image(pictures(2)))
    assert all(ids and max(ids) < model.tokenizer.vocab_size for ids in written.ids)


def test_errors():
    with pytest.raises(ValueError, match='num_beams=0'):
        captioner(head={'num_beams': 0})
    # before training, not at the first prediction
    with pytest.raises(ValueError, match='max_length of the caption head is 11, but texts.*at most 10'):
        captioner(head={'max_length': 11})
    with pytest.raises(ValueError, match='follows has 11 tokens with the start, which leaves none for a word'):
        captioner(head={'prompt': 'a red two ' * 9})
    with pytest.raises(ValueError, match=r'at least 0 and at most 2\.5 tokens; give whole numbers'):
        captioner(head={'max_length': 2.5})
    model = captioner()
    images = model.encode_image(pictures(2)).detach()
    for prompts in (['a'], ['a', 'b', 'c']):
        with pytest.raises(ValueError, match=f'2 images and {len(prompts)} prompts'):
            model.write(images, prompts)
    with pytest.raises(ValueError, match='follows has 11 tokens with the start, which leaves none .* at most 12'):
        model.write(images, ['a red two ' * 9] * 2)
    long = model.tokenize(['a red two and a blue five'] * 2)
    with pytest.raises(ValueError, match='text have 16 tokens together, and texts of the model at most 12; shorten'):
        model.teach(images, [0, 1], long, long)
    for penalty in (math.nan, math.inf):
        with pytest.raises(ValueError, match=f'length_penalty={penalty} '):
            captioner(head={'length_penalty': penalty})
    for values, says in {
        ('top_p', 0.0): 'top_p is 0.0 and temperature 1.0; give a probability above 0',
        ('top_p', math.nan): 'top_p is nan',
        ('temperature', -1.0): 'temperature -1.0; give',
        ('temperature', 0.5): 'temperature=0.5 of the caption head has no effect without sampling; give top_p too',
        ('smoothing_over', 'most'): "smoothing_over of the caption head is 'most'; give 'all' or 'others'",
    }.items():
        with pytest.raises(ValueError, match=says):
            captioner(head=dict([values]))
    with pytest.raises(ValueError, match='top_p=0.9, which draws texts, and num_beams=2, which searches'):
        captioner(head={'top_p': 0.9, 'num_beams': 2})
    with pytest.raises(ValueError, match='caption head searches and draws no random numbers; give it top_p'):
        model.write(images, generator=torch.Generator())
    with pytest.raises(ValueError, match='2 images and 1 generators; give one, or each image one'):
        captioner(head={'top_p': 0.9}).write(images, generator=[torch.Generator()])
    ids = torch.tensor([[5], [6]])
    with pytest.raises(ValueError, match='autograd cannot follow; write under torch.no_grad'):
        model.write_on(TokenBatch(ids, ids >= 0), model.start_writing(images, [0, 1], cached=True))
