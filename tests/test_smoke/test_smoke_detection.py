"""Generated detection data of --smoke."""

import json

from florence_mm.datasets import DetectionDataset
from florence_mm.smoke.detection import detection, set_smoke_classes, small_pictures


def test_sizes_in_pixels_are_divided_by_one_number():
    pipeline = [
        {'type': 'mmdet.Resize', 'scale': (960, 480), 'keep_ratio': True},
        {'type': 'mmdet.RandomCrop', 'crop_size': (384, 600)},
        {'type': 'mmdet.TestTimeAug', 'transforms': [[{'type': 'mmdet.Resize', 'scale': [(400, 192), (960, 10)]}]]},
        {'type': 'mmdet.Resize', 'scale_factor': 2.0},
    ]
    assert small_pictures(pipeline) == [
        {'type': 'mmdet.Resize', 'scale': (96, 48), 'keep_ratio': True},
        {'type': 'mmdet.RandomCrop', 'crop_size': (38, 60)},
        {'type': 'mmdet.TestTimeAug', 'transforms': [[{'type': 'mmdet.Resize', 'scale': [(40, 19), (96, 1)]}]]},
        {'type': 'mmdet.Resize', 'scale_factor': 2.0},
    ]
    # what is small already stays
    assert small_pictures([{'scale': (64, 32)}]) == [{'scale': (64, 32)}]


def test_the_head_says_how_many_classes_there_are(tmp_path):
    wrapped = {'type': 'mmengine.RepeatDataset', 'times': 2, 'dataset': {'type': 'florence_mm.DetectionDataset'}}
    changed = set_smoke_classes(wrapped, {'bbox_head': {'num_classes': 7}})
    generated = detection(changed['dataset'], tmp_path, 4)
    dataset = DetectionDataset(**{key: value for key, value in generated.items() if key != 'type'})
    assert len(dataset.metainfo['classes']) == 7
    # COCO's small, medium and large, so that no average precision lacks its objects
    areas = {item['area'] for item in json.loads((tmp_path / 'annotations.json').read_text())['annotations']}
    assert min(areas) < 32**2 < sorted(areas)[1] < 96**2 < max(areas)
    # one image was searched for its own classes and the first
    searched = [dataset.get_data_info(i)['annotated_labels'].tolist() for i in range(4)]
    assert searched == [[0, 1, 2], [3, 4, 5], [0, 1, 6], [2, 3, 4]]


def test_a_class_agnostic_data_set_and_a_zero_shot_model_take_any_classes():
    agnostic = {'type': 'DetectionDataset', 'class_agnostic': True}
    assert set_smoke_classes(agnostic, {'bbox_head': {'num_classes': 1}}) == agnostic
    dataset = {'type': 'DetectionDataset'}
    assert set_smoke_classes(dataset, {'detector': {'bbox_head': {'num_classes': 1}}}) == dataset


def test_held_out_classes_are_in_the_file(tmp_path):
    config = {'held_out': ['three'], 'type': 'DetectionDataset', 'smoke_num_classes': 2}
    generated = detection(config, tmp_path, 4)
    dataset = DetectionDataset(**{key: value for key, value in generated.items() if key != 'type'})
    assert len(dataset) == 4 and len(dataset.metainfo['classes']) == 2


def test_classes_that_a_metric_reports_apart_are_there(tmp_path):
    metric = {'type': 'DetectionMetric', 'subsets': {'novel': ['three', 'seven']}}
    changed = set_smoke_classes({'type': 'DetectionDataset'}, {'detector': {}}, [metric])
    dataset = DetectionDataset(**{k: v for k, v in detection(changed, tmp_path, 4).items() if k != 'type'})
    assert dataset.metainfo['classes'][:2] == ('three', 'seven')
