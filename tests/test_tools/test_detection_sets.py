"""Merging, pseudo boxes and few-shot subsets from the command line."""

import json
import re

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from florence_mm.registry import MODELS
from florence_mm.smoke.detection import write_annotations


@pytest.fixture
def images(small_detector, tmp_path):
    """A manifest of the detector's two pictures, one red and one blue."""
    rows = [{'image': '0.png', 'class': 'red'}, {'image': '1.png', 'class': 'Blue'}]
    (tmp_path / 'manifest.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    return tmp_path / 'manifest.jsonl', '--image-root', tmp_path / 'data' / 'images'


def test_pseudo_boxes_of_a_detector_are_a_source_of_a_merge(tool, small_detector, images, tmp_path):
    out = tmp_path / 'pseudo.json'
    # random weights find every class everywhere, if enough boxes are asked for
    small_detector['model']['test_cfg'].update(nms_pre=3000, max_per_img=3000)
    common = (tmp_path / 'weights.pth', *images, '--out', out, '--score-thr', '0.005', '--device', 'cpu')
    status, said, error = tool('dataset_converters/pseudo_boxes.py', small_detector, *common, '--top-k', '3')
    assert not status, error
    boxes = json.loads(out.read_text())
    assert [category['name'] for category in boxes['categories']] == ['Blue', 'red']
    found = [(a['image_id'], a['category_id']) for a in boxes['annotations']]
    assert found == [(1, 2)] * 3 + [(2, 1)] * 3
    assert '6 boxes in 2 images' in said
    report = json.loads(out.with_suffix('.report.json').read_text())
    assert report['other_class'] > 0 and report['class_agnostic'] is False

    write_annotations(tmp_path / 'data', 3, ['red', 'green', 'blue'], 3)
    sources = [
        {'name': 'drawn', 'format': 'coco', 'ann_file': str(tmp_path / 'data/annotations.json'), 'images': 'pictures'},
        {'name': 'found', 'format': 'coco', 'ann_file': str(out), 'images': 'pictures'},
    ]
    (tmp_path / 'plan.json').write_text(json.dumps({'sources': sources}))
    arguments = (tmp_path / 'plan.json', '--out', tmp_path / 'merged.json', '--iou', '0.9')
    status, said, error = tool('dataset_converters/merge_detection.py', *arguments)
    assert not status, error
    assert f'{tmp_path / "merged.json"}: 3 images, ' in said and ' boxes, 3 classes in ' in said
    names = {image['source'] for image in json.loads((tmp_path / 'merged.json').read_text())['images']}
    assert names == {'drawn', 'drawn+found'}


def test_all_boxes_of_a_picture_get_its_class(tool, small_detector, images, tmp_path):
    out = tmp_path / 'pseudo.json'
    options = ('--class-agnostic', '--score-thr', '0.005', '--top-k', '4')
    status, _, error = tool(
        'dataset_converters/pseudo_boxes.py', small_detector, tmp_path / 'weights.pth', *images, '--out', out, *options
    )
    assert not status, error
    assert len(json.loads(out.read_text())['annotations']) == 8
    assert json.loads(out.with_suffix('.report.json').read_text())['other_class'] == 0


def test_pictures_that_cannot_be_read(tool, small_detector, images, tmp_path):
    (tmp_path / 'data/images/0.png').write_bytes(b'no picture')
    options = ('--out', tmp_path / 'pseudo.json', '--class-agnostic', '--score-thr', '0.005')
    config = tmp_path / 'detector.py'  # the second run goes on where the first one ended
    Config(small_detector).dump(str(config))
    arguments = (config, tmp_path / 'weights.pth', *images, *options)
    status, _, error = tool('dataset_converters/pseudo_boxes.py', *arguments)
    assert status == 2 and 'the image' in error and '0.png is not an image' in error
    status, said, error = tool('dataset_converters/pseudo_boxes.py', *arguments, '--max-bad', '1')
    assert not status, error
    assert ' boxes in 1 images (' in said and '; 1 images cannot be read and 0 had no box' in said


def test_a_zero_shot_detector_looks_for_classes_given_as_text(tool, small_detector, images, tmp_path):
    detector, encoder = dict(small_detector['model']), {'type': 'florence_mm.CoSwin', 'arch': 'micro', 'img_size': 32}
    refused = ('dataset_converters/pseudo_boxes.py', small_detector, tmp_path / 'weights.pth', *images)
    status, _, error = tool(*refused, '--out', tmp_path / 'a.json', '--classes', 'red, blue')
    assert status == 2 and 'this one has fixed classes; leave it out' in error
    detector['bbox_head'] = {**detector['bbox_head'], 'num_classes': 1}
    text = {'type': 'florence_mm.CLIPTextTower', 'arch': 'micro', 'vocab_size': 600}
    tokenizer = {'type': 'florence_mm.CLIPTokenizer', 'vocab_size': 600}
    towers = {'type': 'florence_mm.UniCL', 'image_encoder': {**encoder, 'patch_size': 4}, 'text_encoder': text,
              'tokenizer': tokenizer, 'embed_dims': 8, 'templates': 'none'}  # fmt: skip
    small_detector['model'] = {
        'type': 'florence_mm.ZeroShotDetector', 'detector': detector, 'classifier': towers, 'crop_size': 32
    }  # fmt: skip
    with DefaultScope.overwrite_default_scope('florence_mm'):
        model = MODELS.build(Config({'model': small_detector['model']}).model)
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'towers.pth')
    common = ('dataset_converters/pseudo_boxes.py', small_detector, tmp_path / 'towers.pth', *images)
    (tmp_path / 'names.txt').write_text('blue\nred\ntench, Tinca tinca\n')
    given = {
        None: ['blue', 'red'],
        'red, Blue,red': ['red', 'Blue'],
        'names.txt': ['blue', 'red', 'tench, Tinca tinca'],
    }
    for number, (classes, names) in enumerate(given.items()):
        out = tmp_path / f'{number}.json'
        options = () if classes is None else ('--classes', classes)
        status, _, error = tool(*common, '--out', out, '--score-thr', '0.001', *options)
        assert not status, error
        report = json.loads(out.with_suffix('.report.json').read_text())
        assert report['classes'] == names and not report['class_agnostic']
        # the boxes of the class that a picture is of are kept, those of others are not
        assert report['other_class'] > 0
        assert {category['name'] for category in json.loads(out.read_text())['categories']} <= {'red', 'Blue'}
    for classes, message in (('green', "no class 'Blue'"), (' , ', 'no class name'), ('no.txt', 'cannot be read')):
        status, _, error = tool(*common, '--out', tmp_path / 'b.json', '--classes', classes)
        assert status == 2 and message in error and error.count('\n') == 1


def test_few_shot_subset(tool, tmp_path):
    write_annotations(tmp_path, 4, ['red', 'green'], 2)
    arguments = (tmp_path / 'annotations.json', '--out', tmp_path / 'few.json', '--shots', '1')
    status, said, error = tool('dataset_converters/few_shot_subset.py', *arguments)
    assert not status, error
    assert len(json.loads((tmp_path / 'few.json').read_text())['images']) == 1
    assert said.strip().endswith('red in 1 images, green in 1 images')


@pytest.mark.parametrize(
    ('name', 'arguments', 'message'),
    [
        ('merge_detection', ['missing.json', '--out', 'a.json'], 'there is no file missing.json'),
        ('few_shot_subset', ['missing.json', '--out', 'a.json'], 'there is no annotation file missing.json'),
        ('crop_boxes', ['missing.json', '.', '--out', 'a'], 'there is no annotation file missing.json'),
        ('pseudo_boxes', ['missing.py', 'w.pth', 'm.jsonl', '--out', 'a.json'], 'there is no manifest m.jsonl'),
        ('prepare_digits', ['--out', 'digits', '--size', '4'], 'size=4 must be at least 8'),
        ('prepare_scenes', ['--out', 'scenes', '--digits', '0', '3'], r'digits=\(0, 3\) of the scenes must be'),
        ('prepare_clips', ['--out', 'clips', '--size', '33'], 'size=33 of the clips must be even'),
    ],
)
def test_bad_input_is_one_sentence(tool, name, arguments, message):
    status, _, error = tool(f'dataset_converters/{name}.py', *arguments)
    assert status == 2
    assert re.match(f'error: {message}', error) and error.count('\n') == 1
