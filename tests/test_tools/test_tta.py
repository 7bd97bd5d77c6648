"""tools/test.py --tta: several views of each picture, merged."""

import json

import cv2
import pytest
import torch
from mmengine.config import Config

from florence_mm.engine.tta import with_test_time_augmentation

LOAD = [{'type': 'mmdet.LoadImageFromFile'}, {'type': 'mmdet.LoadAnnotations', 'with_bbox': True}]
RESIZE = {'type': 'mmdet.Resize', 'scale': (128, 128), 'keep_ratio': True}
PACK = {
    'type': 'mmdet.PackDetInputs',
    'meta_keys': ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction'),
}


def views(sizes, flips):
    resizes = [{**RESIZE, 'scale': (size, size)} for size in sizes]
    flips = [{'type': 'mmdet.RandomFlip', 'prob': float(prob)} for prob in flips]
    return [*LOAD, {'type': 'mmdet.TestTimeAug', 'transforms': [resizes, flips, [PACK]]}]


@pytest.fixture
def config(small_detector):
    small_detector['tta_model'] = {
        'type': 'mmdet.DetTTAModel',
        'tta_cfg': {'nms': {'type': 'nms', 'iou_threshold': 0.6}, 'max_per_img': 20},
    }
    small_detector['tta_pipeline'] = views([128], [0])
    return small_detector


@pytest.fixture
def boxes(tool, tmp_path):
    """Boxes (n, 4), scores and labels of each picture, best first."""

    def run(config, *arguments):
        out = tmp_path / 'predictions.json'
        status, _, error = tool('test.py', config, tmp_path / 'weights.pth', '--out', out, *arguments)
        assert not status, error
        found = [picture['pred_instances'] for picture in json.loads(out.read_text())]
        return [tuple(torch.tensor(picture[key]) for key in ('bboxes', 'scores', 'labels')) for picture in found]

    return run


def test_one_view_is_the_usual_test_with_the_weights_of_the_checkpoint(boxes, config):
    for usual, merged in zip(boxes(config), boxes(config, '--tta'), strict=True):
        assert len(usual[0]) == 20
        for a, b in zip(usual, merged, strict=True):
            torch.testing.assert_close(a, b)


def test_views_of_several_sizes_and_directions_are_merged(boxes, config):
    config['tta_pipeline'] = views([128], [0])
    alone = boxes(config, '--tta')
    config['tta_pipeline'] = views([128, 96], [0, 1])
    for one, several in zip(alone, boxes(config, '--tta'), strict=True):
        # a box of one view goes only where another view's box is better, so the best score cannot fall
        assert several[1][0] >= one[1][0]
        assert len(several[0]) == 20 and several[0].min() >= 0 and several[0].max() <= 160
        assert not torch.equal(one[0], several[0])


def test_a_flipped_view_alone_finds_the_boxes_of_the_mirrored_picture(boxes, config):
    config['tta_pipeline'] = views([128], [1])
    flipped = boxes(config, '--tta')
    folder = config['test_dataloader']['dataset']['data_root']
    for number in range(2):
        file = f'{folder}/images/{number}.png'
        cv2.imwrite(file, cv2.imread(file)[:, ::-1])
    for there, mirrored in zip(flipped, boxes(config), strict=True):
        x1, y1, x2, y2 = mirrored[0].unbind(1)
        torch.testing.assert_close(there[0], torch.stack([160 - x2, y1, 160 - x1, y2], 1), atol=1e-3, rtol=0)
        torch.testing.assert_close(there[1], mirrored[1])


@pytest.mark.parametrize('wrappers', [0, 2])
def test_the_data_set_that_reads_gets_the_views_and_the_config_stays(config, wrappers):
    reading = dict(config['test_dataloader']['dataset'])
    for _ in range(wrappers):
        config['test_dataloader']['dataset'] = {'type': 'mmengine.RepeatDataset', 'times': 1} | {
            'dataset': config['test_dataloader']['dataset']
        }
    cfg = Config(config)
    before = cfg.to_dict()
    made = with_test_time_augmentation(cfg)
    assert cfg.to_dict() == before
    dataset = made.test_dataloader.dataset
    for _ in range(wrappers):
        assert 'pipeline' not in dataset
        dataset = dataset.dataset
    assert dataset.to_dict() == {**reading, 'pipeline': config['tta_pipeline']}
    assert made.model.to_dict() == {**config['tta_model'], 'module': config['model']}


def test_each_part_of_a_concatenation_gets_the_views(config):
    reading = config['test_dataloader']['dataset']
    wrapped = {'type': 'mmengine.RepeatDataset', 'times': 1, 'dataset': reading}
    config['test_dataloader']['dataset'] = {'type': 'mmengine.ConcatDataset', 'datasets': [reading, wrapped]}
    dataset = with_test_time_augmentation(Config(config)).test_dataloader.dataset
    wanted = {**reading, 'pipeline': config['tta_pipeline']}
    assert dataset.to_dict() == {'type': 'mmengine.ConcatDataset', 'datasets': [wanted, {**wrapped, 'dataset': wanted}]}


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'tta_model': None}, 'has no tta_model, which say how'),
        ({'tta_pipeline': None}, 'has no tta_pipeline, which say how'),
        ({'tta_model': None, 'tta_pipeline': None}, 'has no tta_model and no tta_pipeline, which say how'),
        ({'tta_pipeline': [*LOAD, RESIZE, PACK]}, 'no step TestTimeAug'),
    ],
)
def test_a_config_without_views_is_refused(tool, config, tmp_path, change, message):
    status, _, error = tool('test.py', {**config, **change}, tmp_path / 'weights.pth', '--tta')
    assert status == 2 and message in error
