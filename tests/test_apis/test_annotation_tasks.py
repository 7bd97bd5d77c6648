"""A model that answers tasks as a source of annotations, and as what the rounds train."""

import json
import math

import numpy as np
import pytest
import torch
from raw_pairs import picture
from small_tasks import MODEL, PIPELINE, config

from florence_mm.apis.annotation_tasks import TaskSpecialist
from florence_mm.apis.annotation_training import ConfigTrainer, build_models
from florence_mm.curation.annotation import run_annotation
from florence_mm.curation.annotation_items import Item
from florence_mm.curation.annotation_settings import make_annotation_settings
from florence_mm.errors import UsageError
from florence_mm.language.regions import Region, Target
from florence_mm.models.multimodal.protocol import Solved

DOG, SIGN = (0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 1.0, 1.0)
CORNERS = ((0.5, 0.5), (1.0, 0.5), (1.0, 1.0), (0.5, 1.0))
IMAGES = [np.zeros((20, 30, 3), np.uint8), np.zeros((30, 20, 3), np.uint8)]


def saying(monkeypatch, answers, tasks, **options):
    """A specialist whose model gives these answers by task; and the list of all that it is asked."""
    torch.manual_seed(0)
    specialist, asked = TaskSpecialist('florence', config(), tasks=tasks, device='cpu', **options), []

    def solve(tokens, questions, generator=None):
        assert len(questions) <= 16 and all(one.image < len(tokens) for one in questions)
        asked.extend(questions)
        return [Solved('', answers[one.task], (), math.log(0.25)) for one in questions]

    monkeypatch.setattr(specialist._inferencer.model, 'solve', solve)
    return specialist, asked


def test_answers_become_annotations(monkeypatch):
    dogs = Region('dog', boxes=(DOG,), score=0.5), Region('dog', boxes=(SIGN,), score=0.75)
    answers = {
        'caption': Target('a dog'),
        'detection': Target(regions=dogs),
        'ocr_with_region': Target(regions=(Region('12', quad=CORNERS, score=0.5),)),
        'region_proposal': Target(),
    }
    specialist, asked = saying(monkeypatch, answers, ['<CAPTION>', *list(answers)[1:]])
    assert specialist.tasks == tuple(answers)
    found = specialist(IMAGES, [[], []])
    assert (
        found[0]
        == found[1]
        == [
            Item('caption', 'a dog', score=0.25),
            Item('detection', 'dog', DOG, 0.5),
            Item('detection', 'dog', SIGN, 0.75),
            Item('ocr_with_region', '12', SIGN, 0.5, quad=CORNERS),
        ]
    )
    assert [(one.image, one.task) for one in asked[:3]] == [(0, 'caption'), (1, 'caption'), (0, 'detection')]


def test_regions_that_are_known_are_asked_about(monkeypatch):
    answers = {
        'detection': Target(regions=(Region('dog', boxes=(DOG,), score=0.5),)),
        'region_description': Target('a red dog'),
        'region_ocr': Target(''),
        'region_segmentation': Target(regions=(Region(polygons=(CORNERS,), score=0.5),)),
    }
    specialist, asked = saying(monkeypatch, answers, tuple(answers))
    sign = Item('ocr_with_region', '12', SIGN, quad=CORNERS)
    first, second = specialist(IMAGES, [[sign], [Item('caption', 'nothing')]])
    # the dog that it has just found; the text in the picture for the task of texts alone
    assert [(one.image, one.task, one.region) for one in asked if one.region is not None] == [
        (0, 'region_description', DOG),
        (1, 'region_description', DOG),
        (0, 'region_ocr', SIGN),
        (0, 'region_segmentation', DOG),
        (1, 'region_segmentation', DOG),
    ]
    assert first[1] == Item('region_description', 'a red dog', DOG, 0.25) and first[2].drop == 'blank_text'
    assert second[2] == Item('region_segmentation', '', DOG, 0.5, polygons=(CORNERS,))


def test_texts_that_are_known_are_asked_about(monkeypatch):
    answers = {
        'phrase_grounding': Target(regions=(Region('dog', boxes=(DOG,), score=0.5), Region('cat', boxes=(DOG,)))),
        'referring_segmentation': Target(regions=(Region(polygons=(CORNERS,), score=0.5),)),
    }
    known = [
        [
            Item('caption', 'the dog'),
            Item('ocr', 'EXIT'),
            Item('phrase_grounding', 'old dog', DOG, caption='an old dog'),
        ],
        [],
    ]
    specialist, asked = saying(monkeypatch, answers, list(answers))
    found, nothing = specialist(IMAGES, known)
    assert [(one.task, one.text) for one in asked] == [
        ('phrase_grounding', 'an old dog'),
        ('phrase_grounding', 'the dog'),
        ('referring_segmentation', 'old dog'),
        ('referring_segmentation', 'dog'),
    ]
    assert found[2] == Item('phrase_grounding', 'dog', DOG, 0.5, caption='the dog') and nothing == []
    assert found[1].drop == found[3].drop == 'invalid_text'  # a cat in none of the captions
    assert found[-1] == Item('referring_segmentation', '', SIGN, 0.5, caption='dog', polygons=(CORNERS,))
    given, asked = saying(monkeypatch, answers, ['phrase_grounding'], texts=['a dog', 'a sign'])
    given(IMAGES[:1], known[:1])
    assert [one.text for one in asked] == ['an old dog', 'a dog', 'a sign']
    assert given.name != specialist.name


@pytest.mark.parametrize(
    ('options', 'says'),
    [
        ({}, "florence: tasks is empty; name those that are annotated, such as \\['detection'\\]"),
        ({'tasks': 'detection'}, "tasks is 'detection'; give a tuple of names of tasks"),
        ({'tasks': ['detecton']}, "florence: there is no task 'detecton'; did you mean 'detection'"),
        ({'tasks': ['detection'], 'texts': ['dog']}, 'texts is given and no task of detection takes a text'),
        ({'tasks': ['phrase_grounding'], 'texts': 'dog'}, "texts='dog' must be a list of texts"),
        ({'tasks': ['phrase_grounding'], 'texts': [3]}, 'texts has 3, which is no text'),
        ({'tasks': ['phrase_grounding'], 'texts': ['a<sep>']}, 'the mark <sep>'),
    ],
)
def test_what_cannot_be_annotated(options, says):
    with pytest.raises(UsageError, match=says):
        TaskSpecialist('florence', config(), device='cpu', **options)


def test_a_model_that_answers_no_tasks_is_refused():
    captioner = config(heads={'caption': {'type': 'florence_mm.FusionCaptionHead'}})
    with pytest.raises(UsageError, match='does not answer tasks: .*no head that solves tasks'):
        TaskSpecialist('florence', captioner, tasks=['detection'], device='cpu')


# --- rounds -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def annotated(tmp_path_factory):
    """Four pictures with captions, boxes and phrases, and a config that trains the small model on them."""
    folder = tmp_path_factory.mktemp('annotated')
    rows = []
    for number in range(4):
        (folder / f'{number}.jpg').write_bytes(picture(number))
        boxes = [{'text': 'a dog', 'boxes': [list(DOG)]}]
        rows += [
            {'image': f'{number}.jpg', 'task': 'caption', 'answer': 'a dog'},
            {'image': f'{number}.jpg', 'task': 'detection', 'regions': boxes},
            {'image': f'{number}.jpg', 'task': 'phrase_grounding', 'text': 'a dog', 'regions': boxes},
        ]
    (folder / 'tasks.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    cfg = config(text={**MODEL['text'], 'drop_rate': 0.0, 'attn_drop_rate': 0.0})
    manifest = {'type': 'florence_mm.TaskManifest', 'ann_file': 'elsewhere.jsonl', 'pipeline': PIPELINE}
    cfg.train_dataloader = {
        'batch_size': 6,
        'sampler': {'type': 'florence_mm.ResumableSampler', 'shuffle': True},
        'dataset': manifest,
    }
    cfg.optim_wrapper = {'optimizer': {'type': 'AdamW', 'lr': 0.02}}
    cfg.train_cfg = {'by_epoch': True, 'max_epochs': 16}
    cfg.default_scope = 'florence_mm'
    cfg.default_hooks = {'checkpoint': {'type': 'CheckpointHook', 'interval': 8}}
    cfg.test_dataloader |= {'batch_size': 1, 'sampler': {'type': 'florence_mm.ResumableSampler', 'shuffle': False}}
    cfg.test_cfg, cfg.test_evaluator = {}, {'type': 'florence_mm.WrittenBoxes'}
    cfg.dump(folder / 'train.py')
    return folder


def refine(folder, out):
    tasks = ['caption', 'detection', 'phrase_grounding']
    given = {
        'pictures': {'kind': 'tasks', 'path': str(folder / 'tasks.jsonl')},
        'out': str(out),
        'trainer': {
            'kind': 'config',
            'config': str(folder / 'train.py'),
            'specialist': {'kind': 'task', 'tasks': tasks},
        },
        'refine': {'rounds': 2},
        'filter': {'min_score': 0.01},
        'merge': {'add': 0.05},
        'device': 'cpu',
    }
    return run_annotation(make_annotation_settings(given), build_models(given))


def test_the_rounds_train_it_and_annotate_with_it(annotated, tmp_path, monkeypatch):
    monkeypatch.setattr('os.fsync', lambda descriptor: None)
    rounds = refine(annotated, tmp_path / 'whole')
    assert [one.report.content['kinds']['region']['sources']['given']['kept'] for one in rounds] == [4, 4, 4]
    kinds = rounds[2].report.content['kinds']
    for kind in ('text', 'region', 'phrase'):
        assert kinds[kind]['sources']['model']['annotations'] >= 4, kind
    # what it was trained on it says again, so that scores rise above those of given annotations
    scores = {json.loads(line)['task']: json.loads(line) for line in rounds[2].annotations.read_text().splitlines()}
    assert scores['detection']['regions'][0]['score'] > 0.5

    train, ended = ConfigTrainer.__call__, []

    def killed(self, data, where):
        if data.round == 2 and not ended:
            ended.append(data.round)
            raise KeyboardInterrupt
        return train(self, data, where)

    monkeypatch.setattr(ConfigTrainer, '__call__', killed)
    with pytest.raises(KeyboardInterrupt):
        refine(annotated, tmp_path / 'stopped')
    again = refine(annotated, tmp_path / 'stopped')
    for one, other in zip(rounds, again, strict=True):
        assert one.annotations.read_bytes() == other.annotations.read_bytes()
        assert one.dropped.read_bytes() == other.dropped.read_bytes()
