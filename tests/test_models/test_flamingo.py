"""Flamingo: what each token reads, the start as the language model alone, what learns, and values by hand."""

import copy

import pytest
import torch
from instances import build
from mmpretrain.structures import DataSample
from public_open_flamingo import VOCAB, Patches, drawn, in_layers, ours, trained
from torch.nn import functional as F

from florence_mm.language.documents import first_pictures, has_lessons, write_document
from florence_mm.models.checkpoints import convert_state_dict, export_state_dict
from florence_mm.models.heads.multimodal.documents import learned_places
from florence_mm.models.layers.latent_attention import LatentAttention
from florence_mm.models.layers.resampler import Resampler
from florence_mm.models.multimodal import FlorenceFlamingo
from florence_mm.models.text import StackLanguageModel
from florence_mm.models.tokenizers import DocumentTokenizer
from florence_mm.models.tokenizers.protocol import TokenBatch

DOCUMENT = '<image>a red two<|endofchunk|><image>is it<|endofchunk|>'
EXACT = {'rtol': 0, 'atol': 0}


@pytest.fixture(scope='module')
def model():
    return ours().double()


def read(model, document, latents, pictures):
    tokens = model.tokenizer.tokenize_documents([document], 60)
    return tokens, model.read_documents(latents, [pictures], tokens)[0]


# --- documents --------------------------------------------------------------------------------------------------------


def test_a_document_has_its_marks_before_pictures_and_at_the_end():
    assert write_document([None, 'a', None, 'b']) == '<image>a<|endofchunk|><image>b<|endofchunk|>'
    assert write_document(['a ', ' b', None]) == 'a b<|endofchunk|><image><|endofchunk|>'
    assert write_document([None, None, 'b']) == '<image><|endofchunk|><image>b<|endofchunk|>'
    with pytest.raises(ValueError, match="a text of the document has '<image>'"):
        write_document(['see <image>'])
    assert has_lessons(['a', None, 'b']) and not has_lessons(['a', None]) and not has_lessons(['a'])
    assert first_pictures(['a', None, 'b', None, None], 2) == ['a', None, 'b']


def test_losses_are_on_what_is_said_of_pictures():
    tokenizer = DocumentTokenizer({'type': 'MaskedCLIPTokenizer', 'vocab_size': VOCAB - 1})
    documents = ['b<|endofchunk|><image>a<|endofchunk|>b<image>a', '<image><image>a', 'b']
    tokens = tokenizer.tokenize_documents(documents, 60)
    learned = learned_places(tokens, tokenizer)
    assert tokens.input_ids[learned].tolist() == [
        tokens.input_ids[0, 4], tokenizer.chunk_end_id,  # the first picture's
        tokens.input_ids[0, 8], tokenizer.document_end_id,
        tokens.input_ids[1, 3], tokenizer.document_end_id,
    ]  # fmt: skip
    assert not learned[2].any()


def test_ids_of_marks_stand_behind_the_vocabulary():
    tokenizer = DocumentTokenizer({'type': 'MaskedCLIPTokenizer', 'vocab_size': VOCAB - 1})
    assert (tokenizer.chunk_end_id, tokenizer.image_id, tokenizer.vocab_size) == (VOCAB, VOCAB + 1, VOCAB + 2)
    cut = tokenizer.tokenize_documents(['<image>a a a a'], 4)
    assert cut.input_ids.tolist() == [[598, VOCAB + 1, *cut.input_ids[0, 2:].tolist()]] and tokenizer.num_truncated == 1
    end = tokenizer.tokenize_documents(['<image>a a a a<image>'], 4, ended=False)
    assert end.input_ids[0, -1] == tokenizer.image_id and end.input_ids.shape == (1, 4)


# --- reading ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_text_reads_the_last_picture_before_it_alone(model):
    latents = torch.randn(3, 64, 24, dtype=torch.double)
    tokens, hidden = read(model, DOCUMENT, latents, [0, 1])
    second = (tokens.input_ids[0] == model.tokenizer.image_id).nonzero()[1, 0]
    _, other_first = read(model, DOCUMENT, latents, [2, 1])
    _, other_second = read(model, DOCUMENT, latents, [0, 2])
    changed = (other_second - hidden).abs().amax(1)
    assert (changed[:second] == 0).all() and (changed[second:] > 1e-6).all()
    assert hidden[0].equal(other_first[0])  # before the first picture
    # what stands behind the second sees the first by the language model alone: its blocks read the second
    media = model.start_documents(latents, [[0, 1]], tokens.input_ids)
    shown = (tokens.input_ids == model.tokenizer.image_id).cumsum(1)
    before = model._read_before(media.memory, shown)
    x = torch.randn(1, tokens.input_ids.shape[1], 32, dtype=torch.double)
    block = model.blocks['1']
    expected = torch.cat([
        block(x[:, :1], latents[:1], torch.zeros(1, 64, dtype=torch.bool)),  # nothing to read: zeros
        block(x[:, 1:second], latents[:1]),
        block(x[:, second:], latents[1:2]),
    ], 1)  # fmt: skip
    torch.testing.assert_close(before(1, x), expected, rtol=1e-9, atol=1e-9)
    assert before(0, x) is x  # no block stands there


@torch.no_grad()
def test_a_mark_without_a_picture_reads_none_of_another_document(model):
    latents = torch.randn(3, 64, 24, dtype=torch.double)
    media = model.start_documents(latents, [[0], [1, 2]], torch.zeros(2, 3, dtype=torch.long))
    before = model._read_before(media.memory, torch.tensor([[0, 1, 2], [0, 1, 2]]))  # the first has written a mark
    x = torch.randn(2, 3, 32, dtype=torch.double)
    got, block, nothing = before(1, x), model.blocks['1'], torch.zeros(1, 64, dtype=torch.bool)
    torch.testing.assert_close(got[:1, 2:], block(x[:1, 2:], latents[:1], nothing), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(got[1:, 2:], block(x[1:, 2:], latents[2:]), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_a_gated_block_by_hand():
    block = LatentAttention(2, 1, token_dims=2, norm_tokens=False, gated=True, bias=False, act='squared_relu')
    for linear in (block.query, block.output):
        linear.weight.copy_(torch.eye(2))
    block.key_value.weight.copy_(torch.cat([torch.zeros(2, 2), torch.eye(2)]))  # equal weights: the mean is read
    block.mlp.fc1.weight.zero_()
    block.mlp.fc1.weight[0] = torch.tensor([1.0, 0.0])
    block.mlp.fc2.weight.zero_()
    block.mlp.fc2.weight[1, 0] = 3.0
    block.attn_gate.fill_(0.5)
    block.mlp_gate.fill_(-1.0)
    tokens = torch.tensor([[[4.0, 0.0], [0.0, 2.0]]])
    read = torch.tensor([1.0, 0.0]) + torch.tensor([2.0, 1.0]) * torch.tensor(0.5).tanh()
    normed = F.layer_norm(read, (2,))
    expected = read + torch.tensor([0.0, 3.0]) * normed[0].relu() ** 2 * torch.tensor(-1.0).tanh()
    torch.testing.assert_close(block(torch.tensor([[[1.0, 0.0]]]), tokens)[0, 0], expected)


@torch.no_grad()
def test_the_resampler_reads_frames_with_vectors_of_their_own_and_itself():
    resampler = drawn(Resampler(8, 3, 2, 2, 4, num_frames=4)).double()
    frames = torch.randn(2, 3, 5, 8, dtype=torch.double)
    tokens = (frames + resampler.frame_embeddings[:3, None]).flatten(1, 2)
    latents = resampler.latents.expand(2, -1, -1)
    for layer in resampler.layers:
        normed, read = layer.query_norm(latents), torch.cat([layer.token_norm(tokens), layer.query_norm(latents)], 1)
        key, value = layer.key_value(read).chunk(2, 2)
        heads = [x.unflatten(2, (2, 4)).transpose(1, 2) for x in (layer.query(normed), key, value)]
        weights = (heads[0] @ heads[1].transpose(2, 3) / 2).softmax(-1)
        latents = latents + layer.output((weights @ heads[2]).transpose(1, 2).flatten(2))
        latents = latents + layer.mlp(latents)
    torch.testing.assert_close(resampler(frames), resampler.norm(latents))
    torch.testing.assert_close(resampler(frames[:, 0]), resampler(frames[:, :1]))
    turned = frames[:, :, torch.tensor([3, 1, 4, 0, 2])]  # no spatial positions of its own
    torch.testing.assert_close(resampler(turned), resampler(frames))
    with pytest.raises(ValueError, match='a video has 5 frames and num_frames of the resampler is 4'):
        resampler(torch.randn(1, 5, 2, 8, dtype=torch.double))


@torch.no_grad()
def test_videos_are_read_by_their_frames():
    model = build('FlorenceFlamingo', resampler={'num_layers': 1, 'num_latents': 3, 'num_heads': 2, 'num_frames': 2})
    videos = torch.randn(2, 3, 2, 32, 32, dtype=torch.double)
    latents = model.encode_image(videos)
    assert latents.shape == (2, 3, 32)
    assert not torch.allclose(latents, model.encode_image(videos.flip(2)))
    torch.testing.assert_close(model.encode_image(videos[:, :, :1]), model.encode_image(videos[:, :, 0]))


# --- what learns ------------------------------------------------------------------------------------------------------


def language():
    sizes = {'hidden_size': 16, 'num_layers': 2, 'num_heads': 2, 'max_positions': 60, 'vocab_size': VOCAB}
    return StackLanguageModel({**sizes, 'drop_rate': 0.0, 'attn_drop_rate': 0.0, 'init_std': 0.25})


def around(language_model, **changes):
    return FlorenceFlamingo(
        Patches(),
        language_model,
        {'type': 'MaskedCLIPTokenizer', 'vocab_size': VOCAB - 1},
        resampler={'num_layers': 1, 'num_latents': 4},
        heads={'caption': {'type': 'DocumentHead'}},
        max_text_len=40,
        **changes,
    )


@pytest.mark.parametrize('act', ['squared_relu', 'gelu'])
@torch.no_grad()
def test_gates_of_zero_leave_the_language_model_bit_for_bit(act):
    torch.manual_seed(0)
    alone = language().eval()
    model = around(copy.deepcopy(alone), act=act).eval()
    ids = torch.randint(5, 500, (2, 9))
    document = torch.cat([ids[:, :4], torch.full((2, 1), 7), ids[:, 4:]], 1)
    state = model.start_documents(torch.randn(3, 4, 24), [[0, 1], [2]], document)
    tokens = model.tokenizer.tokenize_documents(['<image>no', '<image>no'], 20)
    assert model.tokenizer.image_id in tokens.input_ids
    mask = torch.ones_like(document, dtype=torch.bool)
    hidden = model.write_on(type(tokens)(document, mask), state)
    expected = alone.next_logits(document)
    torch.testing.assert_close(F.linear(hidden, alone.outputs()), expected, **EXACT)
    torch.testing.assert_close(model.marks(hidden[0])[:, :VOCAB], expected[0], rtol=1e-6, atol=1e-6)
    # the same with a mark of a picture before, whose embedding is all that is new
    marked = torch.cat([document[:, :1], torch.full((2, 1), model.tokenizer.image_id), document[:, 1:]], 1)
    state = model.start_documents(torch.randn(3, 4, 24), [[0], [2]], marked)
    first = model.write_on(type(tokens)(marked, torch.ones_like(marked, dtype=torch.bool)), state)
    torch.testing.assert_close(first, alone.run(model.marks.embed(marked)), **EXACT)


def test_what_is_frozen_stays_bit_for_bit_and_checkpoints_hold_the_rest():
    torch.manual_seed(0)
    model = around(language()).train()
    with torch.no_grad():
        for block in model.blocks.values():
            block.attn_gate.fill_(0.1)
            block.mlp_gate.fill_(0.1)
    assert not model.language_model.training and not model.image_encoder.training
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01, weight_decay=0.5)
    pictures = torch.randn(2, 3, 2, 16, 16)
    samples = [DataSample(document=DOCUMENT, num_pictures=2) for _ in range(2)]
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = model(pictures, samples, mode='loss')['loss_caption']
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    after = model.state_dict()
    frozen = {key for key in after if after[key].equal(before[key])}
    left_out = tuple(f'{part}.' for part in model.left_out_parts())
    kept = {key for key in after if not key.startswith(left_out)}
    assert frozen - {'heads.caption.bias'} == set(after) - kept  # that is no parameter
    assert set(after) - kept == {key for key in after if key.startswith(('language_model.', 'image_encoder.'))}
    assert {key.partition('.')[0] for key in kept} - {'heads'} == {'resampler', 'blocks', 'marks'}
    assert model.left_out_parts() == ('image_encoder', 'language_model')
    assert around(language(), keep_frozen=True).left_out_parts() == ()
    assert around(language(), freeze_language_model=False).left_out_parts() == ('image_encoder',)


# --- losses -----------------------------------------------------------------------------------------------------------


def test_losses_by_source_are_weighted_and_nothing_to_learn_is_exactly_0():
    torch.manual_seed(0)
    model = around(language(), keep_frozen=True)
    drawn(model)
    pictures = torch.randn(3, 3, 2, 16, 16)
    samples = [
        DataSample(document=DOCUMENT, num_pictures=2, data_source='interleaved'),
        DataSample(document='<image>a dog<|endofchunk|>', num_pictures=1, data_source='pairs'),
        DataSample(document='no', num_pictures=0, data_source='interleaved'),
    ]
    model.heads['caption'].weights = {'interleaved': 1.0, 'pairs': 1.0}
    plain = model(pictures, samples, mode='loss')
    model.heads['caption'].weights = {'interleaved': 1.0, 'pairs': 0.2, 'video': 0.03}
    weighted = model(pictures, samples, mode='loss')
    torch.testing.assert_close(weighted['loss_interleaved'], plain['loss_interleaved'], **EXACT)
    torch.testing.assert_close(weighted['loss_pairs'], 0.2 * plain['loss_pairs'])
    assert float(weighted['loss_video']) == 0
    with pytest.raises(ValueError, match="samples of the source 'web'.*give it a weight"):
        model(pictures[:1], [DataSample(document=DOCUMENT, num_pictures=2, data_source='web')], mode='loss')
    model.heads['caption'].weights = {}
    together = model(pictures, samples, mode='loss')['loss_caption']
    tokens = model.tokenizer.tokenize_documents([sample.document for sample in samples], 40)
    first, second, none = learned_places(tokens, model.tokenizer).sum(1).tolist()
    expected = (first * plain['loss_interleaved'] + second * plain['loss_pairs']) / (first + second)
    torch.testing.assert_close(together, expected)
    assert first > second > 0 == none
    nothing = model(pictures[:1], [DataSample(document='no', num_pictures=0)], mode='loss')
    assert float(nothing['loss_caption']) == 0 and float(nothing['acc_caption']) == 0
    nothing['loss_caption'].backward()
    cut = 'two ' * 60  # the picture behind it is cut off with its text
    nothing = model(pictures[:1], [DataSample(document=f'{cut}<image>a', num_pictures=1)], mode='loss')
    assert float(nothing['loss_caption']) == 0
    with pytest.raises(ValueError, match='document 0 of the batch has 2 marks of pictures and 1 pictures'):
        model(pictures[:1], [DataSample(document=DOCUMENT, num_pictures=1)], mode='loss')
    with pytest.raises(ValueError, match='pack all of them by PackDocument'):
        model(pictures, [*samples[:2], DataSample(text='no')], mode='loss')


@torch.no_grad()
def test_a_pair_has_the_loss_of_its_document(model):
    images = torch.randn(2, 3, 16, 16, dtype=torch.double)
    pairs = [DataSample(text='a dog'), DataSample(text='two')]
    documents = [DataSample(document=f'<image>{s.text}<|endofchunk|>', num_pictures=1) for s in pairs]
    loss = model(images, pairs, mode='loss')['loss_caption']
    torch.testing.assert_close(model(images[:, :, None], documents, mode='loss')['loss_caption'], loss)


# --- writing ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_what_is_written_behind_examples_is_what_reading_them_again_says(model):
    head = model.heads['caption']
    head.max_length = 4
    latents = torch.randn(3, 64, 24, dtype=torch.double)
    prompts = ['<image>a dog<|endofchunk|><image>', '<image>is', 'no<|endofchunk|><image>a']
    pictures_of = [[0, 1], [2], [1]]
    together = head.write_behind(model, latents, pictures_of, prompts)
    for prompt, pictures, text in zip(prompts, pictures_of, together, strict=True):
        (alone,) = head.write_behind(model, latents, [pictures], [prompt])
        assert alone.text == text.text and alone.score == pytest.approx(text.score)
        ids = model.tokenizer.tokenize_documents([prompt], 60, ended=False).input_ids
        for _ in range(4):  # greedy, without cache
            state = model.start_documents(latents, [pictures], ids)
            mask = torch.ones_like(ids, dtype=torch.bool)
            logits = head(model.write_on(type(model.tokenize(['a']))(ids, mask), state)[:, -1])
            logits[:, list(model.tokenizer.special_ids - {model.tokenizer.chunk_end_id})] = -torch.inf
            best = logits.argmax(1, keepdim=True)
            if best.item() == model.tokenizer.chunk_end_id:
                break
            ids = torch.cat([ids, best], 1)
        written = model.tokenizer.tokenize_documents([prompt], 60, ended=False).input_ids.shape[1]
        assert model.tokenizer.decode(ids[0, written:]) == text.text


@torch.no_grad()
@torch.no_grad()
def test_rows_that_are_selected_take_the_pictures_that_they_have_shown(model):
    """Of two documents one has shown its second picture; what is written on goes with the row."""
    tokens = model.encode_image(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double())
    image, start = model.tokenizer.image_id, model.tokenizer.document_start_id
    ids = torch.tensor([[start, image, 9, image], [start, image, 9, 8]])

    def written(order):
        state = model.start_documents(tokens, [(0, 1), (0, 1)], ids[:, :1], cached=True)
        model.write_on(TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool)), state)
        state.caches[0].select(torch.tensor(order))
        return model.write_on(TokenBatch(torch.full((2, 1), 7), torch.ones(2, 1, dtype=torch.bool)), state)

    straight, exchanged = written([0, 1]), written([1, 0])
    torch.testing.assert_close(exchanged, straight[[1, 0]])
    torch.testing.assert_close(written([0, 0]), straight[[0, 0]])
    assert (straight[0] - straight[1]).abs().max() > 1e-6


@pytest.mark.parametrize('document', ['a dog ', ''])
def test_documents_without_pictures_are_written_on(model, document):
    """The image encoder is wider than the language model, and gets no picture."""
    assert model.image_dims != model.hidden_size
    alone = model.predict(torch.zeros(1, 3, 2, 32, 32).double(), [DataSample(document=document, num_pictures=0)])[0]
    beside = torch.randn(2, 3, 2, 32, 32, generator=torch.Generator().manual_seed(0)).double()
    samples = [DataSample(document=f'{document}<image>', num_pictures=1), DataSample(document=document, num_pictures=0)]
    together = model.predict(beside, samples)
    assert alone.pred_caption == together[1].pred_caption
    assert alone.caption_score == pytest.approx(together[1].caption_score, abs=1e-9)


def test_a_long_prompt_keeps_its_end_with_the_pictures_there(model):
    head = model.heads['caption']
    head.max_length = 4
    latents = torch.randn(3, 64, 24, dtype=torch.double)
    shot = f'<image>{"two " * 14}<|endofchunk|>'
    ids = model.tokenizer.tokenize_documents([shot], 60, ended=False).input_ids.shape[1] - 1
    assert 60 - 5 < 4 * ids < 5 * 60
    (long,) = head.write_behind(model, latents, [[0, 0, 0, 1, 2]], [f'{shot * 4}<image>'])
    (other,) = head.write_behind(model, latents, [[1, 1, 0, 1, 2]], [f'{shot * 4}<image>'])
    assert long == other


# --- open_flamingo's files --------------------------------------------------------------------------------------------


@torch.no_grad()
def test_weights_of_open_flamingo_are_all_but_the_frozen_parts():
    model = ours()
    state = trained()
    for layout in (state, in_layers(state)):
        name, converted, skipped = convert_state_dict(dict(layout))
        assert name == 'open_flamingo' and not skipped
        own = model.state_dict()
        assert {key for key in own if key.partition('.')[0] in ('resampler', 'blocks', 'marks')} <= converted.keys()
        for key, value in converted.items():
            assert value.equal(own[key]), key
    # of a tokenizer without padding, the third row behind the words
    words = 'lang_encoder.model.decoder.embed_tokens.weight'
    padded = torch.cat([torch.randn(32000, 32), torch.arange(3.0)[:, None].expand(3, 32)])
    _, converted, skipped = convert_state_dict({**state, words: padded})
    assert converted['marks.marks'][:, 0].tolist() == [0, 1] and '<PAD>' in skipped
    with pytest.raises(ValueError, match='it has no table of words'):
        convert_state_dict({key: value for key, value in state.items() if key != words})
    with pytest.raises(ValueError, match='take a checkpoint of a model with keep_frozen=True'):
        export_state_dict({k: v for k, v in own.items() if not k.startswith('language_model.')}, 'open_flamingo')
    exported = export_state_dict(own, 'open_flamingo')
    assert all(exported.tensors[key].equal(value) for key, value in state.items())
