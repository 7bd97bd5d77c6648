"""Generated questions of --smoke, and the configs of multimodal data on it."""

from pathlib import Path

import pytest
from mmengine.config import Config

from florence_mm.datasets import VQADataset
from florence_mm.evaluation import VQAAccuracy
from florence_mm.registry import DATASETS, METRICS
from florence_mm.smoke.questions import questions, set_smoke_answers
from florence_mm.smoke.stand_ins import generate

CONFIGS = Path(__file__).parents[2] / 'configs/_base_/datasets'


def test_the_head_says_how_many_answers_there_are(tmp_path):
    config = {
        'type': 'VQADataset',
        'question_file': 'q',
        'ann_file': 'a',
        'answer_file': 'v',
        'image_slice': (None, -9),
    }
    wrapped = {'type': 'mmengine.ConcatDataset', 'datasets': [config]}
    changed = set_smoke_answers(wrapped, {'heads': {'vqa': {'type': 'FusionVQAHead', 'num_answers': 7}}})
    built = VQADataset(**{k: v for k, v in questions(changed['datasets'][0], tmp_path, 4).items() if k != 'type'})
    assert built.metainfo['answers'] == ('yes', 'no', '2', 'red', 'answer 4', 'answer 5', 'answer 6')
    changed = set_smoke_answers(
        config, {'heads': {'ask': {'type': 'florence_mm.FusionVQAHead', 'answers': ['cat', 'dog']}}}
    )
    built = VQADataset(**{k: v for k, v in questions(changed, tmp_path, 4).items() if k != 'type'})
    assert built.metainfo['answers'] == ('cat', 'dog') and len(built) == 4
    # 7 of ten cat, 2 dog, one something else
    assert built.get_data_info(0)['answer_labels'].tolist() == [0, 1]
    assert built.get_data_info(0)['answer_scores'].tolist() == pytest.approx([1, 0.6])
    # a file of answers need not be there
    model = {'heads': {'vqa': {'type': 'FusionVQAHead', 'answers': 'none/answers.txt'}}}
    assert (
        set_smoke_answers(config, model)['smoke_answers']
        == model['heads']['vqa']['answers']
        == ['yes', 'no', '2', 'red']
    )
    # other models' data stay as they are
    assert set_smoke_answers(config, {'bbox_head': {}}) == config


def test_a_test_set_without_answers_stays_one(tmp_path):
    config = {'type': 'VQADataset', 'question_file': 'q', 'answer_file': 'v', 'test_mode': True}
    built = VQADataset(**{k: v for k, v in questions(config, tmp_path, 4).items() if k != 'type'})
    assert 'answers' not in built.get_data_info(0) and len(built.metainfo['answers']) == 4


@pytest.mark.parametrize(
    'name', ['scene_questions', 'scene_captions', 'vqav2', 'meter_pretrain', 'karpathy_coco', 'karpathy_flickr30k']
)
def test_configs_of_multimodal_data_build(name, tmp_path):
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if loader not in cfg:
            assert name == 'meter_pretrain'
            continue
        dataset = DATASETS.build(generate(cfg[loader].dataset, tmp_path / loader, loader))
        packed = dataset[0]
        size = {'vqav2': 576, 'scene_questions': 80, 'scene_captions': 80}.get(name, 384)
        assert packed['inputs'].shape[1] == size and packed['data_samples'].text
        assert ('question_id' in packed['data_samples']) is (name in ('vqav2', 'scene_questions'))
    for evaluator in ('val_evaluator', 'test_evaluator'):
        if evaluator in cfg:
            metric = METRICS.build(cfg[evaluator])
            assert isinstance(metric, VQAAccuracy) is (name in ('vqav2', 'scene_questions'))
