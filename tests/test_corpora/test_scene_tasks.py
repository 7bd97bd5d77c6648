import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from florence_mm.corpora.scene_captions import make_captions, make_phrased_captions
from florence_mm.corpora.scene_facts import Scene, SceneDigit, read_scenes
from florence_mm.corpora.scene_tasks import FILES, TaskOptions, make_task_rows, referring_phrases, write_tasks
from florence_mm.corpora.scenes import SceneOptions, write_scenes
from florence_mm.errors import DataError
from florence_mm.formats.rows import read_rows
from florence_mm.formats.tasks import parse_task_row
from florence_mm.language.regions import Region

TOOL = Path(__file__).parents[2] / 'tools/dataset_converters/prepare_tasks.py'
OPTIONS = SceneOptions(train=30, test=12, size=64, digits=(1, 3), heights=(0.35, 0.55), seed=1, outlines=True)


def digit(label, left, colour=None, box=(20, 30), order=0):
    x, y = left, 10
    corners = ((x, y), (x + box[0], y), (x + box[0], y + box[1]), (x, y + box[1]))
    speck = ((x, y), (x + 2, y), (x + 2, y + 2))
    return SceneDigit(label, (x, y, *box), colour, (corners, speck), corners, order)


@pytest.fixture
def scene():
    """A red two, a green two and a pale five, from the left."""
    digits = (digit(2, 0, 'red', order=1), digit(2, 30, 'green', order=0), digit(5, 60, None, (40, 60), order=2))
    return Scene(7, '000007.png', 100, 80, digits)


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    out = tmp_path_factory.mktemp('outlined')
    write_scenes(out, OPTIONS)
    return out


def rows(scene, name, options=None):
    return list(make_task_rows([scene], name, 'train', options or TaskOptions()))


def test_phrases_fit_one_digit_alone(scene):
    assert referring_phrases(scene) == {
        # not the two, of which there are two, nor the red digit, as the five could be called red too
        0: ['the red two', 'the leftmost digit'],
        1: ['the green two'],
        2: ['the five', 'the rightmost digit', 'the largest digit'],
    }
    pale = digit(2, 60)
    # a pale two could be called red
    assert referring_phrases(Scene(1, '', 100, 80, (digit(2, 0, 'red'), pale))) == {
        0: ['the leftmost digit'],
        1: ['the rightmost digit'],
    }
    alone = Scene(1, '', 100, 80, (digit(8, 0, 'blue'),))
    assert referring_phrases(alone) == {0: ['the eight', 'the blue eight']}
    assert referring_phrases(Scene(1, '', 100, 80, ())) == {}


def test_rows_of_a_scene_by_hand(scene):
    (row,) = rows(scene, 'detection')
    assert row.regions == (
        Region('two', boxes=((0.0, 0.125, 0.2, 0.5),)),
        Region('two', boxes=((0.3, 0.125, 0.5, 0.5),)),
        Region('five', boxes=((0.6, 0.125, 1.0, 0.875),)),
    )
    (row,) = rows(scene, 'dense_region_caption')
    assert [region.text for region in row.regions] == ['a red two', 'a green two', 'a five']
    assert [(row.region, row.answers) for row in rows(scene, 'region_category')][1:] == [
        ((0.3, 0.125, 0.5, 0.5), ('two',)),
        ((0.6, 0.125, 1.0, 0.875), ('five',)),
    ]
    # in reading order, with the digits as they are written
    (row,) = rows(scene, 'ocr_with_region')
    assert [region.text for region in row.regions] == ['2', '2', '5']
    assert row.regions[0].quad == ((0.3, 0.125), (0.5, 0.125), (0.5, 0.5), (0.3, 0.5))
    # the speck is left out of an outline
    outline = ((0.0, 0.125), (0.2, 0.125), (0.2, 0.5), (0.0, 0.5))
    assert [row.regions for row in rows(scene, 'region_segmentation')][0] == (Region(polygons=(outline,)),)
    found = {row.text: row.regions for row in rows(scene, 'referring_segmentation')}
    assert len(found) == 3 and found['the green two'][0].polygons[0][0] == (0.3, 0.125)
    found = {row.text: row.regions for row in rows(scene, 'referring')}
    assert found['the green two'] == (Region('the green two', boxes=((0.3, 0.125, 0.5, 0.5),)),)


def test_phrases_of_captions(scene):
    said = {}
    for seed in range(40):
        (row,) = rows(scene, 'phrase_grounding', TaskOptions(seed=seed))
        said[row.text] = [(region.text, len(region.boxes)) for region in row.regions]
    assert said['there are two twos and a five'] == [('two twos', 2), ('a five', 1)]
    # equal phrases are one, with the boxes of both
    assert said['a two, a two and a five.'] == [('a two', 2), ('a five', 1)]
    assert said['a red two, a green two and a five on a dark background'] == [
        ('a red two', 1),
        ('a green two', 1),
        ('a five', 1),
    ]
    assert said['three digits from a two on the left to a five on the right'] == [('a two', 1), ('a five', 1)]
    assert len(said) == 7
    # captions are their phrases, one after the other
    for seed in range(5):
        texts = make_captions(np.random.default_rng(seed), scene)
        phrased = make_phrased_captions(np.random.default_rng(seed), scene)
        assert texts == [''.join(phrase.text for phrase in caption) for caption in phrased]


def test_scenes_without_digits():
    empty = Scene(3, '000003.png', 64, 64, ())
    assert [rows(empty, name)[0].regions for name in ('detection', 'ocr_with_region', 'dense_region_caption')] == [
        ()
    ] * 3
    assert 'no digits' in rows(empty, 'caption')[0].answers
    for name in ('region_category', 'phrase_grounding', 'referring', 'referring_segmentation', 'region_segmentation'):
        assert rows(empty, name) == []


def test_files_are_read_again_and_mended(scenes, tmp_path):
    assert write_tasks(scenes, tmp_path) == (18, 18)
    options = TaskOptions()
    drawn = read_scenes(scenes / 'annotations/test.json')
    for name in FILES:
        written = list(make_task_rows(drawn, name, 'test', options))
        found = [parse_task_row(raw) for _, raw in read_rows(tmp_path / f'test_{name}.jsonl')]
        assert len(found) == len(written) > 8
        for row, other in zip(written, found, strict=True):
            assert (row.image, row.task, row.text, row.answers) == (other.image, other.task, other.text, other.answers)
            for region, again in zip(row.regions, other.regions, strict=True):
                assert region.text == again.text
                for shape in ('boxes', 'polygons'):
                    for one, two in zip(getattr(region, shape), getattr(again, shape), strict=True):
                        np.testing.assert_allclose(one, two, atol=5.1e-6)
    assert write_tasks(scenes, tmp_path) == (0, 18)
    (tmp_path / 'train_caption.jsonl').write_text('{}')
    assert write_tasks(scenes, tmp_path) == (1, 18)
    # another seed has other captions and phrases, and the same boxes
    assert write_tasks(scenes, tmp_path, TaskOptions(seed=1))[0] == 8


def test_outlines_of_answers_are_short_and_near(scenes):
    drawn = read_scenes(scenes / 'annotations/train.json')
    lengths = {}
    for tolerance in (0.0, 1 / 64, 0.05):
        found = [
            row.regions[0] for row in make_task_rows(drawn, 'region_segmentation', 'train', TaskOptions(tolerance))
        ]
        lengths[tolerance] = np.mean([sum(map(len, region.polygons)) for region in found])
    assert lengths[0.05] < 13 < lengths[1 / 64] < 20 < lengths[0.0]


def test_what_is_wrong_is_said(scenes, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'no annotations .*train.json; write scenes with tools'):
        write_tasks(tmp_path, tmp_path / 'out')
    write_scenes(tmp_path / 'plain', SceneOptions(train=4, test=2, size=64, digits=(1, 1)))
    with pytest.raises(DataError, match=r'train.json has no outlines; .*prepare_scenes.py --outlines'):
        write_tasks(tmp_path / 'plain', tmp_path / 'out')
    with pytest.raises(ValueError, match='tolerance=0.2 of the tasks must be a fraction of the picture, from 0 to 0.1'):
        TaskOptions(tolerance=0.2)
    with pytest.raises(ValueError, match='seed=-1 of the tasks'):
        TaskOptions(seed=-1)


def test_command(scenes, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', [str(TOOL), '--scenes', str(scenes), '--out', str(tmp_path)])
    runpy.run_path(str(TOOL), run_name='__main__')
    said = capsys.readouterr().out
    assert 'detection                     30 lines for training     12 for testing' in said
    assert 'wrote 18 of 18 files' in said and (tmp_path / 'contact_sheet_test.png').is_file()
    first = json.loads((tmp_path / 'train_detection.jsonl').read_text().splitlines()[0])
    assert set(first) == {'image', 'task', 'regions'} and (scenes / 'train' / first['image']).is_file()
