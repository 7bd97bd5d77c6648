import json
import math
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config

from florence_mm.apis.annotation import (
    CaptionSpecialist,
    DetectorSpecialist,
    GroundingSpecialist,
    RegionClassifier,
    TowerChooser,
)
from florence_mm.apis.annotation_training import CommandTrainer, ConfigTrainer, build_models, make_specialist
from florence_mm.curation.annotation_items import Item
from florence_mm.curation.annotation_parsing import Parse
from florence_mm.curation.annotation_sources import TrainingData
from florence_mm.errors import UsageError
from florence_mm.models.detectors import ZeroShotDetector
from florence_mm.registry import MODELS

ROOT = Path(__file__).parents[2]
world = runpy.run_path(str(ROOT / 'tests/test_models/coloured_boxes.py'))
tiny_meter = runpy.run_path(str(ROOT / 'tests/test_models/tiny_meter.py'))['tiny_meter']
STREET = {'red': (8, 16, 40, 48), 'blue': (64, 24, 96, 72)}  # of 96 x 128 pixels
RED, BLUE = (0.0625, 1 / 6, 0.3125, 0.5), (0.5, 0.25, 0.75, 0.75)
SURE = math.exp(world['TEMPERATURE']) / (math.exp(world['TEMPERATURE']) + 1)


def street():
    return world['picture']((96, 128), **STREET).permute(1, 2, 0).numpy()


def data_of(loader, *steps, pack):
    pipeline = [{'type': loader}, *steps, {'type': pack}]
    return {'dataset': {'type': 'florence_mm.ImageFolderText', 'data_root': 'nowhere', 'pipeline': pipeline}}


def two_towers():
    return world['classifier'](world['Pixels']())


def finder():
    settings = {'type': 'mmdet.DetDataPreprocessor', 'mean': [0.0] * 3, 'std': [1.0] * 3, 'bgr_to_rgb': True}
    model = ZeroShotDetector(
        world['RectangleFinder'](MODELS.build(settings)), two_towers(), crop_size=8, context=(1.0,)
    )
    model.square_crop = False
    return model


def detector():
    pipeline = [{'type': 'mmdet.LoadImageFromFile'}, {'type': 'mmdet.PackDetInputs'}]
    dataset = {'type': 'mmdet.CocoDataset', 'ann_file': 'nowhere.json', 'pipeline': pipeline}
    return Config({'model': {'type': finder}, 'test_dataloader': {'dataset': dataset}})


def towers():
    resize = {'type': 'mmcv.Resize', 'scale': (16, 16)}
    loader = data_of('florence_mm.LoadImage', resize, pack='florence_mm.PackImageText')
    return Config({'model': {'type': two_towers}, 'test_dataloader': loader})


def writer():
    resize = {'type': 'mmcv.Resize', 'scale': (24, 16)}
    heads = {'caption': {'type': 'FusionCaptionHead', 'max_length': 6}}
    loader = data_of('florence_mm.LoadImage', resize, pack='florence_mm.PackImageText')
    return Config({'model': {'type': lambda: tiny_meter(heads)}, 'test_dataloader': loader})


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """Checkpoints of the models whose weights are known by hand, which building one would draw anew."""
    folder = tmp_path_factory.mktemp('weights')
    for name, make in (('towers', two_towers), ('detector', finder)):
        torch.save({'state_dict': make().state_dict(), 'meta': {}}, folder / f'{name}.pth')
    return SimpleNamespace(towers=str(folder / 'towers.pth'), detector=str(folder / 'detector.pth'))


class Words:
    """Takes each word for a noun chunk."""

    name = 'words'

    def __call__(self, texts):
        return [Parse((), tuple(text.split())) for text in texts]


def test_a_detector_gives_boxes_as_fractions(weights):
    specialist = DetectorSpecialist('objects', detector(), weights.detector, classes=['red', 'blue'], device='cpu')
    found = specialist([street(), street()[:, ::-1]], [[], []])
    assert [(item.task, item.text) for item in found[0]] == [('detection', 'red'), ('detection', 'blue')]
    assert [item.box for item in found[0]] == [pytest.approx(RED), pytest.approx(BLUE)]
    assert found[0][0].score == pytest.approx(math.sqrt(0.81 * SURE), abs=1e-4)
    assert found[1][0].box == pytest.approx((1 - RED[2], RED[1], 1 - RED[0], RED[3]))
    assert (
        specialist.name
        != DetectorSpecialist('objects', detector(), weights.detector, classes=['red'], device='cpu').name
    )


def test_noun_chunks_are_looked_for(weights):
    specialist = GroundingSpecialist('phrases', detector(), weights.detector, device='cpu', parser=Words())
    known = [[Item('caption', 'red blue'), Item('detection', 'red', RED)], []]
    first, second = specialist([street(), street()], known)
    assert [(item.text, item.caption, item.task) for item in first] == [
        ('red', 'red blue', 'phrase_grounding'),
        ('blue', 'red blue', 'phrase_grounding'),
    ]
    assert first[1].box == pytest.approx(BLUE) and second == []
    with pytest.raises(UsageError, match='phrases: noun chunks need a parser; add parser='):
        GroundingSpecialist('phrases', detector(), weights.detector, device='cpu')


def test_crops_are_classified_and_compared_with_texts(weights):
    known = [[Item('detection', 'thing', RED), Item('region_proposal', '', RED), Item('detection', 'thing', BLUE)]]
    specialist = RegionClassifier('names', towers(), weights.towers, classes=['blue', 'red'], device='cpu')
    (found,) = specialist([street()], known)
    assert found == [Item('detection', 'red', RED, round(SURE, 4)), Item('detection', 'blue', BLUE, round(SURE, 4))]
    assert RegionClassifier('names', towers(), weights.towers, classes=['blue', 'red'], least=0.9999, device='cpu')(
        [street()], known
    ) == [[]]
    chooser = TowerChooser(towers(), weights.towers, device='cpu')
    image = street()
    nearness = chooser([image[16:48, 8:40], image[24:72, 64:96]], [['red', 'blue'], ['blue']])
    assert nearness[0] == pytest.approx([1, 0], abs=1e-6) and nearness[1] == pytest.approx([1], abs=1e-6)
    with pytest.raises(UsageError, match='names: classes is empty'):
        RegionClassifier('names', towers(), weights.towers, device='cpu')


def test_numbers_out_of_range_are_refused_before_a_model_is_built():
    for make, message in (
        (lambda: DetectorSpecialist('a', 'none.py', score_thr=2), 'a: score_thr=2 must be a number from 0 to 1'),
        (
            lambda: GroundingSpecialist('a', 'none.py', most=0, parser=Words()),
            'a: most=0 must be a whole number from 1',
        ),
        (lambda: RegionClassifier('a', 'none.py', classes=['b'], least=-1), 'a: least=-1 must be a number from 0 to 1'),
    ):
        with pytest.raises(UsageError, match=message):
            make()


def test_captions_of_pictures_and_regions():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    captions = CaptionSpecialist('captions', writer(), device='cpu')
    ((item,), _) = captions([image, image[::-1]], [[], []])
    (said,) = captions._inferencer([image], caption=True)
    assert item == Item('caption', said['caption'], None, math.exp(said['caption_score']))
    regions = CaptionSpecialist('descriptions', writer(), task='region_description', device='cpu')
    assert regions.tasks == ('region_description',) and regions.name != captions.name
    box = (0.5, 0.0, 1.0, 0.5)
    none, (item,) = regions([image, image], [[Item('caption', 'x')], [Item('detection', 'dog', box)]])
    (said,) = captions._inferencer([image[:20, 30:]], caption=True)
    assert none == [] and item == Item('region_description', said['caption'], box, math.exp(said['caption_score']))
    with pytest.raises(UsageError, match="captions: task='detection' is none of caption"):
        CaptionSpecialist('captions', writer(), task='detection', device='cpu')


class Mine:
    """A specialist of the user's own."""

    name, tasks = 'mine 1', ('detection',)

    def __init__(self, source, checkpoint='none', parser=None, tasks=('detection',)):
        self.source, self.checkpoint, self.parser, self.tasks = source, checkpoint, parser, tasks

    def __call__(self, images, known):
        return [[] for _ in images]


def test_specialists_of_a_config(monkeypatch):
    monkeypatch.setitem(sys.modules, 'mine', SimpleNamespace(Mine=Mine))
    models = build_models({'specialists': [{'kind': 'mine:Mine', 'source': 'own', 'checkpoint': 'a'}], 'parser': None})
    (own,) = models.specialists
    assert (own.source, own.checkpoint, models.chooser, models.trainer) == ('own', 'a', None, None)
    words = Words()
    assert make_specialist({'kind': 'mine:Mine'}, 'x', None, words).parser is words


@pytest.mark.parametrize(
    ('config', 'says'),
    [
        ({'specialists': {'kind': 'detector'}}, 'specialists=.* must be a list'),
        ({'specialists': ['detector']}, r"specialists\[0\] is 'detector'; expected a dict"),
        ({'specialists': [{'kind': 'detektor'}]}, "kind='detektor' is no specialist; did you mean 'detector'"),
        ({'specialists': [{'kind': 'detector'}]}, r"specialists\[0\] has no 'model'; add it"),
        (
            {'specialists': [{'kind': 'detector', 'modl': 'x'}]},
            "has 'modl', which is no option of it; did you mean 'model'",
        ),
        ({'specialists': [{'kind': 'no_such_module:f'}]}, 'no_such_module:f cannot be imported'),
        ({'specialists': [{'kind': 'mine:Mine', 'tasks': ['detecton']}]}, "there is no task 'detecton'"),
        ({'specialists': [{'kind': 'mine:Mine', 'tasks': 'detection'}]}, 'give a tuple of names of tasks'),
        (
            {'specialists': [{'kind': 'mine:Mine', 'checkpont': 'x'}]},
            "which is no option of it; did you mean 'checkpoint'",
        ),
        ({'trainer': {'kind': 'conf'}}, "trainer: kind='conf' is none of config, command, and no 'module:function'"),
        ({'trainer': {'kind': 'command', 'command': 'true'}}, "trainer has no 'specialist'; add it"),
    ],
)
def test_models_that_are_refused(monkeypatch, config, says):
    monkeypatch.setitem(sys.modules, 'mine', SimpleNamespace(Mine=Mine))
    with pytest.raises(UsageError, match=says):
        build_models(config)


def test_a_command_trains_once(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'mine', SimpleNamespace(Mine=Mine))
    (tmp_path / 'tasks.jsonl').write_text('{}\n')
    code = 'import sys; open(sys.argv[2] + "/weights", "a").write(sys.argv[1] + sys.argv[3])'
    command = f"{sys.executable} -c '{code}' {{annotations}} {{out}} {{round}}"
    trainer = CommandTrainer(command, {'kind': 'mine:Mine', 'checkpoint': '{out}/weights'})
    data = TrainingData(tmp_path / 'tasks.jsonl', tmp_path, 2)
    for _ in range(2):
        model = trainer(data, tmp_path / 'model')
        assert model.source == 'model' and Path(model.checkpoint).read_text() == f'{data.annotations}2'
    failing = CommandTrainer(f'{sys.executable} -c "raise SystemExit(3)"', {'kind': 'mine:Mine'})
    with pytest.raises(UsageError, match='ended with status 3; mend it'):
        failing(data, tmp_path / 'failing')
    with pytest.raises(UsageError, match='no-such-program cannot be run'):
        CommandTrainer('no-such-program', {'kind': 'mine:Mine'})(data, tmp_path / 'none')
    assert trainer.name != failing.name and json.loads(trainer.name)[0] == command


def test_a_config_must_train_on_one_task_file(tmp_path):
    config = tmp_path / 'mine.py'
    manifest = "dict(type='florence_mm.TaskManifest', ann_file='before.jsonl', data_root='elsewhere')"
    config.write_text(f"train_dataloader = dict(dataset=dict(type='mixture', datasets=[dict(x=1), {manifest}]))\n")
    trainer = ConfigTrainer(str(config), {'kind': 'detector'}, options={'train_dataloader.batch_size': 3})
    cfg = trainer._read(TrainingData(tmp_path / 'kept.jsonl', tmp_path / 'pictures', 1))
    found = cfg.train_dataloader.dataset.datasets[1]
    assert found.ann_file == str(tmp_path / 'kept.jsonl') and found.data_prefix == str(tmp_path / 'pictures')
    assert 'data_root' not in found and cfg.train_dataloader.batch_size == 3
    config.write_text(f'train_dataloader = dict(dataset=dict(datasets=[{manifest}, {manifest}]))\n')
    with pytest.raises(UsageError, match='trains on 2 data sets of the type TaskManifest; give a config'):
        ConfigTrainer(str(config), {'kind': 'detector'})
