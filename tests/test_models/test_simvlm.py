"""SimVLM: its layers against BART's, prompts in the encoder, texts without pictures, and cuts of the prefix loss."""

import pytest
import torch
from instances import build, find_smalls
from mmpretrain.structures import DataSample
from torch.nn import functional as F

from florence_mm.models.checkpoints.meter import join_projections
from florence_mm.models.heads.multimodal.cuts import cut_texts, draw_cuts
from florence_mm.models.multimodal.batch import FusionBatch
from florence_mm.models.tokenizers.protocol import TokenBatch

HEADS = {'caption': {'type': 'FusionCaptionHead', 'random_prefix': True, 'tied': True, 'transform': False}}
TEXTS = ['a red two and a blue five', 'no', 'is a dog by it']


def small(dtype=torch.float64, **changes):
    return build('SimVLM', heads=HEADS, dtype=dtype, **changes)


def pictures(count):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(3)).double()


def samples(texts=TEXTS, pictured=(True, True, True)):
    return [DataSample(text=text, pictured=has) for text, has in zip(texts, pictured, strict=True)]


# --- against BART -----------------------------------------------------------------------------------------------------


def as_bart(model):
    """Transformers' BART with weights at a standard deviation of 0.1, and the same in the encoder and decoder of ours.

    Positions of BART are those of the row: of patches and then of words in its encoder, of words in its decoder.
    """
    transformers = pytest.importorskip('transformers')
    size, patches = model.hidden_size, model.patch_positions.num_embeddings
    config = transformers.BartConfig(
        vocab_size=model.encoder.vocab_size,
        d_model=size,
        max_position_embeddings=60,
        **{f'{part}_{key}': value for part in ('encoder', 'decoder') for key, value in BART_SIZES.items()},
        encoder_layers=2,
        decoder_layers=1,
        dropout=0.0,
    )
    bart = transformers.BartModel(config).eval()
    generator = torch.Generator().manual_seed(5)
    for parameter in bart.parameters():
        parameter.data.normal_(0, 0.1, generator=generator).add_(parameter.ndim == 1)
    words = model.encoder.embeddings
    for side in (bart.encoder, bart.decoder):
        side.layernorm_embedding.load_state_dict(words.LayerNorm.state_dict())
    model.patch_norm.load_state_dict(words.LayerNorm.state_dict())
    words.word_embeddings.weight.data = bart.shared.weight.data
    table = words.position_embeddings.weight.data
    bart.decoder.embed_positions.weight.data[2 : 2 + len(table)] = table
    bart.encoder.embed_positions.weight.data[2 : 2 + patches] = model.patch_positions.weight
    bart.encoder.embed_positions.weight.data[2 + patches : 2 + patches + len(table)] = table
    for ours, theirs in ((model.encoder, bart.encoder), (model.decoder, bart.decoder)):
        state = {f'layers.{key}': value for key, value in renamed(theirs.layers.state_dict()).items()}
        missing = ours.load_state_dict(state, strict=False)
        assert not missing.unexpected_keys and all(key.startswith('embeddings.') for key in missing.missing_keys)
    return bart


BART_SIZES = {'attention_heads': 2, 'ffn_dim': 32}
NAMES = {
    'self_attn.out_proj': 'attention.output.dense',
    'self_attn_layer_norm': 'attention.output.LayerNorm',
    'self_attn.q_proj': 'attention.self.query',
    'self_attn.k_proj': 'attention.self.key',
    'self_attn.v_proj': 'attention.self.value',
    'encoder_attn.out_proj': 'crossattention.output.dense',
    'encoder_attn_layer_norm': 'crossattention.output.LayerNorm',
    'encoder_attn.q_proj': 'crossattention.self.query',
    'encoder_attn.k_proj': 'crossattention.self.key',
    'encoder_attn.v_proj': 'crossattention.self.value',
    'fc1': 'intermediate.dense',
    'fc2': 'output.dense',
    'final_layer_norm': 'output.LayerNorm',
}


def renamed(state):
    found = {}
    for key, value in state.items():
        number, _, name = key.partition('.')
        part, _, kind = name.rpartition('.')
        found[f'{number}.{NAMES[part]}.{kind}'] = value
    return join_projections(found)


@torch.no_grad()
def test_it_is_bart_behind_patches():
    model = small(torch.float32, map_size=(4, 4))
    bart = as_bart(model)
    images = pictures(3).float()
    prompts, texts = model.tokenize(['a by', 'no', 'is it red']), model.tokenize(['no', 'is a two', 'dog'])
    image_tokens, image_of = model.encode_image(images), [2, None, 0]
    taught = model.teach(image_tokens, image_of, prompts, texts)
    assert image_tokens.shape[1] == 16
    words = model.word_embeddings.weight
    for row, image in enumerate(image_of):
        asked, said = (ids[row, : int(mask[row].sum()) - 1] for ids, mask in (each(prompts), each(texts)))
        x = words[asked]
        if image is not None:
            maps = model.image_encoder(images[image : image + 1])[-1]
            x = torch.cat([model.image_projection(maps.flatten(2)[0].T), x])
        else:  # without patches the words' positions are the first
            bart.encoder.embed_positions.weight.data[2:22] = model.encoder.embeddings.position_embeddings.weight
        theirs = bart(inputs_embeds=x[None], decoder_input_ids=said[None]).last_hidden_state[0]
        torch.testing.assert_close(taught[row, : len(said)], theirs, rtol=1e-5, atol=1e-5)
        as_bart_positions(model, bart)


def each(tokens):
    return tokens.input_ids, tokens.mask


def as_bart_positions(model, bart):
    table = model.encoder.embeddings.position_embeddings.weight
    bart.encoder.embed_positions.weight.data[2:18] = model.patch_positions.weight
    bart.encoder.embed_positions.weight.data[18 : 18 + len(table)] = table


# --- what is read -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_equal_beginnings_of_a_picture_are_encoded_once(monkeypatch):
    model, seen = small(), []
    run = model.encoder.run
    monkeypatch.setattr(model.encoder, 'run', lambda x, layout, **more: seen.append(layout.batch) or run(x, layout))
    image_tokens, texts = model.encode_image(pictures(2)), model.tokenize(['no', 'a two', 'red', 'is'])
    prompts = model.tokenize(['a by', 'a by', 'a by', 'it'])
    got = model.teach(image_tokens, [0, 0, 1, 1], prompts, texts)
    assert seen == [3]
    for row, image in enumerate([0, 0, 1, 1]):
        alone = [TokenBatch(ids[row : row + 1], mask[row : row + 1]) for ids, mask in (each(prompts), each(texts))]
        torch.testing.assert_close(model.teach(image_tokens, [image], *alone)[0], got[row])


@torch.no_grad()
def test_prompts_of_any_lengths_are_read_whole_and_without_their_end():
    model = small()
    image_tokens, texts = model.encode_image(pictures(1)), model.tokenize(['a two'])
    prompts = model.tokenize(['is a dog by it', 'a'])
    (alone,) = model.teach(image_tokens, [0], model.tokenize(['a']), texts)
    both = model.teach(image_tokens, [0, 0], prompts, TokenBatch(*(x.repeat(2, 1) for x in each(texts))))
    torch.testing.assert_close(both[1], alone)
    ended = prompts.input_ids.clone()
    ended[0, -1] = 7
    same = model.teach(image_tokens, [0], TokenBatch(ended[:1], prompts.mask[:1]), texts)
    torch.testing.assert_close(same[0], both[0])
    for place in range(prompts.input_ids.shape[1] - 1):  # every word of a prompt counts for every word of a text
        other = prompts.input_ids[:1].clone()
        other[0, place] += 1
        changed = model.teach(image_tokens, [0], TokenBatch(other, prompts.mask[:1]), texts)
        assert ((changed[0] - both[0]).abs().amax(1) > 1e-9).all()


# --- texts without pictures -------------------------------------------------------------------------------------------


def test_a_text_alone_learns_beside_pictured_ones():
    model = small()
    torch.manual_seed(1)
    together = model.loss(pictures(3), samples(pictured=(True, False, True)))['loss_caption']
    cuts = torch.Generator().manual_seed(1)
    tokens = model.tokenize(TEXTS)
    prompts, texts = cut_texts(tokens, draw_cuts(tokens.mask, cuts), model.tokenizer.pad_token_id)
    total = count = 0
    for row, picture in enumerate(pictures(3)):
        before, after = (
            TokenBatch(part.input_ids[row : row + 1, :size], part.mask[row : row + 1, :size])
            for part, size in ((part, int(part.mask[row].sum())) for part in (prompts, texts))
        )
        if row == 1:
            hidden = model.teach(torch.zeros(0, 1, model.hidden_size).double(), [None], before, after)
        else:
            hidden = model.teach(model.encode_image(picture[None]), [0], before, after)
        total += F.cross_entropy(model.heads.caption(hidden[0]), after.input_ids[0, 1:], reduction='sum')
        count += after.input_ids.shape[1] - 1
    torch.testing.assert_close(together, total / count)


def test_of_a_text_alone_no_pixel_counts():
    model = small().train()
    found = []
    for images in (pictures(3), pictures(3) + 1):
        torch.manual_seed(1)
        found.append(model.loss(images, samples(pictured=(False,) * 3))['loss_caption'])
    assert found[0] == found[1]
    found[0].backward()
    # there is one of zeros for each parameter, as other processes wait for it
    assert not any(parameter.grad.any() for parameter in model.image_encoder.parameters())
    assert model.encoder.embeddings.word_embeddings.weight.grad.any()
    torch.manual_seed(1)
    assert model.loss(pictures(3), samples())['loss_caption'] != found[0]


def test_different_pictures_are_found_among_those_that_there_are():
    images = pictures(4)[[0, 1, 0, 3]]
    batch = FusionBatch(small(), images, samples(['a'] * 4, (True, False, True, True)))
    assert batch.image_of == [0, None, 0, 1]
    torch.testing.assert_close(batch.images, images[[0, 3]])


def test_a_family_that_needs_pictures_says_so():
    model = build('GIT')
    with pytest.raises(ValueError, match='sample 2 of the batch has no picture, and GIT needs one; leave texts alone'):
        model.loss(pictures(3), samples(pictured=(True, True, False)))


# --- cuts -------------------------------------------------------------------------------------------------------------


def test_every_place_of_a_cut_is_equally_probable():
    words = torch.tensor([1, 2, 5, 0])
    mask = torch.arange(8) < words[:, None] + 2
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([draw_cuts(mask, generator) for _ in range(4000)])
    assert not drawn[:, [0, 3]].any()
    for column, places in ((1, 2), (2, 5)):
        counts = torch.bincount(drawn[:, column], minlength=places)
        assert len(counts) == places
        # 5 standard deviations of a binomial distribution
        assert (counts - 4000 / places).abs().max() < 5 * (4000 / places * (1 - 1 / places)) ** 0.5
    torch.manual_seed(0)
    assert torch.equal(draw_cuts(mask), drawn[0])  # torch's generator, on the CPU


def test_both_parts_of_a_cut_text_have_start_and_end():
    ids = torch.tensor([[1, 5, 6, 7, 2], [1, 8, 2, 0, 0], [1, 2, 0, 0, 0]])
    mask = torch.arange(5) < torch.tensor([5, 3, 2])[:, None]
    before, after = cut_texts(TokenBatch(ids, mask), torch.tensor([2, 0, 0]), 0)
    assert before.input_ids.tolist() == [[1, 5, 6, 2], [1, 2, 0, 0], [1, 2, 0, 0]]
    assert after.input_ids.tolist() == [[1, 7, 2], [1, 8, 2], [1, 2, 0]]
    assert before.mask.sum(1).tolist() == [4, 2, 2] and after.mask.sum(1).tolist() == [3, 3, 2]
    before, after = cut_texts(TokenBatch(ids, mask), torch.tensor([0, 0, 0]), 0)
    assert before.input_ids.tolist() == [[1, 2]] * 3 and torch.equal(after.input_ids, ids)


@pytest.mark.parametrize('name', ['SimVLM', 'GIT', 'METER'])
def test_the_prefix_loss_of_a_model_is_that_of_writing_after_the_prefix(name):
    model = build(name, heads={'caption': {'type': 'FusionCaptionHead', 'random_prefix': True}})
    torch.manual_seed(4)
    loss = model.loss(pictures(3), samples())['loss_caption']
    tokens = model.tokenize(TEXTS)
    parts = cut_texts(tokens, draw_cuts(tokens.mask, torch.Generator().manual_seed(4)), model.tokenizer.pad_token_id)
    (prompts, texts), total, count = parts, 0, 0
    for row, picture in enumerate(pictures(3)):
        size, given = int(texts.mask[row].sum()), int(prompts.mask[row].sum())
        prompt = TokenBatch(prompts.input_ids[row : row + 1, :given], prompts.mask[row : row + 1, :given])
        for end in range(1, size):  # word by word
            state = model.start_writing(model.encode_image(picture[None]), [0], prompt)
            ids = torch.cat([state.first_ids, texts.input_ids[row : row + 1, 1:end]], 1)
            hidden = model.write_on(TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool)), state)
            total -= model.heads.caption(hidden[0, -1:]).log_softmax(1)[0, texts.input_ids[row, end]]
        count += size - 1
    torch.testing.assert_close(loss, total / count)


@torch.no_grad()
def test_of_a_text_without_words_the_end_is_learned():
    model = small()
    image_tokens, empty = model.encode_image(pictures(1)), model.tokenize([''])
    (hidden,) = model.teach(image_tokens, [0], empty, empty)
    expected = F.cross_entropy(model.heads.caption(hidden), torch.tensor([model.tokenizer.end_token_id]))
    torch.testing.assert_close(model.loss(pictures(1), samples([''], [True]))['loss_caption'], expected)


# --- completion -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['SimVLM', 'GIT'])
def test_half_a_text_is_completed(name):
    head = {'type': 'FusionCaptionHead', 'complete': 0.5, 'max_length': 5}
    model = build(name, heads={'caption': head})
    found = model.predict(pictures(3), samples())
    image_tokens = model.encode_image(pictures(3))
    for row, (text, sample) in enumerate(zip(TEXTS, found, strict=True)):
        start, *ids, end = model.tokenize([text]).input_ids[0].tolist()
        given = ids[: len(ids) // 2]
        prompt = torch.tensor([[start, *given, end]])
        prompt = TokenBatch(prompt, torch.ones_like(prompt, dtype=torch.bool))
        written = model.heads.caption.generate(model, image_tokens[row : row + 1], [0], prompt)
        assert given and sample.pred_caption == model.tokenizer.decode([*given, *written.ids[0]])
        assert sample.caption_score == pytest.approx(float(written.log_probs[0]) / (len(written.ids[0]) + 1), rel=1e-9)


def test_a_text_alone_is_completed_without_any_picture():
    head = {'type': 'FusionCaptionHead', 'complete': 0.5, 'max_length': 5}
    model, said = build('SimVLM', heads={'caption': head}), []
    for images, pictured in ((pictures(3), False), (pictures(3) + 1, False), (pictures(3), True)):
        found = model.predict(images, samples(pictured=(True, pictured, True)))
        said.append([(sample.pred_caption, sample.caption_score) for sample in found])
    assert said[0][1] == said[1][1] != said[2][1]
    (alone,) = model.predict(pictures(1), samples(TEXTS[1:2], (False,)))
    assert alone.pred_caption == said[0][1][0] and alone.caption_score == pytest.approx(said[0][1][1], rel=1e-9)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        ({'map_size': (0, 3)}, r'map_size is \(0, 3\); give height and width'),
        ({'decoder_layers': 0}, 'num_layers of the text stack is 0; give at least 1'),
        ({'max_text_len': 20, 'text': {'hidden_size': 16, 'num_heads': 2, 'max_positions': 10}}, '20 tokens in max_te'),
        ({'image_encoder': torch.nn.Identity()}, 'Identity has no num_features.*SimVLM needs it'),
        (
            {'heads': {'caption': {'type': 'FusionCaptionHead', 'random_prefix': True, 'prompt': 'a'}}},
            "got the prompt 'a' and random_prefix=True.*leave one of them out",
        ),
        ({'heads': {'caption': {'type': 'FusionCaptionHead', 'complete': 1.0}}}, 'complete of the caption head is 1.0'),
    ],
)
def test_what_does_not_fit_is_refused(changes, sentence):
    config = {**find_smalls()['SimVLM'].config, **changes}
    with pytest.raises(ValueError, match=sentence):
        find_smalls()['SimVLM'].registry.build(config)


def test_a_prompt_longer_than_the_texts_is_refused():
    model = small()
    prompts = TokenBatch(torch.full((1, 22), 5), torch.ones(1, 22, dtype=torch.bool))
    with pytest.raises(ValueError, match='texts have 21 tokens and the text stack takes 20; lower max_text_len'):
        model.start_writing(model.encode_image(pictures(1)), [0], prompts)
