"""Image-text contrast and matching by the model's own similarities."""

import runpy
from copy import deepcopy
from pathlib import Path

import forks
import pytest
import torch
from mmpretrain.structures import DataSample
from torch import nn
from torch.nn import functional as F

import florence_mm  # noqa: F401  (first, it patches mmpretrain)
from florence_mm.language.labels import text_label
from florence_mm.models.heads.multimodal.momentum import NO_LABEL, MomentumCopies
from florence_mm.models.heads.multimodal.negatives import draw_negatives, false_and_true_pairs
from florence_mm.models.multimodal.batch import FusionBatch
from florence_mm.ops.collectives import Peers

worker = runpy.run_path(str(Path(__file__).with_name('contrasting_worker.py')))
build, learn, pictures, samples, unit = (worker[n] for n in ('build', 'learn', 'pictures', 'samples', 'unit'))
TEXTS, MOMENTUM, D = worker['TEXTS'], worker['MOMENTUM'], worker['D']
EXACT = {'rtol': 1e-10, 'atol': 1e-12}


# --- several processes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('itc', 'negatives'),
    [(MOMENTUM, 'all'), ({'embed_dims': D}, 'all'), ({**MOMENTUM, 'queue_size': 0, 'positives': 'equal_images'}, '')],
)
def test_two_processes_learn_what_one_learns(itc, negatives, tmp_path):
    forks.as_ranks(lambda: worker['work'](tmp_path / 'seen', itc, negatives), 2)
    seen = [torch.load(tmp_path / f'seen.{rank}') for rank in (0, 1)]
    expected = learn(build(itc, negatives))
    for step in (0, 1):
        losses = expected.pop(step)
        for name, value in losses.items():
            mean = sum(one[step][name] for one in seen) / 2
            torch.testing.assert_close(mean, value.to(mean.dtype), rtol=1e-6, atol=1e-6)
    assert any('queue' in name for name in expected) == bool(itc.get('queue_size'))
    for name, value in expected.items():
        for one in seen:  # gradients, weights, those of the momentum model, the queue
            torch.testing.assert_close(one[name], value, rtol=1e-6, atol=1e-6, msg=lambda text, n=name: f'{n}: {text}')


def test_negatives_of_the_own_process_need_no_others(tmp_path):
    forks.as_ranks(lambda: worker['work'](tmp_path / 'seen', {'embed_dims': D}, 'own'), 2)
    seen = [torch.load(tmp_path / f'seen.{rank}') for rank in (0, 1)]
    assert all(torch.equal(seen[0][name], seen[1][name]) for name in seen[0] if isinstance(name, str))
    assert seen[0][0]['loss_itm'] != seen[1][0]['loss_itm']


# --- contrast ---------------------------------------------------------------------------------------------------------


def test_without_momentum_the_loss_is_half_of_unicls():
    model = build({'embed_dims': D}, '')
    head = model.heads['itc']
    got = model(pictures(), samples(), mode='loss')['loss_itc']
    tokens = model.tokenize(TEXTS)
    image = unit(head.image_proj(model.pool_image(model.encode_image(pictures()))))
    logits = image @ unit(head.text_proj(model.pool_text(tokens))).T / head.temperature
    same = torch.tensor([[float(one == other) for other in TEXTS] for one in TEXTS]).double()
    target = same / same.sum(1)
    expected = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    torch.testing.assert_close(got, expected, **EXACT)


def labels_of(positives):
    """Of the pairs, where they are compared, and where they are kept."""
    if positives == 'own_text':
        return list(range(8)), [-1] * 8
    names = TEXTS if positives == 'equal_texts' else worker['IMAGES']
    return [[text_label(name) for name in names]] * 2


def test_names_of_images_are_compared_letter_by_letter():
    head = build({'embed_dims': D, 'positives': 'equal_images'}, '').heads['itc']
    names = ['a.jpg', 'A.jpg', 'a.jpg.', ' a.jpg', 'a.jpg', '...', '\udcff.jpg']
    batch = FusionBatch(None, None, [DataSample(img_path=name) for name in names], range(7), torch.zeros(7, 1, 1))
    labels = head._labels(batch).tolist()
    assert labels[0] == labels[4] and len(set(labels)) == 6 and min(labels) >= 0


def by_hand(model, image_queue, text_queue, labels, own_labels, alpha, step):
    """BLIP's loss from the model and its copies, after the copies have followed."""
    head, tokens = model.heads['itc'], model.tokenize(TEXTS)
    copies = head.copies
    own_image = unit(head.image_proj(model.pool_image(model.encode_image(pictures(step)))))
    own_text = unit(head.text_proj(model.pool_text(tokens)))
    towers = copies['towers']
    image = unit(copies['image_proj'](towers.pool_image(towers.encode_image(pictures(step)))))
    text = unit(copies['text_proj'](towers.pool_text(tokens)))
    same = torch.tensor([[float(one == other) for other in own_labels + labels] for one in own_labels]).double()
    total = 0
    for queries, taught, keys in ((own_image, image, [text, text_queue]), (own_text, text, [image, image_queue])):
        keys = torch.cat(keys)
        target = (1 - alpha) * same / same.sum(1, keepdim=True) + alpha * (taught @ keys.T / head.temperature).softmax(
            1
        )
        total = total - (target * (queries @ keys.T / head.temperature).log_softmax(1)).sum(1).mean() / 2
    return total, image, text


@pytest.mark.parametrize('positives', ['equal_texts', 'equal_images', 'own_text'])
@torch.no_grad()
def test_momentum_queue_and_soft_targets_by_hand(positives):
    model, (own, kept) = build({**MOMENTUM, 'positives': positives}, ''), labels_of(positives)
    head = model.heads['itc']
    weights = [model.parts.words.weight, head.copies['towers'].words.weight]
    images, texts, labels = head.queue.image.clone(), head.queue.text.clone(), [-1] * 16
    followed = None
    for step in range(3):
        changed = weights[0].clone()
        got = model(pictures(step), samples(), mode='loss')['loss_itc']
        # the first step takes the weights over, the next ones move half the way
        followed = changed if followed is None else 0.5 * followed + 0.5 * changed
        torch.testing.assert_close(weights[1], followed, **EXACT)
        # alpha grows over four steps from 0 to 0.4; step three finds the second's pairs behind those of the first
        expected, image, text = by_hand(model, images, texts, labels, own, 0.4 * step / 4, step)
        torch.testing.assert_close(got, expected, **EXACT)
        rows = slice(8 * (step % 2), 8 * (step % 2) + 8)
        images[rows], texts[rows], labels[rows] = image, text, kept
        torch.testing.assert_close(head.queue.image, images, **EXACT)
        torch.testing.assert_close(head.queue.text, texts, **EXACT)
        assert head.queue.label.tolist() == labels
        weights[0].mul_(0.7)


def test_what_a_run_keeps_is_enough_to_go_on():
    model = build()
    learn(model, steps=3)
    again = build(seed=1)
    again.load_state_dict(model.state_dict())
    seen, expected = learn(again), learn(model)
    for step in (0, 1):
        losses = seen.pop(step)
        assert all(torch.equal(losses[name], value) for name, value in expected.pop(step).items())
    assert all(torch.equal(seen[name], value) for name, value in expected.items())


def test_a_new_training_keeps_the_momentum_model_and_begins_soft_targets_anew():
    model = build()
    learn(model, steps=3)
    head = model.heads['itc']
    kept = deepcopy(head.copies.state_dict())
    assert int(head.steps) == 3 and bool(head.copies.started)
    model.init_weights()
    assert int(head.steps) == 0 and bool(head.copies.started)
    assert all(torch.equal(value, kept[name]) for name, value in head.copies.state_dict().items())


def test_of_a_checkpoint_of_another_width_neither_momentum_model_nor_queue_is_half_taken():
    model = build()
    learn(model, steps=3)
    other = build({**MOMENTUM, 'embed_dims': D + 1}, seed=1)
    own = other.state_dict()
    there = {name: value for name, value in model.state_dict().items() if value.shape == own[name].shape}
    assert 'heads.itc.queue.label' in there and 'heads.itc.copies.started' in there
    other.load_state_dict(there, strict=False)
    head = other.heads['itc']
    # labels of features that were not loaded would make random ones positives
    assert head.queue.label.unique().tolist() == [NO_LABEL] and int(head.queue.place) == 0
    assert not head.copies.started
    other.train()(pictures(), samples(), mode='loss')
    # the first step takes over what was loaded, and the projection that was not
    for copy, module in (
        (head.copies['image_proj'], head.image_proj),
        (head.copies['towers'].words, other.parts.words),
    ):
        assert torch.equal(copy.weight, module.weight)


def test_a_checkpoint_without_momentum_model_or_queue_changes_neither():
    model = build()
    learn(model, steps=3)
    label = model.heads['itc'].queue.label.clone()
    plain = {name: x for name, x in model.state_dict().items() if '.copies.' not in name and '.queue.' not in name}
    model.load_state_dict(plain, strict=False)
    assert model.heads['itc'].copies.started and torch.equal(model.heads['itc'].queue.label, label)


def test_copies_have_no_gradient_and_stay_in_evaluation_mode():
    model = build().train()
    copies = model.heads['itc'].copies
    assert not any(parameter.requires_grad for parameter in copies.parameters())
    assert not any(module.training for module in copies.modules())
    copy = deepcopy(model)
    learn(copy, steps=1)
    # a copy's head follows the copy
    assert torch.equal(copy.heads['itc'].copies['towers'].words.weight, model.parts.words.weight)
    assert not torch.equal(copy.parts.words.weight, model.parts.words.weight)


def test_copies_take_over_and_average_the_statistics_of_batch_norms():
    norm = nn.BatchNorm1d(2)
    copies = MomentumCopies({'norm': deepcopy(norm)}, 0.75)
    norm(torch.tensor([[0.0, 10.0], [20.0, 30.0]]))  # means of 10 and 20, of which a tenth is taken over
    for factor, batches in ((1.0, 1), (1.25, 2)):  # the copy keeps three quarters of what it has
        norm.num_batches_tracked.fill_(batches)
        copies.follow({'norm': norm})
        torch.testing.assert_close(copies['norm'].running_mean, factor * torch.tensor([1.0, 2.0]))
        assert copies['norm'].num_batches_tracked == batches
        norm.running_mean.mul_(2)


@pytest.mark.parametrize('value', [0.5, 0.001])
def test_the_temperature_stays_in_its_range(value):
    model = build({'embed_dims': D}, '')
    model.heads['itc'].temperature.data.fill_(2.0 if value == 0.5 else -1.0)
    losses = model(pictures(), samples(), mode='loss')
    assert float(losses['temperature']) == value
    losses['loss_itc'].backward()
    assert model.heads['itc'].temperature.grad.abs() > 0  # it can come back


@pytest.mark.parametrize(
    ('itc', 'words'),
    [
        ({'temperature': 0.6}, 'temperature of the ITC head is 0.6; give 0.001 to 0.5'),
        ({'positives': 'equal'}, "positives is 'equal'; give one of equal_texts, equal_images, own_text"),
        ({'momentum': 1.0}, 'momentum is 1.0; give at least 0 and less than 1'),
        ({'queue_size': 8}, 'queue_size is 8 and momentum None; a queue of features needs a momentum model'),
        ({'alpha': 1.5}, 'alpha=1.5 and alpha_steps=0 must be'),
    ],
)
def test_arguments_out_of_range(itc, words):
    with pytest.raises(ValueError, match=words):
        build(itc)


def test_a_batch_that_does_not_divide_the_queue():
    model = build({**MOMENTUM, 'queue_size': 12}, '')
    with pytest.raises(ValueError, match=r'queue_size is 12, which the 8 pairs of the batch .* do not divide; set'):
        model(pictures(), samples(), mode='loss')
    with pytest.raises(ValueError, match='text .* is empty after normalisation'):
        build(negatives='')(pictures()[:2], samples(['a', ' . '], [0, 1]), mode='loss')


def test_a_model_whose_towers_cannot_be_copied():
    from meter_worker import build as build_meter

    with pytest.raises(ValueError, match=r'METER cannot copy its towers, which momentum=0.5 .*set momentum=None'):
        build_meter(heads={'itc': {'type': 'FusionITCHead', 'momentum': 0.5}})


# --- negatives --------------------------------------------------------------------------------------------------------


def test_negatives_are_drawn_by_their_probabilities():
    logits = torch.tensor([[1.0, 3.0, 0.0, 2.0]])
    allowed = torch.tensor([[False, True, True, True]])
    places = (torch.arange(10000, dtype=torch.float64) + 0.5) / 10000
    drawn, has = draw_negatives(logits.expand(10000, 4), allowed.expand(10000, 4), places)
    assert has.all()
    weights = (logits.softmax(1) + 1e-4) * allowed
    shares = torch.bincount(drawn, minlength=4) / 10000
    torch.testing.assert_close(shares, (weights / weights.sum())[0], rtol=0, atol=1e-4)
    assert draw_negatives(logits, ~torch.ones(1, 4).bool(), places[:1])[1].tolist() == [False]
    # the ends of the range
    ends = torch.tensor([0.0, 1 - 1e-16], dtype=torch.float64)
    assert draw_negatives(logits.expand(2, 4), allowed.expand(2, 4), ends)[0].tolist() == [1, 3]


def test_each_pair_has_a_false_image_and_a_false_text():
    model = build({'embed_dims': D}, 'own')
    images = pictures()
    images[2] = images[1]  # the second text describes the third picture too
    batch = model.make_batch(images, samples())
    texts = list(enumerate(model.encode_tokens(batch.tokens)))
    text_of = {tuple(row.flatten().tolist()): n for n, row in reversed(texts)}  # of equal ones the first
    image_of = {tuple(row.flatten().tolist()): n for n, row in enumerate(batch.image_tokens)}
    described = [{0}, {1, 2}, {3}, {0}, {5}, {6}, {7}]  # by which texts
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        text, mask, image, matches = false_and_true_pairs(batch, Peers.alone())
        assert matches == [True] * 8 + [False] * 16 and len(text) == len(mask) == len(image) == 24
        pairs = [
            (image_of[tuple(one.flatten().tolist())], text_of[tuple(other.flatten().tolist())])
            for one, other in zip(image, text, strict=True)
        ]
        for place, (picture, words) in enumerate(pairs):
            assert (words in described[picture]) == matches[place]
        assert [words for _, words in pairs[8:16]] == [words for _, words in pairs[:8]]  # false images
        assert [picture for picture, _ in pairs[16:]] == [picture for picture, _ in pairs[:8]]  # false texts
        seen |= set(pairs[8:])
    assert len(seen) > 25  # of 41 false pairs


def test_pairs_without_negatives():
    model = build({'embed_dims': D}, 'own')
    with pytest.raises(ValueError, match='the 2 pairs of the batch have no negatives'):
        model(pictures()[:2], samples(['a', 'A.'], [0, 1]), mode='loss')
    with pytest.raises(ValueError, match="negatives is 'some'; give one of half, own, all"):
        build({'embed_dims': D}, 'some')
    from florence_mm.models.heads import FusionITMHead

    with pytest.raises(ValueError, match=r"negatives='own' are drawn without a model .*leave out hard_negatives"):
        FusionITMHead(negatives='own', hard_negatives=torch.nn.Linear(1, 1))


# --- prediction -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_features_of_images_and_of_their_texts():
    from mmpretrain.structures import DataSample

    model = build({'embed_dims': D}, '').eval()
    head = model.heads['itc']
    given = [DataSample(texts=['no', 'a cat']), DataSample(texts=['night'])]
    first, second = model(pictures()[:2], given, mode='predict')
    images = unit(head.image_proj(model.pool_image(model.encode_image(pictures()[:2]))))
    texts = unit(head.text_proj(model.pool_text(model.tokenize(['no', 'a cat', 'night']))))
    torch.testing.assert_close(torch.stack([first.image_feat, second.image_feat]), images, **EXACT)
    torch.testing.assert_close(torch.cat([first.text_feat, second.text_feat]), texts, **EXACT)
