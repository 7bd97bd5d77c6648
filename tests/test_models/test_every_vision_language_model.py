"""What holds for every registered model over images and texts; a new one is tested by existing, see ``instances.py``.

Company and padding are those of ``test_every_model.py``; here it is what heads need, how texts are written, and what
inferencers ask.
"""

import functools

import pytest
import torch
from instances import assert_gradients, assert_same, build, find_smalls, names_of
from whole_kinds import TEXTS, FusionHead, VisionLanguage

from florence_mm.models.tokenizers.protocol import TokenBatch

SMALLS = find_smalls()
EXACT = {'rtol': 1e-9, 'atol': 1e-9}  # rounding of fp64 is 1e-16
MODELS = [name for name in names_of(VisionLanguage) if SMALLS[name].kind.fitting()]
every_model = pytest.mark.parametrize('name', names_of(protocol='VisionLanguage'))
every_writer = pytest.mark.parametrize('name', names_of(protocol='Writer'))
every_head = pytest.mark.parametrize(
    ('name', 'head'), [(name, head) for name in MODELS for head in SMALLS[name].kind.fitting()]
)


@functools.cache
@torch.no_grad()
def shared(name):
    """A model that no test changes, with the image tokens of three images."""
    model = build(name)
    kind = SMALLS[name].kind
    return model, model.encode_image(kind.batch(model, kind.items(model))[0])


# --- heads ------------------------------------------------------------------------------------------------------------


@every_head
def test_a_head_alone_reaches_all_that_it_reads(name, head):
    kind = SMALLS[name].kind
    model = build(name, heads=kind.heads(head)).train()
    torch.manual_seed(0)
    kind.loss(model, kind.items(model)).backward()
    assert_gradients(model, {**SMALLS[name].without_gradient, **kind.unused.get(head, {})})


@every_head
@torch.no_grad()
def test_a_head_alone_says_what_it_says_beside_others(name, head):
    kind = SMALLS[name].kind
    model = build(name, heads=kind.heads(*kind.together(head)))
    alone = build(name, heads=kind.heads(head))
    missing = alone.load_state_dict(model.state_dict(), strict=False)
    assert not missing.missing_keys and all(key.startswith('heads.') for key in missing.unexpected_keys)
    words = getattr(model, 'word_embeddings', None)  # of which there may be more than the tokenizer has
    vocab_size = model.tokenizer.vocab_size if words is None else words.num_embeddings
    for size, value in {'vocab_size': vocab_size, 'hidden_size': model.hidden_size}.items():
        assert getattr(alone.heads[head], size, value) == value
    got, expected = (kind.outputs(one, kind.items(one)) for one in (alone, model))
    reads = SMALLS[head].kind.reads
    assert_same(*([{key: item[key] for key in reads} for item in items] for items in (got, expected)))
    said = [tuple(str(item[key]) for key in reads) for item in got]
    assert len(set(said)) > 1  # what no sample changes would pass too


# --- writing ----------------------------------------------------------------------------------------------------------


def some_ids(model, rows, length=6):
    """Beginnings of texts, of ordinary tokens behind the start."""
    ids = torch.randint(5, 200, (rows, length), generator=torch.Generator().manual_seed(2))
    ids[:, 0] = model.tokenizer.start_token_id
    assert not model.tokenizer.special_ids & set(ids[:, 1:].flatten().tolist())
    return ids


def as_tokens(ids):
    return TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool))


@every_writer
@torch.no_grad()
def test_a_token_changes_no_earlier_one(name):
    model, image_tokens = shared(name)
    ids = some_ids(model, 3)
    hidden = model.write_on(as_tokens(ids), model.start_writing(image_tokens, [0, 1, 2]))
    for place in range(1, ids.shape[1]):
        other = ids.clone()
        other[:, place] = ids[:, place] % 50 + 6
        changed = model.write_on(as_tokens(other), model.start_writing(image_tokens, [0, 1, 2]))
        by_token = (changed - hidden).abs().amax(2)  # (rows, tokens)
        assert (by_token[:, :place] <= 1e-12).all() and (by_token[:, place:] > 1e-9).all()
    # and the image is seen by all
    changed = model.write_on(as_tokens(ids), model.start_writing(image_tokens, [1, 2, 0]))
    assert ((changed - hidden).abs().amax(2) > 1e-9).all()


@every_writer
@torch.no_grad()
def test_a_text_is_drawn_by_its_own_random_numbers(name):
    model = build(name, heads={'caption': {'type': 'FusionCaptionHead', 'num_beams': 3, 'max_length': 6}})
    _, image_tokens = shared(name)
    model.draw_texts(0.9)

    def drawn(images, seeds):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return [written.text for written in model.write(image_tokens[images], None, generators)]

    together = drawn([0, 1, 2, 0], [4, 5, 6, 7])
    assert [drawn([image], [seed])[0] for image, seed in zip([0, 1, 2, 0], [4, 5, 6, 7], strict=True)] == together
    assert together[0] != together[3] and together[0] != drawn([1], [4])[0]


@every_writer
@pytest.mark.parametrize('image_of', [[0, 1, 2], [0, 0, 1, 1, 2, 2], [2, 0, 0]])
@torch.no_grad()
def test_how_many_tokens_come_at_once_changes_nothing(name, image_of):
    model, image_tokens = shared(name)
    ids = some_ids(model, len(image_of))
    whole = model.write_on(as_tokens(ids), model.start_writing(image_tokens, image_of))
    for row, image in enumerate(image_of):  # each text alone
        state = model.start_writing(image_tokens[image : image + 1], [0])
        torch.testing.assert_close(model.write_on(as_tokens(ids[row : row + 1]), state)[0], whole[row], **EXACT)
    for cuts in ([1] * 6, [3, 1, 2]):
        state, parts, given = model.start_writing(image_tokens, image_of, cached=True), [], 0
        for count in cuts:
            # a model without a cache is given all tokens each time
            hidden = model.write_on(as_tokens(ids[:, state.length : given + count]), state)
            parts.append(hidden[:, -count:])
            given += count
        torch.testing.assert_close(torch.cat(parts, 1), whole, **EXACT)


@every_writer
@torch.no_grad()
def test_a_row_goes_on_from_another_of_its_image(name):
    model, image_tokens = shared(name)
    image_of, chosen = [0, 0, 0, 2], torch.tensor([1, 1, 0, 3])
    ids = some_ids(model, 4)
    state = model.start_writing(image_tokens, image_of, cached=True)
    model.write_on(as_tokens(ids[:, :3]), state)
    state.select(chosen)
    texts = torch.cat([ids[chosen, :3], ids[:, 3:]], 1)
    got = model.write_on(as_tokens(texts[:, state.length :]), state)[:, -3:]
    expected = model.write_on(as_tokens(texts), model.start_writing(image_tokens, image_of))[:, -3:]
    torch.testing.assert_close(got, expected, **EXACT)
    with pytest.raises(ValueError, match='a text cannot go on from a text about another image'):
        state.select(torch.tensor([0, 1, 2, 0]))


@every_writer
@pytest.mark.parametrize('cached', [False, True])
@torch.no_grad()
def test_a_text_follows_its_prompt(name, cached):
    model, image_tokens = shared(name)
    prompts = model.tokenize(['a', 'b', 'a'])
    assert prompts.mask.all()  # equal lengths
    state = model.start_writing(image_tokens, [0, 1, 2], prompts, cached)
    first = state.first_ids
    assert len(first) == 3 and model.tokenizer.start_token_id in first[0]
    hidden = model.write_on(as_tokens(first), state)[:, -1]
    for row in range(3):
        prompt = TokenBatch(prompts.input_ids[row : row + 1], prompts.mask[row : row + 1])
        alone = model.start_writing(image_tokens[row : row + 1], [0], prompt, cached)
        torch.testing.assert_close(model.write_on(as_tokens(alone.first_ids), alone)[0, -1], hidden[row], **EXACT)
    other = model.start_writing(image_tokens, [0, 1, 2], model.tokenize(['b', 'a', 'b']), cached)
    assert ((model.write_on(as_tokens(other.first_ids), other)[:, -1] - hidden).abs().amax(1) > 1e-9).all()


@every_writer
@pytest.mark.parametrize(
    ('image_of', 'prompts', 'texts'),
    [
        ([2, 0, 0], None, ['no', 'is a', 'two']),
        ([2, 0, 0], ['a by', 'no', 'a'], ['no', 'is a', 'two']),
        ([2, 0, 2, 0, 2, 2], ['a', 'no', 'a', 'no', 'by', 'by'], ['no', 'is a', '', 'two', 'is', 'a no']),
        ([1, 1], ['no', 'no'], ['', '']),
    ],
    ids=['no prompts', 'prompts', 'equal prompts', 'no texts'],
)
@torch.no_grad()
def test_what_predicts_a_text_in_one_pass_is_what_writes_it(name, image_of, prompts, texts):
    model, image_tokens = shared(name)
    prompts, texts = prompts and model.tokenize(prompts), model.tokenize(texts)
    taught = model.teach(image_tokens, image_of, prompts, texts)
    assert taught.shape == (len(image_of), texts.input_ids.shape[1] - 1, model.hidden_size)
    with torch.enable_grad():
        learned = model.teach(image_tokens, image_of, prompts, texts)
    for row, image in enumerate(image_of):
        size, prompt = int(texts.mask[row].sum()), None
        if prompts:
            given = int(prompts.mask[row].sum())
            prompt = as_tokens(prompts.input_ids[row : row + 1, :given])
        state = model.start_writing(image_tokens[image : image + 1], [0], prompt)
        ids = torch.cat([state.first_ids, texts.input_ids[row : row + 1, 1 : size - 1]], 1)
        steps = model.write_on(as_tokens(ids), state)[0, -(size - 1) :]
        torch.testing.assert_close(taught[row, : size - 1], steps, **EXACT)
        torch.testing.assert_close(learned[row, : size - 1].detach(), steps, **EXACT)


# --- what inferencers ask ---------------------------------------------------------------------------------------------

PAIRS = [(2, 0), (0, 1), (0, 2), (1, 0), (2, 2)]
VERBS = {'answers': 'answers questions', 'matches': 'matches images', 'writes': 'writes captions'}


def can(model, verb):
    try:
        model.require(**{verb: True})
    except ValueError:
        return False
    return True


@every_model
def test_it_can_do_something(name):
    assert any(can(shared(name)[0], verb) for verb in VERBS)


@every_model
def test_an_answer_does_not_depend_on_other_questions(name):
    model, image_tokens = shared(name)
    if not can(model, 'answers'):
        return
    answers = model.answer(image_tokens, TEXTS, PAIRS, top=2)
    for (image, text), answered in zip(PAIRS, answers, strict=True):
        (alone,) = model.answer(image_tokens[image : image + 1], [TEXTS[text]], [(0, 0)], top=2)
        assert alone.answers == answered.answers
        assert alone.scores == pytest.approx(answered.scores, rel=1e-6)  # they may be of fp32
        assert 1 <= len(set(alone.answers)) == len(alone.scores) <= 2 and alone.scores[0] >= alone.scores[-1]
        if model.answer_names():
            assert set(alone.answers) <= set(model.answer_names())
        (best,) = model.answer(image_tokens[image : image + 1], [TEXTS[text]], [(0, 0)])
        assert (best.answers, best.scores) == (alone.answers[:1], alone.scores[:1])
    assert len({tuple(answered.scores) for answered in answers}) == len(PAIRS)
    assert model.answer(image_tokens, TEXTS, []) == []


@every_model
def test_a_match_does_not_depend_on_other_pairs(name):
    model, image_tokens = shared(name)
    if not can(model, 'matches'):
        return
    scores = model.match(image_tokens, TEXTS, PAIRS)
    assert scores.shape == (len(PAIRS),) and scores.device.type == 'cpu'
    torch.testing.assert_close(model.match(image_tokens, TEXTS, PAIRS, at_once=2), scores, **EXACT)
    for (image, text), score in zip(PAIRS, scores, strict=True):
        alone = model.match(image_tokens[image : image + 1], [TEXTS[text]], [(0, 0)])
        torch.testing.assert_close(alone[0], score, **EXACT)
    assert len({round(float(score), 9) for score in scores}) == len(PAIRS)
    assert len(model.match(image_tokens, TEXTS, [])) == 0


@every_model
@pytest.mark.parametrize('prompts', [None, ['two', 'is red by', 'no']])
def test_a_text_that_is_written_does_not_depend_on_the_others(name, prompts):
    model, image_tokens = shared(name)
    if not can(model, 'writes'):
        return
    together = model.write(image_tokens, prompts)
    assert len(together) == len(image_tokens)
    for number, written in enumerate(together):
        (alone,) = model.write(image_tokens[number : number + 1], prompts and prompts[number : number + 1])
        assert alone.text == written.text and alone.score == pytest.approx(written.score, rel=1e-9)
        assert written.score < 0
    assert len({written.score for written in together}) == len(image_tokens)
    assert model.write(image_tokens[:0], prompts and []) == []


@every_model
def test_what_no_head_can_do_is_said_before(name):
    model = build(name, heads={})
    model.require()
    for verb, ability in VERBS.items():
        with pytest.raises(ValueError, match=f'no head that {ability}.*it has none; name one'):
            model.require(**{verb: True})
    kind = SMALLS[name].kind
    with pytest.raises(ValueError, match=f'{type(model).__name__} has no heads and nothing to train'):
        kind.loss(model, kind.items(model))


@pytest.mark.parametrize('name', names_of(FusionHead))
def test_a_head_refuses_a_model_that_lacks_what_it_needs(name):
    head = SMALLS[name].registry.get(SMALLS[name].config['type'])
    model = next(one for one in MODELS if name in SMALLS[one].kind.fitting())
    method = {
        'Embedder': 'pool_text',
        'Fuser': 'fuse',
        'RegionReader': 'region_features',
        'Writer': 'write_on',
        'DocumentWriter': 'read_documents',
    }[head.needs.__name__]
    lacking = type('Lacking', (type(shared(model)[0]),), {method: None})  # so a protocol sees that there is none
    with pytest.raises(
        ValueError, match=f'{name!r} .{head.__name__}. needs a {head.needs.__name__.lower()}, which Lacking is not'
    ):
        build(model, type=lacking, heads=SMALLS[model].kind.heads(name))
