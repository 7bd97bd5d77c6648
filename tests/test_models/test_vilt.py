"""ViLT against transformers, pictures of any sizes, its pairs of the whole data set, and word-patch alignment."""

import pytest
import torch
from mmpretrain.structures import DataSample
from public_vilt import ViltForQuestionAnswering, in_public_layout, our_vilt, their_vilt

from florence_mm.models.checkpoints.formats import convert_state_dict
from florence_mm.models.heads.multimodal.alignment import alignment_costs, alignment_plan, word_mask
from florence_mm.models.multimodal import ViLT
from florence_mm.models.tokenizers.protocol import TokenBatch

TOLERANCE = {'rtol': 1e-5, 'atol': 1e-5}


@pytest.fixture(scope='module')
def pair():
    theirs = their_vilt()
    ours = our_vilt()
    name, state, skipped = convert_state_dict(theirs.state_dict())
    assert name == 'Hugging Face ViLT' and not skipped
    ours.load_state_dict(state)
    return theirs, ours


def ids_of(rows):
    length = max(map(len, rows))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    return ids, mask


IDS, MASK = ids_of([[598, 5, 9, 77, 599], [598, 301, 599]])


def sized(*sizes):
    """Pictures at the top left of a padded batch, with the channel of real pixels."""
    generator = torch.Generator().manual_seed(1)
    height, width = (max(size[axis] for size in sizes) for axis in (0, 1))
    inputs = torch.zeros(len(sizes), 4, height, width)
    for row, (high, wide) in zip(inputs, sizes, strict=True):
        row[:3, :high, :wide] = torch.randn(3, high, wide, generator=generator)
        row[3, :high, :wide] = 1
    return inputs


def fused(model, inputs, ids=IDS, mask=MASK):
    tokens = TokenBatch(ids, mask.bool())
    return model.fuse(model.encode_tokens(tokens), tokens.mask, model.encode_image(inputs))


@pytest.mark.parametrize('sizes', [((32, 32), (32, 32)), ((48, 40), (48, 40)), ((32, 48), (40, 24))])
@torch.no_grad()
def test_words_and_pooled_pairs_are_those_of_transformers(pair, sizes):
    theirs, ours = pair
    inputs = sized(*sizes)
    expected = theirs.vilt(input_ids=IDS, attention_mask=MASK, pixel_values=inputs[:, :3], pixel_mask=inputs[:, 3])
    got = fused(ours, inputs)
    words = expected.last_hidden_state[:, : IDS.shape[1]] * MASK[..., None]
    torch.testing.assert_close(got.text, words, **TOLERANCE)
    torch.testing.assert_close(got.pooled, expected.pooler_output, **TOLERANCE)
    # the order of patches is drawn anew there, that of the class token is not
    torch.testing.assert_close(got.image[:, 0], expected.last_hidden_state[:, IDS.shape[1]], **TOLERANCE)
    logits = theirs(input_ids=IDS, attention_mask=MASK, pixel_values=inputs[:, :3], pixel_mask=inputs[:, 3]).logits
    torch.testing.assert_close(ours.heads['mlm'](got.text)[MASK > 0], logits[MASK > 0], **TOLERANCE)


@torch.no_grad()
def test_masked_words_cost_what_they_do_in_transformers(pair):
    theirs, ours = pair
    inputs, labels = sized((32, 32), (32, 32)), torch.tensor([[-100, 6, -100, 8, -100], [-100, 12, -100, -100, -100]])
    loss = theirs(input_ids=IDS, attention_mask=MASK, pixel_values=inputs[:, :3], labels=labels).loss
    logits = ours.heads['mlm'](fused(ours, inputs).text)
    got = torch.nn.functional.cross_entropy(logits[labels >= 0], labels[labels >= 0])
    torch.testing.assert_close(got, loss, **TOLERANCE)


@torch.no_grad()
def test_answers_are_those_of_transformers():
    theirs, ours = their_vilt(ViltForQuestionAnswering), our_vilt('vqa')
    _, state, _ = convert_state_dict(theirs.state_dict())
    ours.load_state_dict(state)
    inputs, labels = sized((32, 48), (40, 24)), torch.tensor([[1.0, 0, 0.3, 0, 0], [0, 0, 0, 0, 0.6]])
    expected = theirs(
        input_ids=IDS, attention_mask=MASK, pixel_values=inputs[:, :3], pixel_mask=inputs[:, 3], labels=labels
    )
    logits = ours.heads['vqa'](fused(ours, inputs).pooled)
    torch.testing.assert_close(logits, expected.logits, **TOLERANCE)
    # the loss is multiplied by the number of answers in both
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction='sum') / 2
    torch.testing.assert_close(loss, expected.loss, **TOLERANCE)


@torch.no_grad()
def test_the_public_layout_gives_the_same_model(pair):
    theirs, ours = pair
    name, state, skipped = convert_state_dict(in_public_layout(theirs))
    assert name == 'ViLT' and list(skipped) == ['text_embeddings.position_ids']
    assert {key: value.tolist() for key, value in ours.state_dict().items()} == {
        key: value.tolist() for key, value in state.items() if not key.startswith('heads.itm.')
    }


def test_published_size():
    with torch.device('meta'):
        model = ViLT({'type': 'BertTextTokenizer'}, text={'vocab_size': 30522})
    words = model.word_embeddings.weight.numel()
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == 111.6
    assert words == 30522 * 768


# --- pictures of any sizes --------------------------------------------------------------------------------------------


def batch_of(model, images, **fields):
    samples = [
        DataSample(text='a red two', **{key: value[n] for key, value in fields.items()}) for n in range(len(images))
    ]
    return model.data_preprocessor({'inputs': images, 'data_samples': samples}, True)


@torch.no_grad()
def test_a_black_picture_does_not_vanish():
    model = our_vilt()
    black, wide = torch.zeros(3, 32, 24, dtype=torch.uint8), torch.full((3, 24, 48), 200, dtype=torch.uint8)
    inputs = batch_of(model, [black, wide])['inputs']
    assert inputs.shape == (2, 4, 32, 48)
    tokens = model.encode_image(inputs)
    assert tokens[..., -1].sum(1).tolist() == [1 + 4 * 3, 1 + 3 * 6]
    # black is a colour: 0 is -1 after ViLT's normalisation, and padding is 0
    assert (inputs[0, :3, :, :24] == -1).all() and (inputs[0, :3, :, 24:] == 0).all()
    alone = model.encode_image(batch_of(model, [black])['inputs'])
    torch.testing.assert_close(tokens[0, : alone.shape[1]], alone[0], **TOLERANCE)
    # a picture whose own pixels are 0 after normalisation is one, too
    zero = sized((32, 32), (24, 24))
    zero[:, :3] = 0
    assert model.encode_image(zero)[..., -1].sum(1).tolist() == [17, 10]


@pytest.mark.parametrize('sizes', [((32, 32), (16, 40), (40, 24)), ((33, 47), (1, 19), (12, 3))])
@torch.no_grad()
def test_other_pictures_of_a_batch_change_nothing(sizes):
    """Also of those whose sides are no multiples of a patch, or less than one."""
    model = our_vilt()
    images = [torch.randint(0, 255, (3, *size), dtype=torch.uint8) for size in sizes]
    together = fused(model, batch_of(model, images)['inputs'], *(x[[0, 1, 0]] for x in (IDS, MASK)))
    for row, image in enumerate(images):
        ids, mask = (x[[0, 1, 0]][row : row + 1] for x in (IDS, MASK))
        alone = fused(model, batch_of(model, [image])['inputs'], ids, mask)
        torch.testing.assert_close(alone.pooled[0], together.pooled[row], **TOLERANCE)
        torch.testing.assert_close(alone.image[0], together.image[row, : alone.image.shape[1]], **TOLERANCE)
        assert not together.image[row, alone.image.shape[1] :].any()


@pytest.mark.parametrize('sizes', [((64, 64), (64, 64)), ((64, 64), (16, 64))])
def test_at_most_so_many_patches_are_drawn_in_training(sizes):
    model = our_vilt(max_patches=20, drop_rate=0.0)
    inputs = sized(*sizes)
    every = model.encode_image(inputs).detach()  # in evaluation
    assert every[..., -1].sum(1).tolist() == [1 + 64, 1 + (64 if sizes[1] == (64, 64) else 16)]
    model.train()
    torch.manual_seed(0)
    drawn = model.encode_image(inputs).detach()
    assert drawn.shape[1] == 21 and drawn[0, :, -1].all()
    # class token first, then some of the patches in their order, each with its own position
    places = [(every[0] - token).abs().sum(1).argmin().item() for token in drawn[0]]
    assert places == sorted(set(places)) and len(places) == 21 and places[0] == 0
    assert all((every[0, place] - token).abs().max() < 1e-6 for place, token in zip(places, drawn[0], strict=True))
    assert not torch.equal(model.encode_image(inputs).detach(), drawn)


# --- matching and alignment -------------------------------------------------------------------------------------------


@torch.no_grad()
def test_exactly_half_of_the_pairs_are_false():
    from florence_mm.models.heads.multimodal.negatives import half_false_images

    model = our_vilt('itm', max_patches=None)
    images = [torch.full((3, 32, 32 if n % 2 else 24), 10 * n, dtype=torch.uint8) for n in range(7)]
    false = [torch.full((3, 40, 16), 100 + n, dtype=torch.uint8) for n in range(7)]
    data = batch_of(model, images, false_inputs=false)
    assert data['inputs'].shape == (7, 4, 40, 32)
    torch.manual_seed(3)
    chosen, matches = half_false_images(model.make_batch(**{'inputs': data['inputs'], 'samples': data['data_samples']}))
    assert matches.count(False) == 3
    for n, (image, match) in enumerate(zip(chosen, matches, strict=True)):
        value = (10 * n if match else 100 + n) / 127.5 - 1
        assert float(image[0, 0, 0]) == pytest.approx(value, abs=1e-6)


@torch.no_grad()
def test_alignment_reads_words_and_patches_alone():
    model = our_vilt('itm')
    tokens = model.tokenize(['a red two', 'no'])
    inputs = sized((32, 32), (24, 16))
    pair = model.fuse(model.encode_tokens(tokens), tokens.mask, model.encode_image(inputs))
    words = word_mask(tokens, model.tokenizer)
    assert words.sum(1).tolist() == (tokens.mask.sum(1) - 2).tolist() and not words[:, 0].any()
    assert pair.parts.sum(1).tolist() == [16, 6] and not pair.parts[:, 0].any()
    plan = alignment_plan(tokens, pair, model.tokenizer)
    assert not plan[~words].any() and not plan.transpose(1, 2)[~pair.parts].any()
    torch.testing.assert_close(plan.sum((1, 2)), torch.ones(2))
    costs = alignment_costs(tokens, pair, model.tokenizer)
    cosines = torch.nn.functional.cosine_similarity(pair.text[:, :, None], pair.image[:, None], dim=-1)
    torch.testing.assert_close(costs, ((1 - cosines) * plan).sum((1, 2)))


def test_alignment_is_of_true_pairs_less_false_ones():
    model = our_vilt('itm')
    model.heads['itm'].negatives, model.heads['itm'].alignment = 'data_set', 0.1
    images = [torch.randint(0, 255, (3, 32, 32), dtype=torch.uint8) for _ in range(4)]
    data = batch_of(model, images, false_inputs=images[1:] + images[:1])
    torch.manual_seed(0)
    losses = model.loss(**data)
    torch.manual_seed(0)
    from florence_mm.models.heads.multimodal.negatives import half_false_images

    batch = model.make_batch(data['inputs'], data['data_samples'])
    chosen, matches = half_false_images(batch)
    pair = model.fuse(batch.text_tokens, batch.tokens.mask, model.encode_image(chosen))
    costs = alignment_costs(batch.tokens, pair, model.tokenizer)
    signed = sum(cost if match else -cost for cost, match in zip(costs, matches, strict=True))
    torch.testing.assert_close(losses['loss_alignment'], 0.1 * signed / 4)
    losses['loss_alignment'].backward()
    assert model.transformer.conv1.weight.grad.abs().sum() > 0


def test_the_true_text_is_found_among_false_ones():
    model = our_vilt()
    from florence_mm.models.heads.multimodal import FusionRankingHead

    head = FusionRankingHead(hidden_size=32, pooled_size=32)
    images = [torch.randint(0, 255, (3, 32, 32), dtype=torch.uint8) for _ in range(2)]
    data = batch_of(model, images, false_texts=[['no', 'two dogs', 'red'], ['by it', 'a', 'two']])
    batch = model.make_batch(data['inputs'], data['data_samples'])
    losses = head.loss(batch)
    scores = []
    for n, sample in enumerate(data['data_samples']):
        tokens, text = model.encode_text([sample.text, *sample.false_texts])
        pairs = model.fuse(text, tokens.mask, batch.image_tokens[[n] * 4])
        scores.append(head.match_logit(pairs))
    expected = torch.nn.functional.cross_entropy(torch.stack(scores), torch.zeros(2, dtype=torch.long))
    torch.testing.assert_close(losses['loss_ranking'], expected)
    data['data_samples'][0].set_field(['no'], 'false_texts')
    with pytest.raises(ValueError, match=r'false texts; give all of them the same number'):
        head.loss(model.make_batch(data['inputs'], data['data_samples']))


@torch.no_grad()
def test_scores_of_retrieval_are_those_of_transformers():
    from transformers import ViltForImageAndTextRetrieval

    theirs, ours = their_vilt(ViltForImageAndTextRetrieval), our_vilt('ranking')
    _, state, _ = convert_state_dict(theirs.state_dict())
    ours.load_state_dict(state)
    inputs = sized((32, 32), (32, 32))
    expected = theirs(input_ids=IDS, attention_mask=MASK, pixel_values=inputs[:, :3]).logits
    got = ours.heads['ranking'].match_logit(fused(ours, inputs))
    torch.testing.assert_close(got, expected.flatten(), **TOLERANCE)


def test_the_transformer_starts_from_a_vit(tmp_path):
    donor, path = our_vilt().transformer.state_dict(), tmp_path / 'vit.pth'
    torch.save(donor, path)
    model = our_vilt(vit_init={'type': 'florence_mm.Pretrained', 'checkpoint': str(path)})
    assert not torch.equal(model.transformer.class_embedding, donor['class_embedding'])
    words = model.word_embeddings.weight.clone()
    model.init_weights()
    for name, value in model.transformer.state_dict().items():
        assert torch.equal(value, donor[name]), name
    assert torch.equal(model.word_embeddings.weight, words)
