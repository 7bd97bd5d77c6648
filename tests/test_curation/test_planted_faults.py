"""projects/refined_annotations: planted faults, the model that looks at regions again, and how it is measured."""

import importlib
import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from florence_mm.corpora.scene_facts import Scene, SceneDigit
from florence_mm.curation.annotation_items import Item
from florence_mm.curation.annotation_sources import TrainingData
from florence_mm.formats.tasks import TaskRow, task_line
from florence_mm.language.regions import Region
from florence_mm.utils.boxes import box_iou

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    names = ('faults', 'region_model', 'compare')
    return SimpleNamespace(**{name: importlib.import_module(f'projects.refined_annotations.{name}') for name in names})


def scenes(count):
    """Scenes of 64 pixels with two digits each, apart from each other."""
    rng = np.random.default_rng(0)
    places = [((4 + 3 * (n % 3), 6, 20, 24), (36, 30 + n % 5, 18, 24)) for n in range(count)]
    labels = rng.integers(0, 10, (count, 2)).tolist()
    return [
        Scene(n, f'{n}.png', 64, 64, tuple(SceneDigit(label, box, None) for label, box in zip(*one, strict=True)))
        for n, one in enumerate(zip(labels, places, strict=True))
    ]


def test_a_share_of_the_regions_gets_faults(project):
    truth = project.faults.true_rows([*scenes(50), Scene(50, '50.png', 64, 64, ())])
    assert len(truth) == 50 and truth[0].regions[0].boxes[0] == (4 / 64, 6 / 64, 24 / 64, 30 / 64)
    planted = project.faults.plant_faults(truth, 0.3, 1)
    kinds = [fault for each in planted.faults for fault in each]
    assert (kinds.count('shifted'), kinds.count('renamed'), kinds.count(None)) == (15, 15, 70)
    for row, before, faults in zip(planted.rows, truth, planted.faults, strict=True):
        for region, right, fault in zip(row.regions, before.regions, faults, strict=True):
            overlap = box_iou(np.array(region.boxes), np.array(right.boxes))[0, 0]
            assert (region == right) == (fault is None) and (region.text == right.text) == (fault != 'renamed')
            assert 0.05 < overlap < 0.45 if fault == 'shifted' else overlap == pytest.approx(1)
            assert min(region.boxes[0]) >= 0 and max(region.boxes[0]) <= 1
    assert project.faults.plant_faults(truth, 0.3, 1) == planted != project.faults.plant_faults(truth, 0.3, 2)
    with pytest.raises(ValueError, match='share is 1.5; give a share of the regions, from 0 to 1'):
        project.faults.plant_faults(truth, 1.5, 0)


def test_annotations_are_right_one_to_one(project):
    box, moved, far = (0.0, 0.0, 0.4, 0.4), (0.1, 0.0, 0.5, 0.4), (0.2, 0.0, 0.6, 0.4)  # overlaps 1, 0.6, 1 / 3
    truth = [TaskRow('0.png', 'detection', regions=(Region('one', (box,)), Region('two', (box,))))]
    count = lambda *found: project.compare.judge([list(found)], truth)  # noqa: E731
    assert count() == 0
    assert count(('one', moved)) == 1 and count(('three', box)) == 0 and count(('one', far)) == 0
    assert count(('one', moved), ('one', box)) == 1 and count(('two', moved), ('one', box)) == 2
    found = project.compare.measure([[('one', box), ('one', box), ('two', far), ('two', box)]], truth, 4)
    assert found == {'kept': 4, 'precision': 0.5, 'recall': 0.5}


def test_windows_and_edges(project):
    model, boxes = project.region_model, np.array([[0.25, 0.25, 0.5, 0.75]])
    windows = model.windows_around(boxes, 2.0, np.array([[0.5, 0.0]]), np.log(1.5))
    # the side is 0.5, the centre moves by a half of it: 0.625, 0.5; 2 * 1.5 * 0.25 to each side
    np.testing.assert_allclose(windows, [[-0.125, -0.25, 1.375, 1.25]])
    edges = model.edges_in(boxes, windows)
    np.testing.assert_allclose(edges, [[-0.5, -1 / 3, -1 / 6, 1 / 3]])
    np.testing.assert_allclose(model.boxes_from(edges, windows), boxes)
    np.testing.assert_allclose(model.boxes_from(np.array([[-9.0, 9, -9, 9]]), windows), [[0, 0.98, 0.02, 1]])


def test_the_model_finds_names_and_boxes_again(project, tmp_path):
    """Discs and crosses, of which some boxes are shifted and some names are exchanged."""
    rng = np.random.default_rng(0)
    rows, truth = [], []
    for n in range(120):
        image, kind = np.full((64, 64, 3), 40, np.uint8), n % 2
        size, x, y = rng.integers(10, 14), rng.integers(20, 44), rng.integers(20, 44)
        if kind:
            cv2.circle(image, (int(x), int(y)), int(size), (250, 200, 90), 3)
        else:
            for sign in (-1, 1):
                start, end = (int(x - size), int(y - sign * size)), (int(x + size), int(y + sign * size))
                cv2.line(image, start, end, (250, 200, 90), 3)
        cv2.imwrite(str(tmp_path / f'{n}.png'), image)
        box = tuple(value / 64 for value in (x - size, y - size, x + size, y + size))
        truth.append((('cross', 'disc')[kind], box))
        shift = 0.2 if n % 10 == 3 else 0.0
        name = ('cross', 'disc')[kind ^ (n % 10 == 6)]
        shown = tuple(np.clip(np.add(box, (shift, 0, shift, 0)), 0, 1).tolist())
        rows.append(TaskRow(f'{n}.png', 'detection', regions=(Region(name, (shown,)),)))
    path = tmp_path / 'tasks.jsonl'
    path.write_text(''.join(json.dumps(task_line(row)) + '\n' for row in rows))
    options = project.region_model.TrainingOptions(features=300)
    trainer, data = project.region_model.RegionTrainer(options), TrainingData(path, tmp_path, 1)
    model = trainer(data, tmp_path / 'model')
    again = project.region_model.RegionTrainer(options)(data, tmp_path / 'again')
    assert model.name == again.name == trainer(data, tmp_path / 'model').name and model.labels == ['cross', 'disc']
    images = [cv2.imread(str(tmp_path / f'{n}.png'))[..., ::-1].copy() for n in range(120)]
    known = [[Item('detection', row.regions[0].text, row.regions[0].boxes[0]), Item('caption', 'x')] for row in rows]
    found = model(images, known)
    best = [max(items, key=lambda item: item.score) for items in found]
    right = [item.text == name for item, (name, _) in zip(best, truth, strict=True)]
    near = [box_iou(np.array([item.box]), np.array([box]))[0, 0] for item, (_, box) in zip(best, truth, strict=True)]
    assert np.mean(right) >= 0.95 and np.mean(np.array(near) >= 0.5) >= 0.95
    assert model(images[:1], [[]]) == [[]]
