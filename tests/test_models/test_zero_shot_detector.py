"""Zero-shot detection in a world of coloured rectangles, where boxes, names and scores are known by hand."""

import math
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.model import BaseTTAModel

from florence_mm.engine.hooks import ClassNamesHook

world = runpy.run_path(str(Path(__file__).parent / 'coloured_boxes.py'))
build, picture, samples = world['zero_shot_detector'], world['picture'], world['samples']
E = math.exp(world['TEMPERATURE'])
SURE = E / (E + 2)  # softmax of a cosine of 1 against two of 0
NAMES = ['red', 'green', 'blue']
STREET = {'red': (4, 8, 20, 24), 'green': (30, 2, 40, 40), 'blue': (44, 20, 60, 28)}


def detect(model, *images, **meta):
    return model.test_step({'inputs': list(images), 'data_samples': samples(*images, **meta)})


def as_dict(sample):
    found = sample.pred_instances
    names = [sample.label_names[label] for label in found.labels.tolist()]
    assert len(set(names)) == len(names)
    return {n: (b, s) for n, b, s in zip(names, found.bboxes.tolist(), found.scores.tolist(), strict=True)}


@pytest.mark.parametrize('region', ['crop', 'feature'])
def test_boxes_names_and_scores_by_hand(region):
    model = build(shared=region == 'feature', region=region)
    model.set_classes(NAMES)
    (sample,) = detect(model, picture((48, 64), **STREET))
    found = as_dict(sample)
    assert {name: tuple(box) for name, (box, _) in found.items()} == STREET
    expected = {name: math.sqrt(world['SCORES'][name] * SURE) for name in NAMES}
    if region == 'feature':
        # cells have 4 pixels: the green box, 30 to 40 and 2 to 40, takes half of black cells, so only its direction
        # counts; its mean is still pure green
        assert len(model.detector.backbone.sizes) == 1  # one pass for proposals and classes
    assert {name: score for name, (_, score) in found.items()} == pytest.approx(expected)
    assert sample.pred_instances.scores.tolist() == pytest.approx(sorted(expected.values(), reverse=True))


def test_features_are_means_over_the_box():
    model = build(shared=True, region='feature')
    model.set_classes(['red', 'green'])
    # cells: two red, one green; the box takes the second red one and half of the green one
    image = picture((8, 12), red=(0, 0, 8, 8), green=(8, 0, 12, 8))
    maps = model.detector.backbone(image[None].float())[1][0]
    feature = model._map_features(maps, torch.tensor([[4.0, 0.0, 10.0, 8.0]]), (4.0, 4.0), (8, 12))
    torch.testing.assert_close(feature, torch.tensor([[2.0, 1.0, 0.0]]) / 5**0.5)
    # a picture of 8 columns, the rest is padding
    feature = model._map_features(maps, torch.tensor([[4.0, 0.0, 12.0, 8.0]]), (4.0, 4.0), (8, 8))
    torch.testing.assert_close(feature, torch.tensor([[1.0, 0.0, 0.0]]))


def test_crops_of_several_contexts_are_added():
    model = build(context=(1.0, 2.0))
    image = picture((32, 32), green=(0, 0, 32, 32), red=(8, 8, 24, 24)).float()
    feature = model._crop_features([image], [torch.tensor([[8.0, 8.0, 24.0, 24.0]])])
    inner, outer = torch.tensor([1.0, 0, 0]), torch.tensor([1.0, 3.0, 0]) / 10**0.5
    torch.testing.assert_close(feature[0], (inner + outer) / (inner + outer).norm(), atol=0.02, rtol=0)


def test_the_classifier_sees_the_pixels_of_the_picture():
    # OpenCV's order of channels, and a normalisation that is not the classifier's
    bgr = {'mean': [100.0, 110.0, 120.0], 'std': [50.0, 60.0, 70.0], 'bgr_to_rgb': True}
    model = build(data_preprocessor={'type': 'mmdet.DetDataPreprocessor'} | bgr)
    model.classifier.data_preprocessor.mean.fill_(10.0)
    seen = []
    model.classifier.extract_image_feat = lambda crops: seen.append(crops) or crops.mean((2, 3))
    rgb = torch.randint(0, 256, (3, 16, 16), generator=torch.Generator().manual_seed(1)).byte()
    inputs = model.data_preprocessor({'inputs': [rgb.flip(0)], 'data_samples': samples(rgb)})['inputs']
    model._crop_features(inputs, [torch.tensor([[2.0, 3.0, 10.0, 11.0], [-4.0, 0.0, 4.0, 8.0]])])
    torch.testing.assert_close(seen[0][0], rgb[:, 3:11, 2:10].float() - 10, atol=1e-3, rtol=0)
    torch.testing.assert_close(seen[0][1, :, :, 4:], rgb[:, :8, :4].float() - 10, atol=1e-3, rtol=0)
    assert (seen[0][1, :, :, :4].abs() < 1e-3).all()  # outside: the classifier's mean


def test_a_batch_gives_what_single_pictures_give():
    # crops reach over the edge, where the batch has white padding
    model = build(context=(2.0,), square_crop=True, data_preprocessor={**world['PLAIN'], 'pad_value': 255})
    model.set_classes(NAMES)
    images = [picture((48, 64), **STREET), picture((20, 36), blue=(1, 1, 9, 20)), picture((48, 30))]
    together = detect(model, *images)
    model.regions_at_once = 2
    for image, sample in zip(images, together, strict=True):
        (alone,) = detect(model, image)
        for name in ('bboxes', 'scores', 'labels'):
            torch.testing.assert_close(sample.pred_instances[name], alone.pred_instances[name])
    assert [len(sample.pred_instances) for sample in together] == [3, 1, 0]


def test_crops_of_several_pictures_are_encoded_together():
    model = build(context=(1.0, 1.5))
    sizes = []
    encode = model.classifier.extract_image_feat
    model.classifier.extract_image_feat = lambda crops: sizes.append(len(crops)) or encode(crops)
    images = [
        picture((48, 64), **STREET).float(),
        picture((20, 36)).float(),
        picture((20, 36), blue=(1, 1, 9, 20)).float(),
    ]
    boxes = [torch.tensor([STREET[name] for name in NAMES]).float(), torch.zeros(0, 4), torch.tensor([[1.0, 1, 9, 20]])]
    alone = [model._crop_features([image], [found]) for image, found in zip(images, boxes, strict=True) if len(found)]
    for most, expected in ((64, [4, 4]), (2, [2] * 4), (3, [3, 3, 1, 1])):
        model.regions_at_once, sizes[:] = most, []
        together = model._crop_features(images, boxes)
        torch.testing.assert_close(together, torch.cat(alone))
        assert sizes == expected


def test_the_type_of_class_features_reaches_the_classifier(monkeypatch):
    model, given = build(), []
    monkeypatch.setattr(model.classifier, 'set_classes', lambda *args, **kwargs: given.append((args, kwargs)))
    model.set_classes(['red'], 'none', torch.bfloat16)
    model.set_classes(['red'], 'none')
    names = ['red', *model.background]
    assert given == [((names, 'none'), {'dtype': torch.bfloat16}), ((names, 'none'), {})]


def test_boxes_are_in_pixels_of_the_original_picture():
    model = build()
    model.set_classes(NAMES)
    image = picture((48, 64), **STREET)
    (sample,) = detect(model, image, scale_factor=(2.0, 0.5), ori_shape=(96, 32))
    expected = {name: [x1 / 2, y1 * 2, x2 / 2, y2 * 2] for name, (x1, y1, x2, y2) in STREET.items()}
    assert {name: box for name, (box, _) in as_dict(sample).items()} == expected
    # resizing rounds: a box does not leave the picture
    (sample,) = detect(model, image, scale_factor=(2.0, 0.5), ori_shape=(70, 29))
    assert as_dict(sample)['green'][0] == [15, 4, 20, 70]
    assert as_dict(sample)['blue'][0][2] == 29
    data = model.data_preprocessor({'inputs': [image], 'data_samples': samples(image, scale_factor=(2.0, 0.5))})
    (sample,) = model.predict(**data, rescale=False)
    assert as_dict(sample)['red'][0] == list(STREET['red'])


def test_the_order_of_classes_does_not_matter():
    model, image = build(), picture((48, 64), **STREET)
    answers = []
    for names in (NAMES, NAMES[::-1], ['blue', 'red', 'green']):
        model.set_classes(names)
        (sample,) = detect(model, image)
        assert sample.label_names == tuple(names)
        answers.append(as_dict(sample))
    assert answers[0].keys() == answers[1].keys() == answers[2].keys()
    for name, (box, score) in answers[0].items():
        assert answers[1][name][0] == answers[2][name][0] == box
        assert answers[1][name][1] == pytest.approx(score) and answers[2][name][1] == pytest.approx(score)


def test_other_classes_give_another_answer():
    model, image = build(score_thr=0.5), picture((48, 64), red=STREET['red'])
    model.set_classes(['red', 'green'])
    assert as_dict(detect(model, image)[0])['red'][1] == pytest.approx(math.sqrt(0.81 * E / (E + 1)))
    model.set_classes(['green', 'blue'])
    # red is as little green as blue: half the probability each, and one class a box
    assert detect(model, image)[0].pred_instances.scores.tolist() == pytest.approx([math.sqrt(0.81 / 2)])
    model.classes_per_box = 2
    assert len(detect(model, image)[0].pred_instances) == 2


def test_background_takes_its_part_and_is_not_reported():
    model, image = build(background=('grey',)), picture((48, 64), grey=(8, 8, 24, 24))
    model.set_classes(NAMES)
    near = math.exp(5 * 3**-0.5)  # grey and red
    (sample,) = detect(model, image)
    assert sample.pred_instances.scores.tolist() == pytest.approx([math.sqrt(0.36 * near / (3 * near + E))], rel=1e-5)
    assert sample.label_names == tuple(NAMES)
    with pytest.raises(ValueError, match="'grey' is a class and in background too"):
        model.set_classes(['grey'])


@pytest.mark.parametrize(('weight', 'score'), [(1.0, 0.81), (0.0, SURE), (0.25, 0.81**0.25 * SURE**0.75)])
def test_both_scores_are_joined(weight, score):
    model = build(proposal_weight=weight)
    model.set_classes(NAMES)
    (sample,) = detect(model, picture((48, 64), red=STREET['red']))
    assert sample.pred_instances.scores.tolist() == pytest.approx([score])


def test_duplicates_are_dropped_within_a_class_only():
    model = build(classes_per_box=2, score_thr=0.2, nms_iou=0.5, proposal_weight=0.0)
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 6, 10, 16]])
    probabilities = torch.tensor([[0.6, 0.3, 0.1], [0.8, 0.15, 0.05], [0.5, 0.5, 0.0]])
    found = model._select(boxes, torch.ones(3), probabilities)
    # class 0: the second box drops the first (IoU 0.9), not the third (3 / 16); class 1: first and third
    assert found.scores.tolist() == pytest.approx([0.8, 0.5, 0.5, 0.3])
    answer = {(tuple(box), label) for box, label in zip(found.bboxes.tolist(), found.labels.tolist(), strict=True)}
    rows = [tuple(box) for box in boxes.tolist()]
    assert answer == {(rows[1], 0), (rows[2], 0), (rows[2], 1), (rows[0], 1)}
    model.max_per_img = 1
    assert model._select(boxes, torch.ones(3), probabilities).bboxes.tolist() == [list(rows[1])]


def test_no_proposals():
    for region in ('crop', 'feature'):
        model = build(shared=region == 'feature', region=region)
        model.set_classes(NAMES)
        found = detect(model, picture((48, 64)))[0].pred_instances
        assert found.bboxes.shape == (0, 4) and found.scores.shape == found.labels.shape == (0,)


class Views(BaseTTAModel):
    def merge_preds(self, data_samples_list):
        return data_samples_list[0]


def test_detection_needs_classes_which_the_hook_gives():
    model = build()
    with pytest.raises(ValueError, match='call set_classes'):
        detect(model, picture((48, 64)))
    dataset = SimpleNamespace(metainfo={'classes': ('blue', 'red')})
    runner = SimpleNamespace(model=model, test_dataloader=SimpleNamespace(dataset=dataset))
    runner.model = Views(Views(model))  # as test-time augmentation wraps it within distributed testing
    ClassNamesHook(templates='none').before_test(runner)
    image = picture((48, 64), red=STREET['red'], blue=STREET['blue'])
    assert list(as_dict(detect(model, image)[0])) == ['red', 'blue']
    with pytest.raises(ValueError, match='at least one'):
        model.set_classes([])
