"""Merging, pseudo boxes and few-shot subsets from the command line."""

import json

import pytest

from florence_mm.engine.smoke_detection import write_annotations


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


def test_few_shot_subset(tool, tmp_path):
    write_annotations(tmp_path, 4, ['red', 'green'], 2)
    arguments = (tmp_path / 'annotations.json', '--out', tmp_path / 'few.json', '--shots', '1')
    status, said, error = tool('dataset_converters/few_shot_subset.py', *arguments)
    assert not status, error
    assert len(json.loads((tmp_path / 'few.json').read_text())['images']) == 1
    assert said.strip().endswith('red in 1 pictures, green in 1 pictures')


@pytest.mark.parametrize(
    ('name', 'arguments', 'message'),
    [
        ('merge_detection', ['--out', 'a.json'], 'merge_detection: there is no file missing.json'),
        ('few_shot_subset', ['--out', 'a.json'], 'few_shot_subset: there is no annotation file missing.json'),
        ('pseudo_boxes', ['w.pth', 'm.jsonl', '--out', 'a.json'], 'pseudo_boxes: there is no manifest m.jsonl'),
    ],
)
def test_bad_input_is_one_sentence(tool, name, arguments, message):
    status, _, _ = tool(f'dataset_converters/{name}.py', 'missing.json', *arguments)
    assert str(status).startswith(message) and '\n' not in status
