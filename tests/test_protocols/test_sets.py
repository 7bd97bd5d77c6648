"""Classification sets: sizes, the order of classes, what is missing."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, top_k_accuracy_score

from florence_mm.corpora.published_digits import write_published_digits
from florence_mm.errors import DataError
from florence_mm.language.prompts import get_class_names
from florence_mm.protocols.sets import CD_FSL, CLIP_PROTOCOL, imagenet1k, part_of

DIGITS = tuple(get_class_names('digits'))
BY_NAME = {data.name: data for data in CLIP_PROTOCOL}


def test_sizes_are_those_of_clips_table():
    # classes, training with validation images, test images (arXiv 2103.00020, table 9)
    expected = {
        'food101': (101, 75_750, 25_250),
        'cifar10': (10, 50_000, 10_000),
        'cifar100': (100, 50_000, 10_000),
        'sun397': (397, 19_850, 19_850),
        'stanford_cars': (196, 8_144, 8_041),
        'fgvc_aircraft': (100, 6_667, 3_333),
        'voc2007': (20, 5_011, 4_952),
        'dtd': (47, 3_760, 1_880),
        'oxford_pets': (37, 3_680, 3_669),
        'caltech101': (102, 3_060, 6_085),
        'flowers102': (102, 2_040, 6_149),
    }
    for name, data in BY_NAME.items():
        sizes = dict(data.sizes)
        assert (len(data.classes), sizes['train'] + sizes.get('val', 0), sizes['test']) == expected[name]
    assert (len(imagenet1k().classes), len(imagenet1k().templates)) == (1000, 80)
    metrics = {name: data.metric for name, data in BY_NAME.items() if data.metric != 'top1'}
    assert metrics == {'voc2007': 'mAP'} | dict.fromkeys(
        ('fgvc_aircraft', 'oxford_pets', 'caltech101', 'flowers102'), 'mean_per_class'
    )


@pytest.mark.parametrize('data', [*CLIP_PROTOCOL, imagenet1k(), *CD_FSL], ids=lambda data: data.name)
def test_a_missing_set_says_what_to_download_and_where_to_put_it(data, tmp_path):
    told = data.missing(tmp_path)
    assert 'is not there: download it from http' in told and str(tmp_path / data.sources[0].layout[0]) in told
    with pytest.raises(DataError, match='is not there: download it from http'):
        data.load(tmp_path, 'test')
    write_published_digits(data.name, tmp_path, train=1, val=1, test=1)
    assert data.missing(tmp_path) is None
    assert all(path.exists() for path in data.reads(tmp_path))


def test_the_other_layout_of_a_set_will_do(tmp_path):
    (tmp_path / 'cifar-10-batches-bin').mkdir()
    assert BY_NAME['cifar10'].missing(tmp_path) is None
    assert BY_NAME['cifar10'].reads(tmp_path) == [tmp_path / 'cifar-10-batches-bin']


def digits(name, folder, **changes):
    write_published_digits(name, folder, train=2, val=2, test=2)
    return replace(BY_NAME[name], classes=DIGITS, **{'sizes': (('test', 20),), **changes})


def test_a_set_of_another_size_is_refused(tmp_path):
    data = digits('food101', tmp_path)
    assert len(data.load(tmp_path, 'test')) == 20
    with pytest.raises(DataError, match=r'has 20 images of the test split of food101, officially 25; .*-partial$'):
        replace(data, sizes=(('test', 25),)).load(tmp_path, 'test')
    part = replace(data, sizes=(('test', 25),), allow_partial=True).load(tmp_path, 'test')
    assert len(part) == 20 and part_of(part) == {'present_images': 20, 'official_images': 25}
    assert part_of(data.load(tmp_path, 'test')) == part_of(data.load(tmp_path, 'train')) == {}
    # of two splits, of which one is whole
    both = part_of(part, data.load(tmp_path, 'train'))
    assert both == {'present_images': 40, 'official_images': 45}
    together = replace(data, sizes=(('test', 25),), allow_partial=True).load(tmp_path, 'test', 'train')
    assert part_of(together) == both
    # more than there are cannot be the set
    with pytest.raises(DataError, match='officially 19; restore the set as published$'):
        replace(data, sizes=(('test', 19),), allow_partial=True).load(tmp_path, 'test')
    shutil.rmtree(tmp_path / 'food-101/images/two')
    with pytest.raises(DataError, match=r'lists 20 images of food101, of which 2 are not there, such as .*two'):
        data.load(tmp_path, 'test')
    part = replace(data, allow_partial=True).load(tmp_path, 'test')
    assert len(part) == 18 and 'two' not in {part.names[label] for label in part.labels}
    assert part_of(part) == {'present_images': 18, 'official_images': 20}
    shutil.rmtree(tmp_path / 'food-101/images')
    (tmp_path / 'food-101/images').mkdir()
    with pytest.raises(DataError, match='has no image of the test split'):
        replace(data, allow_partial=True).load(tmp_path, 'test')


def test_a_class_that_is_not_there_moves_no_other(tmp_path):
    write_published_digits('caltech101', tmp_path, test=2)
    data = replace(BY_NAME['caltech101'], classes=DIGITS, sizes=())
    shutil.rmtree(tmp_path / 'caltech-101/101_ObjectCategories/four')
    with pytest.raises(DataError, match='has 9 classes, and caltech101 has 10'):
        data.load(tmp_path, 'test')
    part = replace(data, allow_partial=True).load(tmp_path, 'test')
    assert part.names == DIGITS and len(part) == 18
    assert all(path.parent.name == DIGITS[label] for path, label in zip(part.images, part.labels, strict=True))
    several = digits('voc2007', tmp_path, sizes=(), allow_partial=True)
    whole = several.load(tmp_path, 'test')
    (tmp_path / 'VOCdevkit/VOC2007/ImageSets/Main/four_test.txt').unlink()
    found = several.load(tmp_path, 'test')
    others = [k for k in range(10) if k != 4]
    assert not found.labels[:, 4].any()  # not judged
    assert np.array_equal(found.labels[:, others], whole.labels[:, others])


def test_the_table_of_chest_images_has_the_official_length(tmp_path):
    write_published_digits('chestx', tmp_path, test=2)
    data = next(data for data in CD_FSL if data.name == 'chestx')
    # ten kinds of rows, of which seven are of one finding each
    assert len(replace(data, sizes=(('all', 20),)).load(tmp_path, 'all')) == 14
    with pytest.raises(DataError, match=r'Data_Entry_2017.csv lists 20 images, officially 112120; .* --allow-partial'):
        data.load(tmp_path, 'all')
    part = replace(data, allow_partial=True).load(tmp_path, 'all')
    assert part_of(part) == {'present_images': 20, 'official_images': 112_120}
    for image in part.images[:3]:
        image.unlink()
    left = replace(data, allow_partial=True).load(tmp_path, 'all')
    assert (len(left), part_of(left)) == (11, {'present_images': 17, 'official_images': 112_120})


def test_labels_follow_the_prompts_by_name(tmp_path):
    # folders in the order of their names, prompts in that of the digits
    loaded = digits('food101', tmp_path).load(tmp_path, 'train', 'test')
    assert len(loaded) == 40 and loaded.names == DIGITS
    for path, label in zip(loaded.images, loaded.labels, strict=True):
        assert path.parent.name == DIGITS[label]
    several = digits('voc2007', tmp_path, sizes=()).load(tmp_path, 'test')
    listed = (tmp_path / 'VOCdevkit/VOC2007/ImageSets/Main/three_test.txt').read_text().split()[1::2]
    assert several.labels[:, 3].tolist() == [int(truth) for truth in listed]


def test_labels_follow_the_prompts_by_position_where_most_names_agree(tmp_path):
    data = digits('cifar10', tmp_path)
    ours = ('nought', *DIGITS[1:])
    expected = data.load(tmp_path, 'test').labels
    assert np.array_equal(replace(data, classes=ours).load(tmp_path, 'test').labels, expected)
    with pytest.raises(DataError, match="has other classes than cifar10: 'zero' where 'nine' was expected"):
        replace(data, classes=('nine', *DIGITS[2:9], 'none', 'one')).load(tmp_path, 'test')
    with pytest.raises(DataError, match='has 10 classes, and cifar10 has 9'):
        replace(data, classes=DIGITS[:9]).load(tmp_path, 'test')


def test_figures_of_four_images():
    data = replace(BY_NAME['oxford_pets'], classes=())
    scores = torch.tensor([[3.0, 2, 1], [3, 2, 1], [1, 3, 2], [3, 2, 1]])
    # class 0: two of two are right, class 1: one of two
    figures = data.figures(scores, torch.tensor([0, 0, 1, 1]))
    assert figures == {'top1': 0.75, 'mean_per_class': 0.75}
    figures = data.figures(scores, torch.tensor([0, 0, 0, 1]))
    assert figures == {'top1': 0.5, 'mean_per_class': pytest.approx((2 / 3 + 0) / 2)}


def test_figures_of_random_scores_are_scikit_learns():
    rng = np.random.default_rng(0)
    # classes of 90 to 10 images, of which the rare ones are known better
    labels = np.repeat(np.arange(9), np.arange(90, 0, -10))
    scores = rng.normal(size=(len(labels), 9))
    scores[np.arange(len(labels)), labels] += labels / 4
    figures = replace(BY_NAME['oxford_pets'], classes=()).figures(torch.tensor(scores), torch.tensor(labels))
    expected = {
        'top1': accuracy_score(labels, scores.argmax(1)),
        'top5': top_k_accuracy_score(labels, scores, k=5),
        'mean_per_class': balanced_accuracy_score(labels, scores.argmax(1)),
    }
    assert figures == pytest.approx(expected)
    assert max(expected.values()) < 0.9 and abs(expected['top1'] - expected['mean_per_class']) > 0.05
