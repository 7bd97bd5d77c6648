"""What a protocol of ``florence_mm.models`` promises is kept by every registered class that fulfils it.

Readers, fusers and writers are in ``test_every_vision_language_model.py``, tokenizers in ``test_every_tokenizer.py``. A
new class is tested by existing, see ``instances.py``.
"""

import functools

import pytest
import torch
from instances import assert_same, build, differ, find_smalls, names_of
from whole_kinds import TEXTS

from florence_mm.models.multimodal.protocol import Fused

SMALLS = find_smalls()
EXACT = {'rtol': 1e-9, 'atol': 1e-9}  # rounding of fp64 is 1e-16
NAMES = ['red', 'dogs', 'a two']


def fulfilling(protocol):
    return pytest.mark.parametrize('name', names_of(protocol=protocol))


@functools.cache
def shared(name):
    """An instance that no test changes."""
    return build(name)


# --- backbones --------------------------------------------------------------------------------------------------------


@fulfilling('StagedBackbone')
@torch.no_grad()
def test_last_blocks_give_the_tokens_of_each_stage(name):
    model, kind = shared(name), SMALLS[name].kind
    given = []
    blocks = model.last_blocks()
    hooks = [block.register_forward_hook(lambda _, args, out: given.append((args, out))) for block in blocks]
    outputs = kind.outputs(model, kind.items(model))
    for hook in hooks:
        hook.remove()
    maps = list(outputs[0].values())
    assert len(given) == len(blocks) == len(maps)  # small instances return the maps of all stages
    for ((tokens, size), out), one in zip(given, maps, strict=True):
        assert tuple(size) == one.shape[1:]
        assert tokens.shape == out.shape == (len(outputs), one[0].numel(), len(one))


@fulfilling('NamesNoDecay')
def test_what_does_not_decay_is_there_and_no_matrix_of_a_product_is_among_it(name):
    model = shared(name)
    exempt, parameters = model.no_weight_decay(), dict(model.named_parameters())
    assert exempt <= set(parameters)
    assert {key for key, parameter in parameters.items() if parameter.ndim <= 1} <= exempt
    decayed = {key for key in parameters if key not in exempt}
    products = {
        f'{key}.weight'
        for key, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d | torch.nn.Conv3d)
    }
    assert products <= decayed


# --- language models --------------------------------------------------------------------------------------------------


def drawn_ids(length=7):
    return torch.randint(5, 40, (2, length), generator=torch.Generator().manual_seed(1))


def read_two(model):
    """Embeddings before two texts."""
    generator = torch.Generator().manual_seed(2)
    return model.read(torch.randn(2, 3, model.embed_dims, generator=generator, dtype=torch.float64))


@fulfilling('LanguageModel')
@torch.no_grad()
def test_a_cache_that_rows_are_selected_of_gives_what_whole_texts_give(name):
    model = shared(name)
    ids, before = drawn_ids(), read_two(model)
    expected = model.next_logits(ids, before)
    cache = model.cache(before)
    assert cache.length == 0
    parts = [model.next_logits(ids[:, :4], before, cache)]
    assert cache.length == 4  # what is before the texts is not counted
    cache.select(torch.tensor([1, 0]))
    parts.append(model.next_logits(ids[[1, 0], 4:5], type(before)(before.tokens[[1, 0]]), cache)[[1, 0]])
    cache.select(torch.tensor([1, 0]))
    parts.append(model.next_logits(ids[:, 5:], before, cache))
    assert cache.length == 7
    torch.testing.assert_close(torch.cat(parts, 1), expected, **EXACT)


@fulfilling('LanguageModel')
@torch.no_grad()
def test_what_is_before_a_text_changes_all_of_its_logits_and_a_token_those_from_its_own(name):
    model = shared(name)
    ids, before = drawn_ids(), read_two(model)
    expected = model.next_logits(ids, before)
    assert ((model.next_logits(ids, model.read(before.tokens.flip(2))) - expected).abs().amax(2) > 1e-6).all()
    other = ids.clone()
    other[:, 4] = 4
    changed = (model.next_logits(other, before) - expected).abs().amax(2) > 1e-6
    assert changed.tolist() == [[False] * 4 + [True] * 3] * 2


@fulfilling('LayeredLanguageModel')
@torch.no_grad()
def test_embeddings_layers_and_outputs_of_a_language_model_are_together_the_whole(name):
    model = shared(name)
    ids, before = drawn_ids(), read_two(model)
    whole = torch.cat([before.tokens, model.embed(ids)], 1)
    numbers, widths = [], set()

    def watch(number, x):
        numbers.append(number)
        widths.add(x.shape)
        return x

    hidden = model.run(whole, before_layer=watch)
    torch.testing.assert_close(model.logits(hidden)[:, 3:], model.next_logits(ids, before), **EXACT)
    torch.testing.assert_close(model.logits(model.run(model.embed(ids))), model.next_logits(ids), **EXACT)
    assert numbers == list(range(model.num_layers))
    assert widths == {(2, 10, model.layer_dims)}
    assert model.outputs().shape == (len(model.word_embeddings.weight), hidden.shape[2])
    cache = model.cache()
    again = [model.run(whole[:, :6], cache), model.run(whole[:, 6:], cache)]
    torch.testing.assert_close(torch.cat(again, 1), hidden, **EXACT)


@fulfilling('LayeredLanguageModel')
@torch.no_grad()
def test_what_is_put_before_a_layer_enters_it(name):
    model = shared(name)
    embedded = model.embed(drawn_ids())
    last = model.num_layers - 1
    seen = {}

    def add(number, x):
        seen[number] = x
        return x.flip(2) if number == last else x

    changed = model.run(embedded, before_layer=add)
    without = dict(seen)
    hidden = model.run(embedded, before_layer=lambda number, x: seen.update({number: x}) or x)
    torch.testing.assert_close(seen, without, **EXACT)
    assert (changed - hidden).abs().max() > 1e-6
    torch.testing.assert_close(model.run(embedded), hidden, **EXACT)  # and nothing stays behind


@pytest.mark.parametrize(
    ('model', 'language', 'message'),
    [
        ('FlorenceFlamingo', 'TransformersLanguageModel-t5', 'has no layer_dims; give a causal one, such as OPT'),
        ('BLIP2Writer', 'TextStack', 'has no cache; give one such as TransformersLanguageModel'),
        ('LanguageModeling', 'TextStack', 'has no cache; give one such as TransformersLanguageModel'),
    ],
)
def test_what_is_no_language_model_of_the_kind_is_refused(model, language, message):
    language = shared(language)
    with pytest.raises(ValueError, match=f'{model} needs a .*LanguageModel, and {type(language).__name__} {message}'):
        build(model, language_model=language)


# --- heads of detectors -----------------------------------------------------------------------------------------------


@fulfilling('FindsObjects')
@torch.no_grad()
def test_objects_in_tensors_are_those_of_the_prediction(name):
    from mmdet.structures import DetDataSample

    head = shared(name)
    generator = torch.Generator().manual_seed(4)
    maps = [torch.randn(2, 16, *size, generator=generator, dtype=torch.float64) for size in ((9, 12), (5, 6), (3, 3))]
    sizes = [(72, 90), (50, 96)]
    samples = [DetDataSample(metainfo={'img_shape': size, 'scale_factor': (1.0, 1.0)}) for size in sizes]
    boxes, scores, labels = head.find_objects(maps, torch.tensor(sizes))
    for row, found in enumerate(head.predict(maps, samples)):
        torch.testing.assert_close(boxes[row], found.bboxes)
        torch.testing.assert_close(scores[row], found.scores)
        assert labels[row].tolist() == found.labels.tolist()
    assert len({*labels.flatten().tolist()}) == 2 and (scores.diff(dim=1) <= 0).all()
    # boxes end at their own picture's border
    assert (boxes.amax(1)[:, [3, 2]] <= torch.tensor(sizes)).all() and (boxes == 0).any()


# --- classes by name --------------------------------------------------------------------------------------------------


@fulfilling('ZeroShotModel')
def test_classes_can_be_chosen_again_and_again(name):
    model, kind = build(name), SMALLS[name].kind
    assert list(model.class_names) == []
    items = kind.items(model)
    assert list(model.class_names) == NAMES
    first = kind.outputs(model, items)
    model.set_classes(['no one'])
    assert list(model.class_names) == ['no one']
    assert differ(kind.outputs(model, items), first)
    model.set_classes(NAMES, templates=['a {}', 'no {}'])
    assert_same(kind.outputs(model, items), first)
    model.set_classes(NAMES, templates=['one {}'])
    assert differ(kind.outputs(model, items), first)
    model.set_classes('digits')  # the names of a data set
    assert len(model.class_names) == 10


@fulfilling('TwoTowerModel')
@torch.no_grad()
def test_two_towers_give_features_of_length_one_and_logits_of_the_classes(name):
    model, kind = shared(name), SMALLS[name].kind
    items = kind.items(model)
    images = torch.stack([image for image, _, _ in items]).double()
    image, text = model.extract_image_feat(images), model.extract_text_feat(TEXTS)
    assert image.shape == text.shape
    torch.testing.assert_close(torch.cat([image, text]).norm(dim=1), torch.ones(6).double(), **EXACT)
    for row, one in enumerate(TEXTS):
        torch.testing.assert_close(model.extract_text_feat([one])[0], text[row], **EXACT)
    logits = model.class_logits(image)
    assert logits.shape == (3, len(NAMES))
    for row, output in enumerate(kind.outputs(model, items)):
        torch.testing.assert_close(output['image_feat'], image[row], **EXACT)
        torch.testing.assert_close(output['text_feat'][0], text[row], **EXACT)
        torch.testing.assert_close(output['pred_score'], logits[row].softmax(0), **EXACT)
    # classes in another order are the same classes
    model.set_classes(NAMES[::-1], templates=['a {}', 'no {}'])
    torch.testing.assert_close(model.class_logits(image), logits.flip(1), **EXACT)


@fulfilling('PoolsImages')
@torch.no_grad()
def test_a_pooled_image_is_the_same_alone(name):
    model, kind = shared(name), SMALLS[name].kind
    images = torch.stack([item[0] for item in kind.items(model)]).double()
    pooled = model.pool_images(images)
    assert pooled.ndim == 2
    for row in range(len(images)):
        torch.testing.assert_close(model.pool_images(images[row : row + 1])[0], pooled[row], **EXACT)


@fulfilling('ClassifiesByText')
@torch.no_grad()
def test_classes_by_text_are_those_of_set_classes_and_set_none(name):
    model, kind = build(name), SMALLS[name].kind
    images = torch.stack([image for image, _, _ in kind.items(model)]).double()
    image = model.project_images(model.pool_images(images))
    torch.testing.assert_close(image, model.extract_image_feat(images), **EXACT)
    before, templates = list(model.class_names), ['one {}', 'no {}', 'a {}']
    classes = model.encode_classes(NAMES[:2], templates)
    assert list(model.class_names) == before
    model.set_classes(NAMES[:2], templates)
    torch.testing.assert_close(model.temperature() * image @ classes.T, model.class_logits(image), **EXACT)


# --- images and texts -------------------------------------------------------------------------------------------------


@fulfilling('Fuser')
@torch.no_grad()
def test_sizes_are_those_it_says(name):
    model, kind = shared(name), SMALLS[name].kind
    inputs, _ = kind.batch(model, kind.items(model))
    tokens = model.tokenize(TEXTS)
    image, text = model.encode_image(inputs), model.encode_tokens(tokens)
    queries = getattr(model, 'qformer', None)  # read the image, and heads read them
    assert image.shape[0] == 3 and (queries or image.shape[2] == model.image_dims)
    assert text.shape == (*tokens.mask.shape, model.hidden_size)
    fused = model.fuse(text, tokens.mask, image)
    assert isinstance(fused, Fused)
    assert fused.text.shape == text.shape
    assert fused.image.shape == (3, queries.num_queries if queries else image.shape[1], model.hidden_size)
    assert fused.pooled.shape == (3, model.pooled_size)
    assert not fused.text[~tokens.mask].any()
    # the pair depends on both
    for other in (model.fuse(text, tokens.mask, image.roll(1, 0)), model.fuse(text.flip(2), tokens.mask, image)):
        assert ((other.pooled - fused.pooled).abs().amax(1) > 1e-9).all()


@fulfilling('Attending')
@torch.no_grad()
def test_attention_of_a_token_is_spread_over_the_image(name):
    model, kind = shared(name), SMALLS[name].kind
    inputs, _ = kind.batch(model, kind.items(model))
    for text in TEXTS:
        seen = model.attend(inputs[:1], text)
        assert torch.equal(seen.input_ids, model.tokenize([text]).input_ids[0])
        layers, heads, tokens, height, width = seen.weights.shape
        # a class token has no place in the image
        encoder, places = model.image_encoder, model.encode_image(inputs[:1]).shape[1]
        assert tokens == len(seen.input_ids) and height * width == places - hasattr(encoder, 'class_embedding')
        total = seen.weights.sum((3, 4))
        torch.testing.assert_close(total, torch.ones(layers, heads, tokens).double(), **EXACT)
        assert (seen.weights > 0).all()
        last = model.attend(inputs[:1], text, [-1])
        assert torch.equal(last.weights, seen.weights[-1:])
    assert differ_of(model.attend(inputs[1:2], TEXTS[0]), model.attend(inputs[:1], TEXTS[0]))


def differ_of(one, other):
    return bool((one.weights - other.weights).abs().max() > 1e-9)


@fulfilling('Reranker')
@torch.no_grad()
def test_match_scores_of_pairs_do_not_depend_on_the_others(name):
    model, kind = shared(name), SMALLS[name].kind
    inputs, _ = kind.batch(model, kind.items(model))
    images = (inputs * 60 + 120).clamp(0, 255).byte()
    pairs = [(2, 0), (0, 1), (0, 2), (1, 0), (2, 2)]
    scores = model.match_pictures({'inputs': list(images)}, TEXTS, pairs)
    assert scores.shape == (len(pairs),) and scores.device.type == 'cpu'
    for (image, text), score in zip(pairs, scores, strict=True):
        alone = model.match_pictures({'inputs': [images[image]]}, [TEXTS[text]], [(0, 0)], pairs_at_once=1)
        torch.testing.assert_close(alone[0], score, **EXACT)
    assert len({round(float(score), 9) for score in scores}) == len(pairs)
    assert len(model.match_pictures({'inputs': list(images)}, TEXTS, [])) == 0
    assert model.similarity_scale() > 0


# --- preprocessors ----------------------------------------------------------------------------------------------------


@fulfilling('ResizesBatches')
def test_training_batches_get_the_size_that_is_set_and_others_keep_theirs(name):
    preprocessor, kind = build(name), SMALLS[name].kind
    data = {'inputs': [torch.full_like(item, 40.0 + place) for place, item in enumerate(kind.items(preprocessor))]}
    before = preprocessor(data, training=True)['inputs']
    preprocessor.set_train_size(4)
    resized = preprocessor(data, training=True)['inputs']
    assert resized.shape[2:] == (4, 4) != before.shape[2:]
    torch.testing.assert_close(resized, before[:, :, :4, :4], **EXACT)  # a picture of one colour keeps it
    assert torch.equal(preprocessor(data, training=False)['inputs'], before)
    preprocessor.set_train_size(None)
    assert torch.equal(preprocessor(data, training=True)['inputs'], before)
