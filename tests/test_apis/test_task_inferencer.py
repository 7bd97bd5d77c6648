"""Tasks on a user's files: what is asked, plain results in pixels, drawings, and the command."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from small_tasks import DATASET, PIPELINE, config

from florence_mm.apis import TaskInferencer
from florence_mm.apis.setup import TestData
from florence_mm.commands import solve as command
from florence_mm.errors import UsageError
from florence_mm.language.regions import Region, Target
from florence_mm.language.spacing import join_punctuation
from florence_mm.models.multimodal.protocol import Solved
from florence_mm.visualization.regions import draw_regions


@pytest.fixture
def inferencer(monkeypatch):
    torch.manual_seed(0)
    return TaskInferencer(config(), device='cpu')


def picture(seed=0, shape=(40, 80)):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def says(inferencer, monkeypatch, *targets, faults=()):
    """Let the model say these answers, and keep what it is asked."""
    asked = []

    def solve(tokens, questions, generator=None):
        asked.extend(questions)
        return [Solved('as written', target, faults, -0.5) for target in targets]

    monkeypatch.setattr(inferencer.model, 'solve', solve)
    return asked


def test_what_the_model_writes(inferencer):
    images = [picture(0), picture(1)]
    together = inferencer(images, '<OD>')
    for image, result in zip(images, together, strict=True):
        assert (result['file'], result['width'], result['height'], result['task']) == (None, 80, 40, 'detection')
        assert set(result) == {'file', 'width', 'height', 'task', 'regions', 'written', 'score', 'faults'}
        (alone,) = inferencer([image], 'detection')
        assert alone == result
    (caption,) = inferencer([images[0]], 'caption')
    assert caption['answer'] == join_punctuation(caption['written']) and 'regions' not in caption


def test_texts_have_the_usual_spacing(inferencer, monkeypatch):
    says(inferencer, monkeypatch, Target("two digits : a nine , the dog ' s"))
    (result,) = inferencer([picture()], 'caption')
    assert (result['answer'], result['written']) == ("two digits: a nine, the dog's", 'as written')
    says(inferencer, monkeypatch, Target(regions=(Region("the dog ' s ear", boxes=((0.25, 0.5, 0.75, 1.0),)),)))
    (result,) = inferencer([picture()], 'dense_region_caption')
    assert [region['text'] for region in result['regions']] == ["the dog's ear"]


def test_places_are_in_pixels_of_the_picture(inferencer, monkeypatch):
    target = Target(
        regions=(
            Region('dog', boxes=((0.25, 0.5, 0.75, 1.0),), score=0.123456),
            Region('12', quad=((0.0, 0.0), (0.5, 0.0), (0.5, 0.5), (0.0, 0.5)), score=0.5),
            Region('', polygons=(((0.1, 0.2), (0.3, 0.2), (0.3, 0.4)),), score=1.0),
        )
    )
    asked = says(inferencer, monkeypatch, target, faults=('something is left out',))
    (result,) = inferencer(picture(), 'open_vocabulary_detection', text='dog')
    assert result['regions'] == [
        {'text': 'dog', 'score': 0.1235, 'box': [20.0, 20.0, 60.0, 40.0]},
        {'text': '12', 'score': 0.5, 'quad': [[0.0, 0.0], [40.0, 0.0], [40.0, 20.0], [0.0, 20.0]]},
        {'text': '', 'score': 1.0, 'polygons': [[[8.0, 8.0], [24.0, 8.0], [24.0, 16.0]]]},
    ]
    assert result['text'] == 'dog' and result['faults'] == ['something is left out'] and result['score'] == -0.5
    assert (asked[0].task, asked[0].text, asked[0].region) == ('open_vocabulary_detection', 'dog', None)


def test_a_region_is_asked_as_fractions_of_each_picture(inferencer, monkeypatch):
    asked = says(inferencer, monkeypatch, Target('dog'))
    results = inferencer([picture(), picture(1, (20, 20))], 'region_category', region=(10, 10, 20, 40))
    assert asked[0].region == (0.125, 0.25, 0.25, 1.0) and results[0]['answer'] == 'dog'
    assert results[0]['region'] == [10.0, 10.0, 20.0, 40.0]
    sentence = 'the region (10.0, 10.0, 20.0, 40.0) is outside the picture of 20 x 20 pixels; give one within it'
    assert results[1]['error'].endswith(sentence)


@pytest.mark.parametrize(
    ('question', 'message'),
    [
        ({'task': 'detecton'}, "there is no task 'detecton'; did you mean 'detection'"),
        ({'task': 'detection', 'text': 'dog'}, "detection takes nothing and got a text, 'dog'; leave it out"),
        ({'task': 'region_ocr'}, 'region_ocr takes a region and got none; give one'),
        ({'task': 'region_ocr', 'region': (5, 5, 5, 9)}, 'give x0 y0 x1 y1 in pixels, with x0 < x1 and y0 < y1'),
        ({'task': 'region_ocr', 'region': 'all'}, "the region is 'all'; give x0 y0 x1 y1"),
    ],
)
def test_what_cannot_be_asked(inferencer, question, message):
    with pytest.raises(UsageError, match=message):
        inferencer(picture(), **question)


def test_answers_are_drawn_and_written(inferencer, monkeypatch, tmp_path):
    Image.fromarray(np.zeros((40, 80, 3), np.uint8)).save(tmp_path / 'black.png')
    outline = ((0.5, 0.5), (1.0, 0.5), (1.0, 1.0), (0.5, 1.0))
    drawn = {}
    for name, task, region in (
        ('box', 'detection', Region('dog', boxes=((0.5, 0.5, 1.0, 1.0),), score=0.9)),
        ('outline', 'referring_segmentation', Region(polygons=(outline,), score=0.9)),
        ('quad', 'ocr_with_region', Region('12', quad=outline, score=0.9)),
    ):
        says(inferencer, monkeypatch, Target(regions=(region,)))
        given = {'text': 'the dog'} if task.startswith('referring') else {}
        (result,) = inferencer(tmp_path / 'black.png', task, **given, out_dir=tmp_path / name)
        drawn[name] = np.array(Image.open(tmp_path / name / result['picture']))
        (saved,) = json.loads((tmp_path / name / 'tasks.json').read_text())['images']
        assert saved == result
    for name, image in drawn.items():
        assert image.shape == (240, 480, 3)  # six times as large, so that labels can be read
        assert not image[:100, :200].any(), name  # where there is nothing
        assert bool(image[150:225, 255:465].any()) == (name != 'box'), name  # inside, what has an outline is filled
        assert image[120:123, 300:400].any(), name
    says(inferencer, monkeypatch, Target('a dog'))
    inferencer(tmp_path / 'black.png', 'region_category', region=(10, 10, 20, 20), out_dir=tmp_path / 'text')
    assert np.array(Image.open(tmp_path / 'text' / 'black.png')).shape[1] == 320


def test_the_region_that_is_asked_about_has_a_colour_of_its_own_and_no_label():
    black, region = np.zeros((480, 480, 3), np.uint8), [100, 100, 200, 200]
    asked = draw_regions(black, [], region)
    drawn = np.argwhere(asked.any(2))
    assert drawn.min() >= 97 and drawn.max() <= 203  # the lines alone
    answer = draw_regions(black, [{'text': '', 'box': region}])
    assert answer[100, 150].any() and asked[100, 150].any() and (answer[100, 150] != asked[100, 150]).any()
    scored = draw_regions(black, [{'text': '', 'score': 0.5, 'box': region}])
    assert scored[:95].any()  # its score


def test_a_model_that_solves_no_tasks_is_refused():
    captioner = config(heads={'caption': {'type': 'florence_mm.FusionCaptionHead'}})
    with pytest.raises(ValueError, match='no head that solves tasks, it has caption; name one in its config'):
        TaskInferencer(captioner, device='cpu')


def test_the_command(tmp_path, capsys):
    from argparse import ArgumentParser

    parser = ArgumentParser()
    command.COMMAND.add_own(parser)
    args = parser.parse_args(['a.png', '--task', 'region_ocr', '--region', '1', '2', '3', '4'])
    command.check(args)
    assert args.region == [1.0, 2.0, 3.0, 4.0]
    with pytest.raises(UsageError, match='detection takes nothing and got a region'):
        command.check(parser.parse_args(['a.png', '--task', 'detection', '--region', '1', '2', '3', '4']))
    command.show(
        {
            'file': 'a.png',
            'regions': [{'text': 'dog', 'score': 0.5, 'box': [1.0, 2.0, 3.0, 4.0]}],
            'faults': ['the rest is left out'],
        }
    )
    assert capsys.readouterr().out == 'a.png:\n  0.50 dog [1.0, 2.0, 3.0, 4.0]\n  (the rest is left out)\n'


@pytest.mark.parametrize(
    'wrapped', [[DATASET, DATASET], [{'dataset': DATASET, 'weight': 2}]], ids=['joined', 'mixture']
)
def test_a_test_of_several_data_sets_has_the_pipeline_of_the_first(wrapped):
    assert TestData({'type': 'mmengine.ConcatDataset', 'datasets': wrapped}, 'image').pipeline == PIPELINE
    with pytest.raises(UsageError, match='has no pipeline'):
        TestData({'type': 'mmengine.ConcatDataset', 'datasets': []}, 'image')
