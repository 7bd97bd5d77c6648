"""Zero-shot classification, linear probes, few-shot episodes and fine-tuned models on digits in published layouts."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from digit_towers import DIGITS, MODEL, pack, pixels, trained
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, precision_recall_curve, top_k_accuracy_score

from florence_mm.errors import UsageError
from florence_mm.formats.published import READERS
from florence_mm.protocols import linear_probe
from florence_mm.protocols.classification import EMBEDDED, FLORENCE, with_digits
from florence_mm.protocols.episodes import HeadTraining
from florence_mm.protocols.features import FeatureCache
from florence_mm.protocols.few_shot import FewShotClassification
from florence_mm.protocols.fine_tuned import FineTunedClassification
from florence_mm.protocols.linear_probe import LinearProbe
from florence_mm.protocols.sets import CD_FSL, CLIP_PROTOCOL
from florence_mm.protocols.zero_shot import ZeroShotClassification
from florence_mm.registry import MODELS

SETS = {data.name: with_digits(data) for data in CLIP_PROTOCOL}
SEEDS = pytest.mark.parametrize('seed', [0, 1, 2])


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return tmp_path_factory.mktemp('data')


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp('features')


def ready(protocol, root):
    protocol.prepare(root)
    return protocol


@torch.no_grad()
def pooled(loaded, images):
    """Features of files or arrays, read by another package."""
    arrays = [
        image if isinstance(image, np.ndarray) else np.array(Image.open(image).convert('RGB')) for image in images
    ]
    inputs = [torch.from_numpy(array.copy()).permute(2, 0, 1) for array in arrays]
    return loaded.model.pool_images(loaded.model.data_preprocessor({'inputs': inputs})['inputs'])


class Texts(list):
    """Texts on a device, as open_clip wants its ids."""

    def to(self, device):
        return self


class EncodesTexts:
    """Our text tower as open_clip's."""

    def __init__(self, model):
        self.model = model

    def encode_text(self, texts, normalize):
        assert normalize
        return self.model.extract_text_feat(list(texts))


@torch.no_grad()
def scores_elsewhere(loaded, data, images):
    """Cosines with open_clip's classifier of the classes."""
    from open_clip import build_zero_shot_classifier

    classifier = build_zero_shot_classifier(EncodesTexts(loaded.model), Texts, data.classes, data.templates)  # (D, K)
    features = pooled(loaded, images) @ loaded.model.image_projection
    return (features / features.norm(dim=1, keepdim=True) @ classifier).numpy()


@pytest.mark.parametrize('name', ['food101', 'cifar100', 'oxford_pets', 'flowers102'])
def test_zero_shot_equals_open_clip_and_scikit_learn(name, root, tmp_path, cache):
    protocol = ready(ZeroShotClassification(SETS[name]), root)
    figures = protocol.run(trained(0), root, tmp_path, cache_dir=cache)
    raw = READERS[name](root / protocol.data.folder, 'test')
    scores = scores_elsewhere(trained(0), protocol.data, raw.images)
    # files name the digits, and flowers have numbers in the order of the digits
    names = DIGITS if name == 'flowers102' else raw.names
    truth = np.array([DIGITS.index(names[label]) for label in raw.labels])
    # test_sets has scores for which the three differ
    assert figures['top1'] == pytest.approx(accuracy_score(truth, scores.argmax(1)))
    assert figures['mean_per_class'] == pytest.approx(balanced_accuracy_score(truth, scores.argmax(1)))
    assert figures['top5'] == pytest.approx(top_k_accuracy_score(truth, scores, k=5))
    assert figures['num_images'] == len(truth)


def eleven_points(scores, truth):
    """VOC 2007's average precision, from scikit-learn's curve."""
    precision, recall, _ = precision_recall_curve(truth[truth != 0] > 0, scores[truth != 0])
    precision, recall = precision[:-1], recall[:-1]  # the last point, of no image, is made up
    return np.mean([precision[recall >= t / 10 - 1e-9].max() for t in range(11)])


def test_zero_shot_on_voc_is_the_mean_of_eleven_point_precisions(root, tmp_path, cache):
    protocol = ready(ZeroShotClassification(SETS['voc2007']), root)
    raw = READERS['voc2007'](root / protocol.data.folder, 'test')
    scores = scores_elsewhere(trained(0), protocol.data, raw.images)
    expected = [eleven_points(scores[:, DIGITS.index(name)], raw.labels[:, k]) for k, name in enumerate(raw.names)]
    found = protocol.run(trained(0), root, tmp_path, cache_dir=cache)
    assert found['mAP'] == pytest.approx(np.mean(expected), abs=1e-6)
    assert protocol.metric == 'mAP'


@SEEDS
def test_digits_are_told_apart(seed, root, tmp_path):
    # with seeds 0 to 2: zero-shot 0.76, 0.66 and 0.70 of all test digits; chance is 0.10
    data = SETS['cifar10']
    ready(ZeroShotClassification(data), root)
    zero_shot = ZeroShotClassification(data).run(trained(seed), root, tmp_path / 'zero_shot', cache_dir=tmp_path)
    assert zero_shot['top1'] >= 0.35
    probe = LinearProbe(data).run(trained(seed), root, tmp_path / 'probe', cache_dir=tmp_path)
    assert probe['top1'] >= 0.5
    few = ready(FewShotClassification(with_digits(CD_FSL[1], 22), episodes=10), root)  # chance is 0.20
    found = few.run(trained(seed), root, tmp_path / 'few', cache_dir=tmp_path)
    assert found['accuracy'] - found['interval'] >= 0.45


# --- linear probes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['cifar10', 'dtd', 'caltech101'])
def test_a_probe_equals_scikit_learn_on_the_same_features(name, root, tmp_path, cache):
    validation = 'val' if name == 'dtd' else None
    protocol = ready(LinearProbe(SETS[name], validation), root)
    figures = protocol.run(trained(0), root, tmp_path, cache_dir=cache)
    splits = [
        protocol.data.load(root, *which) for which in (('train', *([validation] if validation else [])), ('test',))
    ]
    (x, y), (x_test, y_test) = ((pooled(trained(0), data.images).numpy(), data.labels) for data in splits)
    model = LogisticRegression(C=figures['C'], max_iter=1000, random_state=0).fit(x, y)
    assert figures['top1'] == pytest.approx(model.score(x_test, y_test), abs=0.011)  # one image
    assert figures['mean_per_class'] == pytest.approx(balanced_accuracy_score(y_test, model.predict(x_test)), abs=0.011)


@pytest.mark.parametrize('name', ['dtd', 'cifar10'])
def test_the_sweep_validates_on_images_that_neither_train_nor_test(name, root, tmp_path, cache):
    validation = 'val' if name == 'dtd' else None
    protocol = ready(LinearProbe(SETS[name], validation), root)
    figures = protocol.run(trained(0), root, tmp_path, cache_dir=cache)
    x, y = {}, {}
    for split in ('train', 'test', *([validation] if validation else [])):
        data = protocol.data.load(root, split)
        x[split], y[split] = pooled(trained(0), data.images).numpy(), data.labels
    if validation is None:
        train, val = linear_probe.split_for_validation(y['train'])
        x['val'], y['val'] = x['train'][val], y['train'][val]
        x['train'], y['train'] = x['train'][train], y['train'][train]
    kept = {int(place): score for place, score in json.loads((tmp_path / 'sweep.json').read_text())['scores'].items()}
    expected = {split: [] for split in x}
    for place in sorted(kept):
        model = LogisticRegression(C=10 ** (place / 8 - 6), max_iter=1000, random_state=0).fit(x['train'], y['train'])
        for split, scores in expected.items():
            scores.append(model.score(x[split], y[split]))
    found = np.array([kept[place] for place in sorted(kept)])
    image = 1.1 / len(y['val'])
    assert np.abs(found - expected['val']).max() < image
    # the other splits have other scores
    assert all(np.abs(found - expected[split]).max() > image for split in ('train', 'test'))
    best = int(round(8 * (np.log10(figures['C']) + 6)))
    assert kept[best] == max(kept.values()) == figures['validation']


def test_a_fit_is_scikit_learns_and_of_several_labels_one_a_class():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 6)), rng.integers(0, 3, 40)
    place = 43
    model = LogisticRegression(C=10 ** (43 / 8 - 6), max_iter=1000, random_state=0).fit(x, y)
    np.testing.assert_array_equal(linear_probe.fit(x, y, place)(x), model.decision_function(x))
    both = np.where(y == 0, -1, 1)
    model = LogisticRegression(C=10 ** (43 / 8 - 6), max_iter=1000, random_state=0).fit(x[5:], both[5:])
    truth = np.stack([both, np.ones(40)], 1).astype(np.int8)
    truth[:5, 0] = 0  # not to be judged, so not to be learned from
    found = linear_probe.fit(x, truth, place)(x)
    np.testing.assert_array_equal(found[:, 0], model.decision_function(x))
    assert not found[:, 1].any()
    # of two classes scikit-learn has one number, and a class without images is never the answer
    found = linear_probe.fit(x, np.where(y == 0, 0, 2), place)(x)
    model = LogisticRegression(C=strength(place), max_iter=1000).fit(x, both)
    assert (
        found.argmax(1)
        == np.where(LogisticRegression(C=strength(place), max_iter=1000).fit(x, both).predict(x) > 0, 2, 0)
    ).all()


def strength(place):
    return linear_probe.strength(place)


@pytest.mark.parametrize('peak', [0, 1, 15, 16, 43, 95, 96])
def test_the_search_finds_the_peak_in_fifteen_fits(peak):
    tried = []

    def score(place):
        tried.append(place)
        return -abs(place - peak)

    assert linear_probe.search_strength(score) == peak
    assert tried[:7] == [0, 16, 32, 48, 64, 80, 96]
    assert len(tried) == len(set(tried)) <= 15
    assert strength(0) == 1e-6 and strength(96) == 1e6 and strength(44) == pytest.approx(0.316, abs=1e-3)


def test_the_search_takes_the_middle_of_equals_and_no_nan():
    assert linear_probe.search_strength(lambda place: 1.0) in range(40, 57)
    assert linear_probe.search_strength(lambda place: float('nan') if place < 96 else 0.0) == 96


def test_a_fifth_of_each_class_validates():
    labels = np.repeat([0, 1, 2], [10, 20, 1])
    train, val = linear_probe.split_for_validation(labels)
    assert np.bincount(labels[val]).tolist() == [2, 4] and sorted([*train, *val]) == list(range(31))
    assert all(
        np.array_equal(a, b) for a, b in zip((train, val), linear_probe.split_for_validation(labels), strict=True)
    )


def test_a_stopped_sweep_goes_on(root, tmp_path, cache, monkeypatch):
    protocol, loaded = ready(LinearProbe(SETS['cifar10']), root), trained(0)
    whole = protocol.run(loaded, root, tmp_path / 'whole', cache_dir=cache)
    places, real = [], linear_probe.fit

    def counted(features, labels, place):
        places.append(place)
        if len(places) == 9:
            raise KeyboardInterrupt
        return real(features, labels, place)

    monkeypatch.setattr(linear_probe, 'fit', counted)
    with pytest.raises(KeyboardInterrupt):
        protocol.run(loaded, root, tmp_path / 'stopped', cache_dir=cache)
    assert protocol.run(loaded, root, tmp_path / 'stopped', cache_dir=cache) == whole
    # what was done is not done again, but for the last fit, which is of all training images
    after = places[9:-1]
    assert len(set(after)) == len(after) and not set(places[:8]) & set(after)
    (tmp_path / 'stopped/sweep.json').write_text('{"key":')
    assert protocol.run(loaded, root, tmp_path / 'stopped', cache_dir=cache) == whole


# --- features ---------------------------------------------------------------------------------------------------------


def test_features_are_kept_until_weights_or_images_change(root, tmp_path, monkeypatch):
    data = SETS['food101']
    ready(ZeroShotClassification(data), root)
    images, loaded = data.load(root, 'test'), copy.copy(trained(0))
    first = FeatureCache(loaded, tmp_path).get(images, 'some', flip=True)
    torch.testing.assert_close(first[0], pooled(loaded, images.images), atol=1e-5, rtol=1e-4)
    mirrored = [np.array(Image.open(path).convert('RGB'))[:, ::-1] for path in images.images]
    torch.testing.assert_close(first[1], pooled(loaded, mirrored), atol=1e-5, rtol=1e-4)
    computed = []
    real = FeatureCache._compute
    monkeypatch.setattr(FeatureCache, '_compute', lambda *args, **kwargs: computed.append(1) or real(*args, **kwargs))
    assert torch.equal(FeatureCache(loaded, tmp_path).get(images, 'some', flip=True), first) and not computed
    (file,) = tmp_path.glob('*.safetensors')
    file.write_bytes(file.read_bytes()[:-9])  # cut off
    assert torch.equal(FeatureCache(loaded, tmp_path).get(images, 'some', flip=True), first) and len(computed) == 1
    images.images[3].write_bytes(images.images[4].read_bytes())
    torch.testing.assert_close(FeatureCache(loaded, tmp_path).get(images, 'some', flip=True)[:, 3], first[:, 4])
    loaded.model = copy.deepcopy(loaded.model)
    with torch.no_grad():
        next(loaded.model.image_encoder.parameters()).add_(0.1)
    assert not torch.equal(FeatureCache(loaded, tmp_path).get(images, 'some', flip=True), first)
    assert len(computed) == 3


def test_a_model_that_diverged_is_refused(root, tmp_path):
    """Of NaN an argmax is the first class, a rank the last place and an average precision that of the list's order."""
    loaded = copy.copy(trained(0))
    loaded.model = copy.deepcopy(loaded.model)
    with torch.no_grad():
        next(loaded.model.image_encoder.parameters()).fill_(torch.nan)
    said = r'features of \w+-digits-\w+ that are not finite numbers for \d+ of \d+ images'
    episodes = FewShotClassification(with_digits(CD_FSL[0], 22), episodes=2)
    for protocol in (ZeroShotClassification(SETS['voc2007']), LinearProbe(SETS['food101']), episodes):
        with pytest.raises(UsageError, match=said):
            ready(protocol, root).run(loaded, root, tmp_path)
    loaded.model = copy.deepcopy(trained(0).model)
    with torch.no_grad():
        loaded.model.text_projection.fill_(torch.nan)
    with pytest.raises(UsageError, match=r'scores on food101-digits that are no numbers for 100 of 100 images'):
        ready(ZeroShotClassification(SETS['food101']), root).run(loaded, root, tmp_path)


def test_episodes_that_diverge_are_refused(root, tmp_path):
    training = HeadTraining(epochs=2, lr=1e38)
    for tuned in (False, True):
        protocol = FewShotClassification(with_digits(CD_FSL[0], 22), episodes=1, training=training, tuned=tuned)
        with pytest.raises(UsageError, match='training diverges in episodes of few-shot/isic-digits-5shot'):
            ready(protocol, root).run(trained(0), root, tmp_path)


def test_other_models_are_refused(root, tmp_path):
    other = pack(MODELS.build({'type': 'ImageTextDataPreprocessor'}))
    protocol = ready(ZeroShotClassification(SETS['food101']), root)
    with pytest.raises(UsageError, match='ImageTextDataPreprocessor compares no images with texts'):
        protocol.run(other, root, tmp_path)
    with pytest.raises(UsageError, match='ImageTextDataPreprocessor has no pooled image features'):
        LinearProbe(protocol.data).run(other, root, tmp_path)
    with pytest.raises(UsageError, match='UniCL has no classes and food101-digits has 10; give a model'):
        FineTunedClassification(protocol.data).run(trained(0), root, tmp_path)
    without = copy.copy(trained(0))
    without.pipeline = None
    with pytest.raises(UsageError, match='no test pipeline for images'):
        protocol.run(without, root, tmp_path)


# --- episodes ---------------------------------------------------------------------------------------------------------


def test_stopped_episodes_go_on(root, tmp_path, cache, monkeypatch):
    protocol = ready(FewShotClassification(with_digits(CD_FSL[0], 22), episodes=45), root)
    whole = protocol.run(trained(0), root, tmp_path / 'whole', cache_dir=cache)
    real, firsts = FewShotClassification._frozen_episodes, []

    def counted(self, features, labels, first):
        firsts.append(first)
        if len(firsts) == 2:
            raise KeyboardInterrupt
        return real(self, features, labels, first)

    monkeypatch.setattr(FewShotClassification, '_frozen_episodes', counted)
    with pytest.raises(KeyboardInterrupt):
        protocol.run(trained(0), root, tmp_path / 'stopped', cache_dir=cache)
    assert protocol.run(trained(0), root, tmp_path / 'stopped', cache_dir=cache) == whole
    assert firsts == [0, 20, 20, 40]
    assert whole['num_episodes'] == 45


def test_tuning_the_encoder_leaves_the_model_as_it_was(root, tmp_path):
    data = with_digits(CD_FSL[1], 22)
    training = replace(FewShotClassification(data).training, epochs=3)
    protocol = ready(FewShotClassification(data, shots=2, queries=4, episodes=2, tuned=True, training=training), root)
    before = copy.deepcopy(trained(0).model.state_dict())
    found = protocol.run(trained(0), root, tmp_path)
    assert found == protocol.run(trained(0), root, tmp_path / 'again')
    assert all(torch.equal(value, before[key]) for key, value in trained(0).model.state_dict().items())
    assert not trained(0).model.training
    assert found['accuracy'] > 0.2


# --- fine-tuning ------------------------------------------------------------------------------------------------------


def test_a_fine_tuned_model_begins_with_zero_shot_and_learns(root, tmp_path):
    from mmpretrain.structures import DataSample

    data = SETS['cifar10']
    ready(ZeroShotClassification(data), root)
    zero_shot = ZeroShotClassification(data).run(trained(0), root, tmp_path)
    model = MODELS.build({'type': 'UniCLClassifier', 'towers': MODEL, 'classes': DIGITS, 'templates': 'simple'})
    model.towers.load_state_dict(trained(0).model.state_dict())
    model.init_cfg = model.towers.init_cfg = None
    model.head.set_features(model.towers.eval().encode_classes(DIGITS, data.templates))
    begun = FineTunedClassification(data).run(pack(model), root, tmp_path)
    assert begun == zero_shot
    images, labels = pixels('train')
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    torch.manual_seed(0)
    for _ in range(30):
        chosen = torch.randperm(len(images))[:64]
        samples = [DataSample().set_gt_label(label) for label in labels[chosen]]
        batch = model.data_preprocessor({'inputs': images[chosen], 'data_samples': samples})
        losses = model.train()(**batch, mode='loss')
        optimizer.zero_grad()
        (losses['loss_i2c'] + losses['loss_c2i']).backward()
        optimizer.step()
    assert FineTunedClassification(data).run(pack(model), root, tmp_path)['top1'] > zero_shot['top1'] + 0.05


# --- the suite --------------------------------------------------------------------------------------------------------


def test_the_suite_has_the_papers_rows():
    names = [entry.protocol.name for entry in FLORENCE]
    assert len(set(names)) == len(names) == 12 + 11 + 1 + 12
    assert all(entry.protocol.paper is not None for entry in FLORENCE)
    by_name = {entry.protocol.name: entry.protocol for entry in FLORENCE}
    assert by_name['zero-shot/voc2007'].metric == 'mAP' and by_name['zero-shot/voc2007'].paper == 85.5
    assert by_name['few-shot/chestx-50shot'].paper == 42.8
    validated = {name for name, protocol in by_name.items() if getattr(protocol, 'validation', None)}
    assert validated == {f'linear-probe/{name}' for name in ('fgvc_aircraft', 'voc2007', 'dtd', 'flowers102')}
    # digits are no result of the paper's sets
    assert not any(entry.protocol.paper for entry in EMBEDDED)
    assert {e.protocol.group for e in EMBEDDED} == {'zero-shot', 'linear-probe', 'few-shot'}
