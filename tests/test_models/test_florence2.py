"""Florence-2: parameters of the published sizes, its projector, prompts apart from texts, and what is bad input."""

import functools

import pytest
import torch
from instances import build
from mmpretrain.structures import DataSample
from small_coswin import COSWIN

from florence_mm.models.multimodal import Florence2
from florence_mm.models.multimodal.florence2 import ImageProjector, joined_maps
from florence_mm.models.multimodal.protocol import TaskQuestion
from florence_mm.models.tokenizers import LocationTokenizer, MaskedCLIPTokenizer

HEADS = {'tasks': {'type': 'TaskHead', 'max_length': 12}}
CLOSE = {'rtol': 1e-9, 'atol': 1e-9}


def small(**changes):
    tokenizer = {'type': 'LocationTokenizer', 'tokenizer': {'type': 'MaskedCLIPTokenizer', 'vocab_size': 600}}
    changes = {'tokenizer': {**tokenizer, 'num_bins': 20}, 'heads': HEADS, **changes}
    return build('Florence2', **changes)


def images(count=3):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(3)).double()


def test_neighbouring_places_start_alike():
    model = small(smooth_places=True, spread=False)
    model.init_weights()
    words, locations = model.word_embeddings.weight.detach(), model.tokenizer.location_ids
    waves = words[locations.start : locations.stop]
    # as large as other words
    torch.testing.assert_close(waves.square().mean().sqrt(), words[: locations.start].std(), rtol=0.1, atol=0)
    for table in (waves, model.image_projector.rows.weight.detach(), model.image_projector.columns.weight.detach()):
        # products of two rows depend on their distance alone, and fall with it at first
        products = table @ table.T
        for offset in range(len(table)):
            diagonal = products.diagonal(offset)
            torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-4, atol=1e-5)
        assert products[0, 1] > products[0, 3] and products[0, 1] > 0.25 * products[0, 0]
    apart = small(spread=False).word_embeddings.weight.detach()[locations.start : locations.stop]
    assert (apart @ apart.T)[0, 1] < 0.5 * apart.square().sum(1).mean()
    with pytest.raises(ValueError, match='MaskedCLIPTokenizer has no locations; give a LocationTokenizer'):
        small(tokenizer={'type': 'MaskedCLIPTokenizer', 'vocab_size': 600}, heads={}, smooth_places=True)


# --- sizes ------------------------------------------------------------------------------------------------------------

BASE = {'num_layers': 6, 'hidden_size': 768, 'num_heads': 12}
LARGE = {'num_layers': 12, 'hidden_size': 1024, 'num_heads': 16}


@pytest.mark.parametrize(
    ('arch', 'text', 'total'), [('base', BASE, 231_414_016), ('large', LARGE, 770_173_952)], ids=['base', 'large']
)
def test_the_published_sizes(arch, text, total):
    class Words:
        vocab_size, special_ids = 51289, frozenset()

    with torch.device('meta'):
        model = Florence2({'type': 'FlorenceDaViT', 'arch': arch}, Words(), text, heads={'tasks': {'type': 'TaskHead'}})
    assert sum(value.numel() for value in model.parameters()) == total
    transformers = pytest.importorskip('transformers')
    widths, heads, width = ((128, 256, 512, 1024), (4, 8, 16, 32), 768)
    if arch == 'large':
        widths, heads, width = (tuple(2 * n for n in widths), tuple(2 * n for n in heads), 1024)
    sides = {'layers': text['num_layers'], 'attention_heads': text['num_heads'], 'ffn_dim': 4 * width}
    config = transformers.Florence2Config(
        vision_config={'embed_dim': widths, 'num_heads': heads, 'num_groups': heads, 'projection_dim': width},
        text_config={
            'model_type': 'bart',
            'vocab_size': 51289,
            'd_model': width,
            **{f'{part}_{key}': value for part in ('encoder', 'decoder') for key, value in sides.items()},
        },
    )
    with torch.device('meta'):
        theirs = transformers.Florence2ForConditionalGeneration(config)
        theirs.tie_weights()
    assert sum(value.numel() for value in {id(value): value for value in theirs.parameters()}.values()) == total


# --- reading ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_places_of_a_map_are_told_apart_and_the_mean_is_before_them():
    projector = ImageProjector(4, 6, max_map_size=3).double()
    x = torch.randn(2, 4, 2, 3, dtype=torch.float64)
    tokens = projector(x)
    assert tokens.shape == (2, 7, 6)
    rows, columns = projector.rows.weight, projector.columns.weight
    place = x[1, :, 1, 2] + torch.cat([columns[2], rows[1]]) + torch.tensor([0.0, 1, 0, 1])
    torch.testing.assert_close(tokens[1, 1 + 1 * 3 + 2], projector.norm(projector.dense.weight @ place), **CLOSE)
    time = torch.tensor([0.0, 1, 0, 1]) + torch.cat([columns.mean(0), rows[:2].mean(0)])
    mean = projector.dense.weight @ (x[1].mean((1, 2)) + time)
    torch.testing.assert_close(tokens[1, 0], projector.norm(mean), **CLOSE)
    with pytest.raises(ValueError, match=r'a map of 4 x 2 and max_map_size is 3; make images smaller or raise'):
        projector(torch.zeros(1, 4, 4, 2, dtype=torch.float64))


@torch.no_grad()
def test_maps_of_several_stages_are_joined_at_the_size_of_the_first():
    fine, coarse = torch.arange(16.0).reshape(1, 1, 4, 4), torch.tensor([[[[0.0, 1], [2, 3]]]])
    joined = joined_maps((fine, coarse))
    assert torch.equal(joined[:, :1], fine)
    # centres of pixels: a quarter and three quarters of the way between the coarse ones
    expected = torch.tensor([[0, 0.25, 0.75, 1], [0.5, 0.75, 1.25, 1.5], [1.5, 1.75, 2.25, 2.5], [2, 2.25, 2.75, 3]])
    torch.testing.assert_close(joined[0, 1], expected)
    encoder, sizes = {**COSWIN, 'out_indices': (1, 2)}, {'max_map_size': 8}
    one, both = (small(image_encoder=encoder, join_maps=joins, **sizes) for joins in (False, True))
    assert one.image_projector.dense.in_features == 32 and both.image_projector.dense.in_features == 16 + 32
    assert one.encode_image(images(1)).shape[1] == 1 + 4 * 4 and both.encode_image(images(1)).shape[1] == 1 + 8 * 8

    class Flat(torch.nn.Module):
        num_features = 8

    with pytest.raises(
        ValueError, match='joined maps need a backbone with feature_info and out_indices, which Flat has not'
    ):
        small(image_encoder=Flat(), join_maps=True)


def test_a_prompt_has_room_for_a_word():
    with pytest.raises(ValueError, match=r'max_prompt_len is 2; give at least 3 tokens \(start, one token, end\)'):
        small(max_prompt_len=2)


@torch.no_grad()
def test_prompts_of_any_length_are_answered_together(monkeypatch):
    model = small()
    prompts, calls = ['a', 'is a red dog by it', 'no two', 'a'], []
    tokens = model.encode_image(images(2))[[0, 1, 1, 0]]
    start = model.start_writing
    monkeypatch.setattr(model, 'start_writing', lambda *args: calls.append(args) or start(*args))
    together = model.write(tokens, prompts)
    assert len(calls) == 1
    monkeypatch.undo()
    for number, written in enumerate(together):
        (alone,) = model.write(tokens[number : number + 1], prompts[number : number + 1])
        assert alone.text == written.text and alone.score == pytest.approx(written.score, rel=1e-9)


@torch.no_grad()
def test_equal_questions_about_an_image_are_read_once(monkeypatch):
    model = small()
    rows = []
    run = model.encoder.run
    monkeypatch.setattr(model.encoder, 'run', lambda x, layout: rows.append(layout.batch) or run(x, layout))
    samples = [DataSample(task='caption', prompt='what is it') for _ in range(4)]
    got = model.predict(images(2)[[0, 1, 0, 0]], samples)
    assert rows == [2] and got[0].pred_text == got[2].pred_text == got[3].pred_text


# --- learning ---------------------------------------------------------------------------------------------------------


def test_targets_alone_are_learned_with_equal_weight():
    model = small()
    samples = [
        DataSample(task='detection', prompt='locate', text='dog<loc_1><loc_2><loc_3><loc_4>'),
        DataSample(task='caption', prompt='what is it', text='a dog'),
    ]
    losses = model(images(2), samples, mode='loss')
    counts = [len(model.tokenizer([sample.text], 99).input_ids[0]) for sample in samples]  # start and end included
    means = torch.stack([losses['nll_detection'], losses['nll_caption']])
    expected = (means * torch.tensor(counts)).sum() / sum(counts)
    torch.testing.assert_close(losses['loss_tasks'].double(), expected.double(), rtol=1e-6, atol=1e-6)
    # the names of what is logged hold no "loss", which mmengine would add up
    assert [name for name in losses if 'loss' in name] == ['loss_tasks']


@torch.no_grad()
@pytest.mark.parametrize('other', [10, 1000])
def test_places_of_other_locations_are_refused(other):
    """With more a location would be read as a text, and with fewer every place would move."""
    model = small()
    sample = DataSample(task='detection', prompt='locate', text='dog<loc_1><loc_2><loc_3><loc_4>', num_bins=other)
    sentence = f'a sample has places of {other} locations a side and the vocabulary of the model has'
    with pytest.raises(ValueError, match=sentence):
        model.loss(images(1), [sample])
    with pytest.raises(ValueError, match=sentence):
        model.predict(images(1), [sample])
    sample.set_field(model.tokenizer.num_bins, 'num_bins')
    model.loss(images(1), [sample])


def test_a_text_longer_than_the_decoder_is_learned_up_to_there_and_without_an_end(caplog):
    model = small()
    whole = [DataSample(task='region_proposal', prompt='locate', text='<loc_7>' * count) for count in (18, 40, 4)]
    losses = [float(model(images(1), [sample], mode='loss')['loss_tasks']) for sample in whole[:2]]
    head = model.heads['tasks']
    assert head.num_cut == 1  # of 18 tokens and two, and of 42
    ids = torch.tensor([[model.tokenizer.start_token_id, *[model.tokenizer.mark_id('<loc_7>')] * 19]])
    tokens = model.tokenizer(['a'], 9)
    tokens = type(tokens)(ids, torch.ones_like(ids, dtype=torch.bool))
    hidden = model.teach_from_end(model.encode_image(images(1)), [0], model.tokenize_prompts(['locate']), tokens)
    expected = head.token_losses(head(hidden[0]), ids[0]).mean()
    assert losses[1] == pytest.approx(float(expected), rel=1e-9) and losses[0] != losses[1]


# --- solving ----------------------------------------------------------------------------------------------------------


@functools.cache
def shared():
    model = small()
    with torch.no_grad():
        return model, model.encode_image(images())


def test_what_is_written_is_in_the_format_of_its_task():
    model, tokens = shared()
    tasks = ['detection', 'region_proposal', 'caption', 'referring_segmentation', 'ocr_with_region', 'region_category']
    given = {'referring_segmentation': {'text': 'dog'}, 'region_category': {'region': (0.1, 0.2, 0.5, 0.6)}}
    questions = [TaskQuestion(n % 3, task, **given.get(task, {})) for n, task in enumerate(tasks)]
    solved = model.solve(tokens, questions)
    for question, one in zip(questions, solved, strict=True):
        (alone,) = model.solve(tokens, [question])
        assert alone.text == one.text and alone.score == pytest.approx(one.score, rel=1e-9)
        # a text without end is cut before its region; three boxes fill the 12 tokens of the longest text
        assert not one.faults or question.task not in ('region_proposal', 'caption', 'region_category')
        for region in one.target.regions:
            assert 0 < region.score <= 1
    assert solved[2].target.text == solved[2].text and not solved[2].target.regions
    assert model.solve(tokens, []) == []


def test_what_does_not_parse_is_returned_with_sentences():
    model, tokens = shared()
    free = small(heads={'tasks': {**HEADS['tasks'], 'constrained': False}})
    free.load_state_dict(model.state_dict())
    solved = free.solve(tokens, [TaskQuestion(0, '<OD>'), TaskQuestion(1, 'detection')])
    assert all(one.text and one.faults and isinstance(one.faults[0], str) for one in solved)


@pytest.mark.parametrize(
    ('question', 'message'),
    [
        (TaskQuestion(0, 'detecton'), "there is no task 'detecton'; did you mean 'detection'"),
        (TaskQuestion(0, 'region_category'), 'region_category takes a region and got none'),
        (TaskQuestion(0, 'detection', text='dog'), "detection takes nothing and got a text, 'dog'"),
        (TaskQuestion(0, 'region_ocr', region=(0.5, 0.5, 1.5, 0.9)), 'outside the picture'),
    ],
)
def test_a_question_that_cannot_be_asked(question, message):
    model, tokens = shared()
    with pytest.raises(ValueError, match=message):
        model.solve(tokens, [question])


def test_without_locations_texts_alone_are_answered():
    model = small(tokenizer={'type': 'MaskedCLIPTokenizer', 'vocab_size': 600})
    tokens = model.encode_image(images(1))
    (solved,) = model.solve(tokens, [TaskQuestion(0, 'caption')])
    assert solved.target.text == solved.text
    with pytest.raises(ValueError, match='detection is answered by regions, and MaskedCLIPTokenizer has no locations'):
        model.solve(tokens, [TaskQuestion(0, 'detection')])


def test_the_tokenizer_is_built_once():
    tokenizer = LocationTokenizer(MaskedCLIPTokenizer(vocab_size=600), num_bins=20)
    assert small(tokenizer=tokenizer).tokenizer is tokenizer
