import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from mmpretrain.structures import DataSample

from florence_mm.language.regions import Region, Target
from florence_mm.visualization.canvas import INK, SHADE
from florence_mm.visualization.samples import draw_sample, sample_image, sample_lines

TOOL = Path(__file__).parents[2] / 'tools/analysis_tools/browse_dataset.py'
COLOUR = torch.tensor([10, 20, 30], dtype=torch.uint8)


def packed(height=4, width=6):
    return COLOUR[:, None, None].expand(3, height, width)


def test_images_of_all_kinds_of_input():
    frame = packed()
    expected = np.broadcast_to(np.array([10, 20, 30], dtype=np.uint8), (4, 6, 3))
    clip = torch.zeros(2, 3, 5, 4, 6, dtype=torch.uint8)
    clip[0, :, 2] = frame  # the middle frame of the first clip
    for inputs in (frame, frame[None], clip, [frame], {'img': frame}, {'imgs': clip}):
        np.testing.assert_array_equal(sample_image({'inputs': inputs}), expected)
    np.testing.assert_array_equal(sample_image({'img': expected}), expected)
    np.testing.assert_array_equal(sample_image({'inputs': frame}, bgr=True), expected[..., ::-1])
    grey = sample_image({'inputs': torch.arange(6).view(1, 2, 3)})
    assert grey.shape == (2, 3, 3)
    assert grey[..., 0].tolist() == [[0, 51, 102], [153, 204, 255]]
    for data in ({'text': 1}, {'inputs': torch.zeros(7)}, {'inputs': torch.zeros(5, 4, 4)}):
        with pytest.raises(ValueError, match='has no image to draw'):
            sample_image(data)


def test_lines():
    sample = DataSample().set_gt_label([1])
    sample.set_field('a dog', 'text')
    sample.set_field(True, 'augmented')
    sample.set_field(['a dog', 'my dog'], 'texts')
    sample.set_field(0x1234, 'label_key')
    assert sample_lines(sample, ['cat', 'dog']) == [
        'a dog (template)',
        'class: dog',
        'also: my dog',
        'label 0000000000001234',
    ]
    assert sample_lines(DataSample().set_gt_label([5, 0]), ['cat']) == ['class: 5, cat']


def test_boxes_are_drawn_where_they_are():
    sample = DetDataSample()
    # an 80x40 image in 120x120: one and a half times as large, 30 pixels of shade above
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[20.0, 10.0, 60.0, 30.0], [5.0, 5.0, 5.0, 9.0]]), labels=torch.tensor([0, 1])
    )
    picture = draw_sample({'inputs': packed(40, 80), 'data_samples': sample}, ['cat', 'dog'], size=120)
    assert picture.shape == (120 + 76, 120, 3)
    box = (9, 105, 218)
    assert tuple(picture[75, 90]) == box  # right edge at 1.5 * 60, and bottom at 30 + 1.5 * 30
    assert tuple(picture[60, 30]) == box  # left edge at 1.5 * 20
    assert tuple(picture[65, 60]) == (10, 20, 30)
    assert tuple(picture[5, 60]) == SHADE
    # the text below counts both, of which one has no area
    assert (picture[124:140] == INK).all(-1).any()


def test_samples_without_annotations():
    assert draw_sample({'inputs': packed()}).shape == (316, 240, 3)
    assert sample_lines(DataSample()) == []


CONFIG = """
train_dataloader = dict(
    batch_size=2,
    dataset=dict(
        type='florence_mm.ImageTextManifest',
        ann_file={ann_file!r},
        pipeline=[
            dict(type='florence_mm.LoadImage'),
            dict(type='florence_mm.RandomAffineImage', fill=255),
            dict(type='florence_mm.PackImageText'),
        ],
    ),
)
"""


def browse(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, arguments)])
    runpy.run_path(str(TOOL), run_name='__main__')


@pytest.fixture
def config(tmp_path):
    lines = []
    for i in range(5):
        cv2.imwrite(str(tmp_path / f'{i}.png'), np.full((20, 20, 3), 40 * i, dtype=np.uint8))
        lines.append(f'{{"image": "{i}.png", "text": "caption {i}"}}\n')
    (tmp_path / 'm.jsonl').write_text(''.join(lines))
    path = tmp_path / 'config.py'
    path.write_text(CONFIG.format(ann_file=str(tmp_path / 'm.jsonl')))
    return path


def test_browse_dataset(config, tmp_path, monkeypatch, capsys):
    out = tmp_path / 'out'
    browse(monkeypatch, config, '--output-dir', out, '--number', 3, '--start', 1)
    assert sorted(path.name for path in out.iterdir()) == ['000001.png', '000002.png', '000003.png']
    assert '3 pictures of 3 of the 5 samples' in capsys.readouterr().out
    picture = cv2.imread(str(out / '000002.png'))
    assert (picture[120, 120] == 80).all()
    # the same pictures again, also from another start; others with another seed
    first = (out / '000002.png').read_bytes()
    browse(monkeypatch, config, '--output-dir', out, '--number', 1, '--start', 2)
    assert (out / '000002.png').read_bytes() == first
    browse(monkeypatch, config, '--output-dir', out, '--number', 1, '--start', 2, '--seed', 1)
    assert (out / '000002.png').read_bytes() != first


def test_browse_as_a_sheet(config, tmp_path, monkeypatch):
    out = tmp_path / 'out'
    browse(monkeypatch, config, '--output-dir', out, '--contact-sheet', '--repeat', 2, '--columns', 4, '--size', 60)
    assert [path.name for path in out.iterdir()] == ['train.png']
    # five samples twice, in rows of four, 12 pixels apart
    assert cv2.imread(str(out / 'train.png')).shape == (3 * (60 + 76 + 12) + 12, 4 * 72 + 12, 3)


def test_browse_says_what_is_wrong(config, tmp_path, monkeypatch, capsys):
    for arguments, message in (
        (('--phase', 'val'), 'has no val_dataloader'),
        (('--size', 50000), '--size 50000 is more'),
        (('--cfg-options', 'train_dataloader.dataset.type=CoSwin'), 'is not registered in datasets'),
        (('--start', 5), 'leaves nothing to draw; the data set has 5'),
        (('--cfg-options', f'train_dataloader.dataset.ann_file={tmp_path}/none.jsonl'), 'there is no manifest'),
    ):
        with pytest.raises(SystemExit) as info:
            browse(monkeypatch, config, '--output-dir', tmp_path / 'out', *arguments)
        assert info.value.code == 2
        error = capsys.readouterr().err.strip()
        assert message in error
        assert '\n' not in error


def test_browse_never_draws_over_the_images(config, tmp_path, monkeypatch, capsys):
    before = (tmp_path / '1.png').read_bytes()
    (tmp_path / 'link').symlink_to(tmp_path)
    for folder in (tmp_path, tmp_path / 'link'):
        with pytest.raises(SystemExit):
            browse(monkeypatch, config, '--output-dir', folder, '--number', 2)
        assert f'--output-dir {folder} holds the image' in capsys.readouterr().err
    assert (tmp_path / '1.png').read_bytes() == before and not (tmp_path / '000000.png').exists()


def test_regions_of_a_task_are_drawn_where_they_are():
    outline = ((0.6, 0.6), (0.9, 0.6), (0.9, 0.9))
    regions = (Region('a', boxes=((0.1, 0.1, 0.4, 0.4),)), Region(polygons=(outline,)), Region('b', quad=outline))
    sample = DataSample()
    for key, value in {
        'prompt': 'Locate the objects.',
        'text': 'a<loc_1>',
        'gt_target': Target(regions=regions),
        'prompt_region': (0.1, 0.6, 0.4, 0.9),
    }.items():
        sample.set_field(value, key)
    assert sample_lines(sample) == ['Locate the objects.', 'a<loc_1>']
    drawn = draw_sample({'inputs': torch.zeros(3, 50, 50, dtype=torch.uint8), 'data_samples': sample}, size=200)[:200]
    painted = drawn.any(2)
    assert painted[60, 20] and painted[80, 50] and painted[120, 150] and painted[150, 20]  # edges
    assert painted[22, 25]  # the label of the box
    assert not painted[60, 50] and not painted[150, 50] and not painted[160, 130]  # inside, and beside the triangle
