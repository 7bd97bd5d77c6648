"""Pictures of detection sets: unusable files, other sizes, and sets joined by mmengine's and mmdet's wrappers."""

import json

import cv2
import numpy as np
import pytest
from mmdet.datasets import ConcatDataset as DetectionConcat
from mmengine.dataset import ClassBalancedDataset, ConcatDataset, RepeatDataset
from PIL import Image

from florence_mm.datasets import DetectionDataset
from florence_mm.errors import DataError
from florence_mm.registry import TRANSFORMS

OURS = {'type': 'florence_mm.LoadImage'}
MMDET = {'type': 'mmdet.LoadImageFromFile'}
PACK = {'type': 'mmdet.PackDetInputs', 'meta_keys': ('img_id',)}


def build(folder, name='boxes', pictures=4, annotations=(), pipeline=(MMDET, PACK), size=(40, 30), **settings):
    """A set of pictures of noise, written where they are missing."""
    (folder / name).mkdir(exist_ok=True)
    images = [{'id': i, 'file_name': f'{i}.png', 'width': size[0], 'height': size[1]} for i in range(pictures)]
    for image in images:
        if not (folder / name / image['file_name']).exists():
            noise = np.random.default_rng(image['id']).integers(0, 256, (30, 40, 3), np.uint8)
            cv2.imwrite(str(folder / name / image['file_name']), noise)
    categories = [{'id': 0, 'name': 'cat'}, {'id': -1, 'name': 'dog'}]
    content = {'images': images, 'annotations': list(annotations), 'categories': categories}
    (folder / f'{name}.json').write_text(json.dumps(content))
    pipeline = [TRANSFORMS.build(step) if isinstance(step, dict) else step for step in pipeline]
    return DetectionDataset(str(folder / f'{name}.json'), data_prefix=str(folder / name), pipeline=pipeline, **settings)


def spoil(path, how):
    data = path.read_bytes()
    if how == 'cut jpeg':  # decoders fill the missing end with grey
        data = cv2.imencode('.jpg', cv2.imread(str(path)))[1].tobytes()
    path.write_bytes({'empty': b'', 'text': b'no picture', 'cut png': data[:900], 'cut jpeg': data[:-200]}[how])


SENTENCES = {
    'empty': 'is an empty file',
    'text': 'is not an image, or is damaged',
    'cut png': 'is cut off before its end',
    'cut jpeg': 'is cut off before its end',
}


@pytest.mark.parametrize('loader', [OURS, MMDET, {'type': 'mmcv.LoadImageFromFile', 'imdecode_backend': 'pillow'}])
@pytest.mark.parametrize('how', SENTENCES)
def test_an_unusable_picture_is_named_or_skipped(tmp_path, how, loader):
    dataset = build(tmp_path, pipeline=(loader, PACK))
    spoil(tmp_path / 'boxes/2.png', how)
    assert [dataset[i]['data_samples'].img_id for i in (0, 1, 3)] == [0, 1, 3]
    with pytest.raises(DataError, match=rf'boxes.json, image 2: the image .*boxes/2.png {SENTENCES[how]}'):
        dataset[2]
    skipping = build(tmp_path, pipeline=(loader, PACK), skip_bad={'max': 1})
    assert [skipping[i]['data_samples'].img_id for i in (2, 3, 2)] == [3, 3, 3] and skipping.num_skipped == 1
    spoil(tmp_path / 'boxes/0.png', 'empty')
    with pytest.raises(DataError, match='2 rows are unusable, more than the 1 that skip_bad allows.*0.png is an empty'):
        skipping[0]
    testing = build(tmp_path, pipeline=(loader, PACK), skip_bad={'max': 0.5}, test_mode=True)
    assert [testing[i]['data_samples'].img_id for i in range(len(testing))] == [1, 3]
    assert testing.metainfo['num_skipped'] == 2


def test_other_faults_of_the_pipeline_keep_their_error(tmp_path):
    def broken(results):
        raise RuntimeError('a bug')

    for pipeline in ((broken,), (MMDET, broken)):
        dataset = build(tmp_path, pipeline=pipeline, skip_bad={'max': 3})
        with pytest.raises(RuntimeError, match='a bug'):
            dataset[0]
    # a loader that passes missing files over is not asked for another image in silence
    dataset = build(tmp_path, pipeline=({**MMDET, 'ignore_empty': True}, PACK))
    (tmp_path / 'boxes/1.png').unlink()
    with pytest.raises(DataError, match=r'image 1: the image .*1.png cannot be read \(No such file'):
        dataset[1]


def test_augmentations_may_refuse_an_image(tmp_path):
    def only_odd(results):
        return results if results['img_id'] % 2 else None

    np.random.seed(0)
    dataset = build(tmp_path, pipeline=(MMDET, only_odd, PACK))
    assert {dataset[i]['data_samples'].img_id for i in (0, 1, 2, 3)} <= {1, 3}
    dataset = build(tmp_path, pipeline=(MMDET, lambda results: None))
    with pytest.raises(DataError, match='the pipeline returns None for image after image'):
        dataset[0]


@pytest.mark.parametrize('loader', [OURS, MMDET])
def test_a_picture_must_have_the_size_in_the_file(tmp_path, loader):
    red = Image.new('RGB', (30, 40), 'red')
    exif = red.getexif()
    exif[0x0112] = 8  # to be turned by 90 degrees: 40 wide, 30 high
    dataset = build(tmp_path, pipeline=(loader, PACK))
    red.save(tmp_path / 'boxes/1.png', exif=exif, format='JPEG')
    assert dataset[1]['inputs'].shape == (3, 30, 40)
    red.save(tmp_path / 'boxes/1.png', format='JPEG')
    with pytest.raises(DataError, match='1.png is 30x40 pixels large when upright, but the file says 40x30'):
        dataset[1]
    assert build(tmp_path, pipeline=(loader, PACK), size=(40.0, 30.0))[0]['inputs'].shape == (3, 30, 40)
    assert build(tmp_path, pipeline=(loader, PACK), skip_bad={'max': 1})[1]['data_samples'].img_id == 2


@pytest.mark.parametrize('concat', [ConcatDataset, DetectionConcat])
def test_sets_with_the_same_classes_are_one_training_set(tmp_path, concat):
    boxes = [{'id': 0, 'image_id': 0, 'category_id': 0, 'bbox': [1, 2, 3, 4]}]
    parts = [build(tmp_path, 'a', 2, skip_bad={'max': 1}), build(tmp_path, 'b', 3, boxes)]
    joined = concat(parts)
    assert len(joined) == 5 and joined.metainfo['classes'] == ('dog', 'cat')
    assert [joined[i]['data_samples'].img_id for i in range(5)] == [0, 1, 0, 1, 2]


def test_repeated_and_balanced(tmp_path):
    boxes = [
        {'id': 0, 'image_id': 0, 'category_id': 0, 'bbox': [1, 2, 3, 4]},
        {'id': 1, 'image_id': 1, 'category_id': -1, 'bbox': [1, 2, 3, 4]},
        {'id': 2, 'image_id': 2, 'category_id': -1, 'bbox': [1, 2, 3, 4]},
        {'id': 3, 'image_id': 3, 'category_id': 0, 'bbox': [1, 2, 3, 4], 'ignore': 1},
    ]
    dataset = build(tmp_path, annotations=boxes)
    assert len(RepeatDataset(dataset, times=3)) == 12
    # cat is in one of four images, dog in two: sqrt(0.9 / 0.25) and sqrt(0.9 / 0.5), rounded up, are both 2
    balanced = ClassBalancedDataset(dataset, oversample_thr=0.9)
    assert [balanced[i]['data_samples'].img_id for i in range(len(balanced))] == [0, 0, 1, 1, 2, 2, 3]


def test_regions_to_ignore_are_no_objects(tmp_path):
    flags = [{}, {'ignore': 1}, {'iscrowd': 1}, {'ignore': 0, 'iscrowd': False}, {'ignore': True}, {'ignore': None}]
    boxes = [
        {'id': i, 'image_id': 0, 'category_id': 0, 'bbox': [1, 2, 3 + i, 4], **more} for i, more in enumerate(flags)
    ]
    load = {'type': 'mmdet.LoadAnnotations', 'with_bbox': True}
    sample = build(tmp_path, annotations=boxes, pipeline=(MMDET, load, PACK))[0]['data_samples']
    assert sample.gt_instances.bboxes.tensor.tolist() == [[1, 2, 4, 6], [1, 2, 7, 6], [1, 2, 9, 6]]
    assert sample.ignored_instances.bboxes.tensor.tolist() == [[1, 2, 5, 6], [1, 2, 6, 6], [1, 2, 8, 6]]
