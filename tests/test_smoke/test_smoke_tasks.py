from pathlib import Path

import pytest
from mmengine.config import Config

from florence_mm import datasets
from florence_mm.datasets.task_sources import AnnotatedTasks
from florence_mm.language.tasks import TaskFormat
from florence_mm.registry import DATASETS
from florence_mm.smoke.stand_ins import generate

CONFIGS = Path(__file__).parents[2] / 'configs/_base_/datasets'
PIPELINE = [{'type': 'florence_mm.LoadImage'}, {'type': 'florence_mm.PackTask'}]
SOURCES = [
    cls
    for cls in vars(datasets).values()
    if isinstance(cls, type) and issubclass(cls, AnnotatedTasks) and cls is not AnnotatedTasks
]
GIVEN = {'RefCocoTasks': {'split': 'testA', 'ref_file': 'refs(unc).p'}, 'SceneTextTasks': {'split': 'val'}}


@pytest.mark.parametrize('name, task', [(cls.__name__, task) for cls in SOURCES for task in cls.tasks])
def test_every_source_of_tasks_has_generated_data(name, task, tmp_path):
    config = {'type': f'florence_mm.{name}', 'task': task, 'ann_file': 'a', 'pipeline': PIPELINE, 'test_mode': True}
    dataset = DATASETS.build(generate({**config, **GIVEN.get(name, {})}, tmp_path, 'dataset'))
    assert len(dataset) >= 4
    for index in range(len(dataset)):
        packed = dataset[index]
        sample = packed['data_samples']
        assert sample.task == task and packed['inputs'].shape[0] == 3
        # what is written can be read, and says as much as the answer
        parsed = TaskFormat().parse(task, sample.text)
        assert not parsed.faults and len(parsed.target.regions) == len(sample.gt_target.regions)
        assert sample.text and parsed.target.text == sample.gt_target.text


def test_sources_are_these():
    assert {cls.__name__ for cls in SOURCES} == {
        'CocoTasks',
        'RefCocoTasks',
        'Flickr30kEntitiesTasks',
        'VisualGenomeTasks',
        'SceneTextTasks',
    }


def test_the_embedded_mixture_builds(tmp_path):
    cfg = Config.fromfile(CONFIGS / 'large_digit_tasks.py')
    train = DATASETS.build(generate(cfg.train_dataloader.dataset, tmp_path / 'train', 'train'))
    tasks = {train[index]['data_samples'].task for index in range(len(train))}
    assert tasks == {
        'caption',
        'detection',
        'region_category',
        'phrase_grounding',
        'referring_segmentation',
        'ocr_with_region',
    }
    tested = DATASETS.build(generate(cfg.val_dataloader.dataset, tmp_path / 'val', 'val'))
    packed = tested[0]
    assert packed['inputs'].shape == (3, 64, 64) and packed['data_samples'].texts
