import json
import pickle
from collections import Counter

import cv2
import numpy as np
import pytest
import torch

from florence_mm.config.check import check_config
from florence_mm.datasets import CocoTasks, Flickr30kEntitiesTasks, RefCocoTasks, SceneTextTasks, TaskManifest
from florence_mm.datasets.transforms import PackTask, RandomFlipTask
from florence_mm.errors import DataError, UsageError
from florence_mm.language.regions import Region, Target
from florence_mm.language.tasks import TaskFormat
from florence_mm.registry import DATASETS, TRANSFORMS

BOX = [0.1, 0.2, 0.5, 0.6]
PIPELINE = [{'type': 'LoadImage'}, {'type': 'PackTask', 'format': {'num_bins': 10}}]
CAPTION = {'image': '0.png', 'task': 'caption', 'answers': ['a dog', 'the dog', 'dog']}
DOGS = {'image': '1.png', 'task': 'detection', 'regions': [{'text': 'dog', 'boxes': [BOX]}]}
CATEGORY = {'image': '0.png', 'task': 'region_category', 'region': BOX, 'answer': 'dog'}
PHRASE = {'image': '1.png', 'task': 'phrase_grounding', 'text': 'A dog.', 'regions': [{'text': 'dog', 'boxes': [BOX]}]}


@pytest.fixture
def folder(tmp_path):
    for name in ('0.png', '1.png'):
        cv2.imwrite(str(tmp_path / name), np.full((20, 40, 3), 9, np.uint8))
    return tmp_path


def write(folder, *lines, name='tasks.jsonl'):
    (folder / name).write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return str(folder / name)


def build(folder, *lines, **settings):
    return DATASETS.build({'type': 'TaskManifest', 'ann_file': write(folder, *lines), 'pipeline': PIPELINE, **settings})


def test_samples_by_hand(folder):
    dataset = build(folder, CAPTION, DOGS, CATEGORY, PHRASE, test_mode=True)
    assert isinstance(dataset, TaskManifest) and len(dataset) == 4
    packed = dataset[3]
    assert packed['inputs'].shape == (3, 20, 40) and packed['inputs'].dtype == torch.uint8
    sample = packed['data_samples']
    assert sample.task == 'phrase_grounding'
    assert sample.prompt == 'Locate the phrases in the caption: A dog.'
    assert (sample.prompt_text, sample.prompt_region) == ('A dog.', None)
    assert sample.gt_target == Target(regions=(Region('dog', boxes=(tuple(BOX),)),))
    assert sample.text == 'dog<loc_1><loc_2><loc_5><loc_6>'
    assert sample.ori_shape == (20, 40) and sample.source.endswith('tasks.jsonl, line 4')
    sample = dataset[2]['data_samples']
    assert sample.prompt == 'What is the region <loc_1><loc_2><loc_5><loc_6>?'
    assert (sample.prompt_region, sample.text, sample.texts) == (tuple(BOX), 'dog', ['dog'])
    assert 'texts' not in dataset[1]['data_samples']
    sample = dataset[0]['data_samples']
    assert (sample.text, sample.texts) == ('a dog', ['a dog', 'the dog', 'dog'])


def test_one_of_several_answers_is_drawn_for_training(folder):
    dataset = build(folder, CAPTION, DOGS)
    np.random.seed(0)
    drawn = Counter(dataset[0]['data_samples'].text for _ in range(60))
    assert set(drawn) == set(CAPTION['answers']) and min(drawn.values()) > 8
    assert 'texts' not in dataset[0]['data_samples']
    assert dataset[0]['data_samples'].gt_target.text in CAPTION['answers']


def test_places_stay_where_they_are_in_a_resized_picture(folder):
    small = build(folder, DOGS)[0]
    resized = [PIPELINE[0], {'type': 'florence_mm.Resize', 'scale': (64, 64)}, PIPELINE[1]]
    large = build(folder, DOGS, pipeline=resized)[0]
    assert large['inputs'].shape == (3, 64, 64) and large['data_samples'].ori_shape == (20, 40)
    assert large['data_samples'].text == small['data_samples'].text


def test_pictures_without_objects_and_further_columns(folder):
    dataset = build(folder, {**DOGS, 'regions': [], 'source': 'mine'})
    sample = dataset[0]['data_samples']
    assert (sample.text, sample.gt_target, sample.extra) == ('', Target(), {'source': 'mine'})


def test_order_of_regions_is_that_of_the_format(folder):
    boxes = [[0.6, 0.0, 0.9, 0.2], [0.0, 0.0, 0.2, 0.2], [0.0, 0.5, 0.9, 0.9]]
    line = {**DOGS, 'regions': [{'text': name, 'boxes': [box]} for name, box in zip('abc', boxes, strict=True)]}

    def names(order):
        pipeline = [PIPELINE[0], {'type': 'PackTask', 'format': {'order': order}}]
        text = build(folder, line, pipeline=pipeline)[0]['data_samples'].text
        return ''.join(region.text for region in TaskFormat().parse('detection', text).target.regions)

    assert [names(order) for order in ('reading', 'area', 'given')] == ['bac', 'cab', 'abc']
    np.random.seed(1)
    assert len({names('random') for _ in range(30)}) == 6


def test_faults_have_their_sentence_or_are_skipped(folder):
    bad = {**DOGS, 'regions': [{'text': 'dog', 'boxes': [[0.5, 0.5, 1.5, 0.9]]}]}
    with pytest.raises(DataError, match=r'tasks.jsonl, line 2: regions\[0\].boxes\[0\] .* is outside the picture'):
        build(folder, CAPTION, bad)
    dataset = build(folder, CAPTION, bad, DOGS, skip_bad={'max': 1})
    assert len(dataset) == 2 and dataset.num_skipped == 1
    with pytest.raises(DataError, match='2 rows are unusable, more than the 1 that skip_bad'):
        build(folder, bad, bad, DOGS, skip_bad={'max': 1})
    with pytest.raises(DataError, match='line 1: not a JSON object'):
        (folder / 'broken.jsonl').write_text('{"image"')
        TaskManifest(str(folder / 'broken.jsonl'))
    with pytest.raises(DataError, match='tasks.jsonl has no usable rows'):
        build(folder)
    with pytest.raises(FileNotFoundError, match='there is no manifest'):
        TaskManifest(str(folder / 'none.jsonl'))


def test_missing_pictures(folder):
    gone = {**DOGS, 'image': 'gone.png'}
    with pytest.raises(DataError, match=r'tasks.jsonl, line 2: .*gone.png'):
        build(folder, DOGS, gone)[1]
    dataset = build(folder, DOGS, gone, skip_bad={'max': 1})
    assert dataset[1]['data_samples'].img_path.endswith('1.png') and dataset.num_skipped == 1
    tested = build(folder, DOGS, gone, skip_bad={'max': 1}, test_mode=True)
    assert len(tested) == 1 and tested.metainfo['num_skipped'] == 1


def test_packing_refuses_what_it_cannot_write():
    pack = PackTask(format={'num_bins': 5})
    assert repr(pack).startswith("PackTask(num_bins=5, order='reading', quad_start='top_left'")
    image = {'img': np.zeros((4, 4, 3), np.uint8), 'task': 'caption', 'source': 'a.jsonl, line 3'}
    with pytest.raises(DataError, match='a.jsonl, line 3: .*has the mark <loc_1> in it'):
        pack({**image, 'gt_target': Target('a dog <loc_1>')})
    with pytest.raises(DataError, match='a.jsonl, line 3: region_category takes a region and got none'):
        pack({**image, 'task': 'region_category'})
    with pytest.raises(UsageError, match='PackTask got a sample without an image'):
        pack({'task': 'caption'})
    with pytest.raises(ValueError, match='format=3 must be a dict'):
        PackTask(format=3)
    # without an answer, as an inferencer asks
    sample = pack({**image, 'task': 'referring_segmentation', 'prompt_text': 'the dog'})['data_samples']
    assert sample.prompt == 'Locate the dog in the image with mask' and 'text' not in sample


def test_a_mixture_by_task_with_weights(folder):
    parts = [
        {
            'weight': weight,
            'dataset': {'type': 'TaskManifest', 'ann_file': write(folder, *lines, name=name), 'pipeline': PIPELINE},
        }
        for name, lines, weight in (
            ('captions.jsonl', [CAPTION], 1),
            ('detection.jsonl', [DOGS] * 3, 3),
            ('phrases.jsonl', [PHRASE] * 2, 2),
        )
    ]
    mixture = DATASETS.build({'type': 'WeightedMixture', 'datasets': parts, 'epoch_size': 12})
    tasks = Counter(mixture[index]['data_samples'].task for index in range(len(mixture)))
    assert tasks == {'caption': 2, 'detection': 6, 'phrase_grounding': 4}


COCO = {
    'images': [{'id': i, 'file_name': f'{i}.png', 'width': 40, 'height': 20} for i in (0, 1)],
    'annotations': [
        {'id': 1, 'image_id': 0, 'category_id': 1, 'bbox': [0, 0, 20, 10], 'segmentation': [[0, 0, 20, 0, 20, 10]]},
        {'id': 2, 'image_id': 0, 'category_id': 2, 'bbox': [20, 10, 20, 10]},
        {'id': 3, 'image_id': 0, 'category_id': 1, 'bbox': [20, 0, 20, 10], 'segmentation': [[20, 0, 40, 0, 40, 10]]},
    ],
    'categories': [{'id': 1, 'name': 'dog'}, {'id': 2, 'name': 'cat'}],
}


def coco(folder, task, **settings):
    (folder / 'instances.json').write_text(json.dumps(COCO))
    return CocoTasks(task, 'instances.json', data_root=str(folder), pipeline=PIPELINE, test_mode=True, **settings)


def asked(dataset):
    samples = [dataset[index]['data_samples'] for index in range(len(dataset))]
    return [(sample.prompt_text or sample.prompt_region, sample.text) for sample in samples]


def test_tasks_of_coco_by_hand(folder):
    first, second, third = (
        '<loc_0><loc_0><loc_5><loc_5>',
        '<loc_5><loc_5><loc_9><loc_9>',
        '<loc_5><loc_0><loc_9><loc_5>',
    )
    assert asked(coco(folder, 'detection')) == [(None, f'dog{first}dog{third}cat{second}'), (None, '')]
    assert asked(coco(folder, '<OD>')) == asked(coco(folder, 'detection'))
    assert asked(coco(folder, 'region_proposal'))[0] == (None, first + third + second)
    assert asked(coco(folder, 'open_vocabulary_detection')) == [
        ('dog', f'dog{first}{third}'),
        ('cat', f'cat{second}'),
    ]
    assert asked(coco(folder, 'region_category')) == [
        ((0.0, 0.0, 0.5, 0.5), 'dog'),
        ((0.5, 0.5, 1.0, 1.0), 'cat'),
        ((0.5, 0.0, 1.0, 0.5), 'dog'),
    ]
    # the cat has no outline
    assert asked(coco(folder, 'region_segmentation')) == [
        ((0.0, 0.0, 0.5, 0.5), '<loc_0><loc_0><loc_5><loc_0><loc_5><loc_5>'),
        ((0.5, 0.0, 1.0, 0.5), '<loc_5><loc_0><loc_9><loc_0><loc_9><loc_5>'),
    ]


def test_outlines_get_fewer_corners(folder, monkeypatch):
    corners = [0, 0, 10, 0.1, 20, 0, 20, 10]
    monkeypatch.setitem(COCO['annotations'][0], 'segmentation', [corners])
    plain = coco(folder, 'region_segmentation')[0]['data_samples'].gt_target
    fewer = coco(folder, 'region_segmentation', tolerance=0.01)[0]['data_samples'].gt_target
    assert len(plain.regions[0].polygons[0]) == 4
    np.testing.assert_allclose(fewer.regions[0].polygons[0], [(0, 0), (0.5, 0), (0.5, 0.5)], atol=1e-7)


def test_clipped_places_are_counted(folder, monkeypatch):
    logged = []
    monkeypatch.setattr('florence_mm.datasets.task_sources.print_log', lambda text, **_: logged.append(text))
    monkeypatch.setitem(COCO['annotations'][1], 'bbox', [20, 10, 25, 10])
    coco(folder, 'detection')
    assert [text.split(': ')[1] for text in logged] == [
        '1 boxes or outlines reached out of their picture and were clipped'
    ]


def test_annotations_without_a_row_are_counted(folder, monkeypatch):
    logged = []
    monkeypatch.setattr('florence_mm.datasets.task_sources.print_log', lambda text, **_: logged.append(text))
    assert len(coco(folder, 'region_segmentation')) == 2 and len(coco(folder, 'region_category')) == 3
    assert [text.split(': ')[1] for text in logged] == [
        '1 annotations lack what region_segmentation needs (an outline, a box, words) and have no row'
    ]


def test_a_picture_with_an_unusable_object_is_skipped(folder, monkeypatch):
    monkeypatch.setitem(COCO['annotations'][1], 'bbox', [50, 10, 5, 5])
    with pytest.raises(DataError, match='instances.json, image 0: annotation 2 has the box'):
        coco(folder, 'detection')
    dataset = coco(folder, 'detection', skip_bad={'max': 1})
    assert len(dataset) == 1 and dataset.num_skipped == 1


def test_expressions_captions_and_words(folder):
    sentences = [{'sent': 'the left dog'}, {'sent': 'dog'}]
    refs = [
        {'ref_id': i, 'ann_id': i, 'image_id': 0, 'split': 'val', 'sentences': sentences[:number]}
        for i, number in ((1, 2), (3, 1))
    ]
    (folder / 'refs(unc).p').write_bytes(pickle.dumps(refs, 2))
    (folder / 'instances.json').write_text(json.dumps(COCO))
    shared = {'data_root': str(folder), 'pipeline': PIPELINE, 'test_mode': True}

    def refcoco(task):
        return RefCocoTasks(task, ref_file='refs(unc).p', ann_file='instances.json', split='val', **shared)

    first, third = '<loc_0><loc_0><loc_5><loc_5>', '<loc_5><loc_0><loc_9><loc_5>'
    assert asked(refcoco('phrase_grounding')) == [
        ('the left dog', f'the left dog{first}'),
        ('dog', f'dog{first}'),
        ('the left dog', f'the left dog{third}'),
    ]
    assert asked(refcoco('referring_segmentation'))[2] == ('the left dog', '<loc_5><loc_0><loc_9><loc_0><loc_9><loc_5>')
    described = refcoco('region_description')
    assert [described[i]['data_samples'].texts for i in (0, 1)] == [['the left dog', 'dog'], ['the left dog']]

    for name in ('Sentences', 'Annotations'):
        (folder / name).mkdir()
    (folder / 'Sentences/0.txt').write_text('[/EN#1/animals A dog] runs .\nIt is late .\n')
    size, name = '<size><width>40</width><height>20</height></size>', '<name>1</name>'
    box = '<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>21</xmax><ymax>11</ymax></bndbox>'
    (folder / 'Annotations/0.xml').write_text(f'<annotation>{size}<object>{name}{box}</object></annotation>')
    (folder / 'val.txt').write_text('0\n')
    (folder / '0.png').rename(folder / '0.jpg')
    assert asked(Flickr30kEntitiesTasks('phrase_grounding', 'val.txt', **shared)) == [('A dog runs .', f'A dog{first}')]
    captions = Flickr30kEntitiesTasks('caption', 'val.txt', **shared)
    assert captions[0]['data_samples'].texts == ['A dog runs .', 'It is late .']

    words = {
        'imgs': {'a': {'file_name': '1.png', 'width': 40, 'height': 20, 'set': 'val'}},
        'anns': {
            '1': {'image_id': 'a', 'bbox': [20, 0, 20, 10], 'utf8_string': 'ahead'},
            '2': {'image_id': 'a', 'bbox': [0, 0, 20, 10], 'utf8_string': 'STOP'},
            '3': {'image_id': 'a', 'bbox': [0, 10, 20, 10], 'utf8_string': 'now'},
        },
    }
    (folder / 'words.json').write_text(json.dumps(words))
    (read,) = asked(SceneTextTasks('ocr', 'words.json', **shared))
    assert read == (None, 'STOP ahead now')
    (placed,) = asked(SceneTextTasks('ocr_with_region', 'words.json', split='val', **shared))
    assert placed[1].startswith('STOP<loc_0><loc_0><loc_5><loc_0><loc_5><loc_5><loc_0><loc_5>ahead<loc_5>')
    parsed = TaskFormat(10).parse('ocr_with_region', placed[1])
    assert [region.text for region in parsed.target.regions] == ['STOP', 'ahead', 'now'] and not parsed.faults
    assert len(asked(SceneTextTasks('region_ocr', 'words.json', **shared))) == 3


def test_arguments_that_do_not_fit(folder):
    with pytest.raises(ValueError, match="task='ocr' must be one that the annotations answer: detection, region_prop"):
        coco(folder, 'ocr')
    with pytest.raises(ValueError, match="there is no task 'detecton'; did you mean 'detection'"):
        coco(folder, 'detecton')
    with pytest.raises(ValueError, match='tolerance=3 must be a fraction from 0 to 0.1'):
        coco(folder, 'detection', tolerance=3)
    # the config check knows the arguments that are handed on
    config = {'type': 'florence_mm.CocoTasks', 'task': 'detection', 'ann_file': 'a.json', 'test_moed': True}
    with pytest.raises(UsageError, match='test_moed.*did you mean.*test_mode'):
        check_config({'train_dataloader': {'dataset': config}}, whole=False)


def test_a_mirrored_picture_has_its_places_on_the_other_side():
    image = np.zeros((2, 4, 3), np.uint8)
    image[:, 0] = 255
    corners = ((0.0, 0.0), (0.25, 0.0), (0.25, 1.0))
    sample = {
        'img': image,
        'task': 'region_segmentation',
        'prompt_text': '',
        'prompt_region': (0.0, 0.0, 0.25, 1.0),
        'gt_target': Target(regions=(Region(polygons=(corners,)),)),
    }
    flip = TRANSFORMS.build({'type': 'RandomFlipTask', 'prob': 1})
    found = flip(dict(sample))
    assert found['img'][0, :, 0].tolist() == [0, 0, 0, 255]
    assert found['prompt_region'] == (0.75, 0.0, 1.0, 1.0)
    # still clockwise
    assert found['gt_target'].regions[0].polygons == (((0.75, 1.0), (0.75, 0.0), (1.0, 0.0)),)
    boxed = {**sample, 'task': 'detection', 'prompt_region': None}
    boxed['gt_target'] = Target(regions=(Region('dog', boxes=((0.0, 0.0, 0.25, 1.0), (0.5, 0.0, 1.0, 1.0))),))
    assert flip(dict(boxed))['gt_target'].regions[0].boxes == ((0.75, 0.0, 1.0, 1.0), (0.0, 0.0, 0.5, 1.0))
    for still in (
        {'prompt_text': 'the Leftmost dog'},
        {'gt_target': Target('a dog on the right')},
        {'gt_target': Target(regions=(Region('left ear', boxes=((0.0, 0.0, 0.25, 1.0),)),))},
        {'task': 'ocr_with_region'},
    ):
        assert np.array_equal(flip({**sample, **still})['img'], image)
    assert repr(flip) == 'RandomFlipTask(prob=1)'
    with pytest.raises(ValueError, match='prob=2 must be a probability'):
        RandomFlipTask(2)


def test_steps_that_would_make_places_wrong_are_refused(folder):
    def with_step(line, **step):
        return build(folder, line, pipeline=[PIPELINE[0], step, PIPELINE[1]])[0]

    with pytest.raises(UsageError, match='mirrored without the places of its task; take .*RandomFlipTask'):
        with_step(DOGS, type='mmcv.RandomFlip', prob=1.0)
    crop = {'type': 'florence_mm.RandomResizedCrop', 'scale': 16}
    for line in (DOGS, CATEGORY):
        with pytest.raises(UsageError, match='RandomResizedCrop cannot change the places of a task'):
            with_step(line, **crop)
    assert with_step(CAPTION, **crop)['inputs'].shape == (3, 16, 16)
