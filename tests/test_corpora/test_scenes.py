import json
import runpy
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as maskUtils
from pycocotools.coco import COCO
from scipy import ndimage

from florence_mm.corpora.digit_ink import MIN_CONTRAST, draw_ink, ink_colour, tight_box
from florence_mm.corpora.digits import digit_indices, load_digits_split
from florence_mm.corpora.scene_backgrounds import LUMA, make_background
from florence_mm.corpora.scene_outlines import TOLERANCE, ink_outlines, ink_quad, outline_keys, reading_order
from florence_mm.corpora.scenes import (
    MAX_IOU,
    MIN_VISIBLE,
    DataError,
    SceneOptions,
    compose_scene,
    make_scene,
    write_scenes,
)
from florence_mm.language.prompts import get_class_names
from florence_mm.utils.boxes import box_iou

TOOL = Path(__file__).parents[2] / 'tools/dataset_converters/prepare_scenes.py'
OPTIONS = SceneOptions(train=60, test=20, seed=3, held_out=('three', 'seven'))


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    out = tmp_path_factory.mktemp('scenes')
    assert write_scenes(out, OPTIONS) == (143, 143)
    return out


def read(folder, split):
    return json.loads((folder / f'annotations/{split}.json').read_bytes())


def test_box_of_drawn_ink():
    # a square of 4x4 in the middle of the 8x8 image, drawn three times as large around (20, 30): 12x12 pixels
    image = np.zeros((8, 8), dtype=np.float32)
    image[2:6, 2:6] = 1
    alpha = draw_ink(image, 64, height=24, angle=0, shear=0, centre=(20, 30))
    assert tight_box(alpha > 0.5) == (14, 24, 13, 13)
    # turned by a right angle it is the same, and a bar that lay then stands
    bar = np.zeros((8, 8), dtype=np.float32)
    bar[3:5, 1:7] = 1
    lying = tight_box(draw_ink(bar, 64, 24, 0, 0, (32, 32)) > 0.5)
    standing = tight_box(draw_ink(bar, 64, 24, 90, 0, (32, 32)) > 0.5)
    assert lying[2:] == standing[3:1:-1] and lying[2] > 2 * lying[3]
    assert tight_box(np.eye(5, dtype=bool)[:, 1:]) == (0, 1, 4, 4)


def test_files_are_coco_with_boxes_inside_the_picture(scenes):
    labels = {}
    for split in ('train', 'test'):
        labels.update(zip(digit_indices(split).tolist(), load_digits_split(split)[1].tolist(), strict=True))
    empty = 0
    for split, number in (('train', 60), ('test', 20), ('train_base', 60)):
        coco = COCO(str(scenes / f'annotations/{split}.json'))
        assert len(coco.imgs) == number
        counts = Counter(item['image_id'] for item in coco.anns.values())
        assert (min(counts.values()), max(counts.values())) == (3, 7)
        empty += number - len(counts)
        for item in coco.anns.values():
            x, y, width, height = item['bbox']
            assert x >= 1 and y >= 1 and x + width <= 127 and y + height <= 127
            assert item['area'] == width * height and width >= 4 and height >= 8
            assert item['visible'] >= MIN_VISIBLE
            # the class is that of the digit drawn, and the name that of the class
            assert item['category_id'] == labels[item['digit']] + 1
        allowed = set(digit_indices('test' if split == 'test' else 'train'))
        assert {item['digit'] for item in coco.anns.values()} <= allowed
    # some pictures have no objects, and they are listed
    assert 2 <= empty <= 20
    names = [category['name'] for category in coco.loadCats(coco.getCatIds())]
    assert names == ['zero', 'one', 'two', 'four', 'five', 'six', 'eight', 'nine']


def test_held_out_classes_are_not_drawn(scenes):
    base = read(scenes, 'train_base')
    assert {4, 8}.isdisjoint(item['category_id'] for item in base['annotations'])
    assert {4, 8} < {item['category_id'] for item in read(scenes, 'train')['annotations']}
    assert {4, 8} < {item['category_id'] for item in read(scenes, 'test')['annotations']}


def test_a_digit_is_brighter_than_what_is_below():
    colours = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        below = make_background(rng, 64).mean((0, 1))
        colours.append(ink_colour(rng, below))
        assert float(LUMA @ (colours[-1] - below)) >= MIN_CONTRAST
    # in many colours, not only in white
    assert np.std(colours, 0).min() > 0.1
    # and white where nothing is brighter by so much
    np.testing.assert_array_equal(ink_colour(np.random.default_rng(0), np.full(3, 0.9, np.float32)), np.ones(3))


def largest_overlap(objects):
    corners = np.array([(x, y, x + width, y + height) for x, y, width, height in (item.box for item in objects)])
    return np.tril(box_iou(corners, corners), -1).max()


def test_heights():
    # a digit's ink is a little lower than its image of 8x8, by empty rows, and turned
    for heights in ((0.2, 0.2), (0.5, 0.5)):
        options = SceneOptions(digits=(1, 1), heights=heights)
        found = [item.box[3] / 128 for i in range(30) for item in make_scene(options, 'train', i)[1]]
        assert len(found) > 20
        assert heights[0] * 0.8 < np.mean(found) < heights[0] * 1.15 and max(found) < heights[0] * 1.4


def test_visible_ink_and_overlap(monkeypatch):
    images, labels = load_digits_split('train')
    covered = 0
    for seed in range(12):
        picture, objects = compose_scene(np.random.default_rng(seed), images, labels, np.arange(len(labels)), count=6)
        assert picture.shape == (128, 128, 3) and picture.dtype == np.uint8
        assert len(objects) == 6
        covered += sum(item.visible < 1 for item in objects)
        # the bound holds for whole digits; what is covered makes boxes a little smaller
        assert largest_overlap(objects) <= MAX_IOU + 0.1
    assert covered > 5
    monkeypatch.setattr('florence_mm.corpora.scenes.MAX_IOU', 0.0)
    for seed in range(6):
        _, objects = compose_scene(np.random.default_rng(seed), images, labels, np.arange(len(labels)), count=6)
        assert largest_overlap(objects) == 0
    with pytest.raises(DataError, match='80 digits do not fit into a scene of 64x64 pixels'):
        compose_scene(np.random.default_rng(0), images, labels, np.arange(len(labels)), size=64, count=80)


def test_box_is_where_the_picture_differs_from_its_background():
    images, labels = load_digits_split('test')
    for seed in range(10):
        picture, (item,) = compose_scene(np.random.default_rng(seed), images, labels, np.arange(len(labels)), count=1)
        background = np.rint(255 * make_background(np.random.default_rng(seed), 128))
        x, y, width, height = tight_box((picture != background).any(2))
        # within the soft edge
        assert x <= item.box[0] <= x + 4 and y <= item.box[1] <= y + 4
        assert width - 7 <= item.box[2] <= width and height - 7 <= item.box[3] <= height


def test_colour_is_that_of_the_ink(scenes):
    images, labels = load_digits_split('test')
    for seed in range(10):
        picture, (item,) = compose_scene(np.random.default_rng(seed), images, labels, np.arange(len(labels)), count=1)
        # most pixels of a stroke are all ink
        assert (picture == item.colour).all(2).sum() > 40
    content = read(scenes, 'test')
    first = make_scene(OPTIONS, 'test', content['annotations'][0]['image_id'] - 1)[1][0]
    assert content['annotations'][0]['colour'] == list(first.colour)


def test_scenes_depend_on_seed_folder_and_index_alone():
    first, objects = make_scene(OPTIONS, 'train', 7)
    more = SceneOptions(train=9, test=1, seed=3)
    assert np.array_equal(first, make_scene(more, 'train', 7)[0]) and objects == make_scene(more, 'train', 7)[1]
    for other in (
        make_scene(OPTIONS, 'train', 8),
        make_scene(OPTIONS, 'train_base', 7),
        make_scene(SceneOptions(seed=4), 'train', 7),
    ):
        assert not np.array_equal(first, other[0])


def test_second_run_mends_what_is_damaged(scenes):
    assert write_scenes(scenes, OPTIONS) == (0, 143)
    picture = scenes / 'train/000005.png'
    good = picture.read_bytes()
    picture.write_bytes(good[:-9])
    (scenes / 'annotations/test.json').unlink()
    (scenes / 'mine.txt').write_text('x')
    assert write_scenes(scenes, OPTIONS) == (2, 143)
    assert picture.read_bytes() == good
    # an interrupted run has left no record
    (scenes / 'scenes.json').write_text('{"opt')
    assert write_scenes(scenes, OPTIONS) == (0, 143)
    assert not [path for path in scenes.rglob('*') if path.name.endswith('.tmp')]
    assert (scenes / 'mine.txt').exists()


def test_other_options_replace_the_pictures(tmp_path):
    write_scenes(tmp_path, SceneOptions(train=4, test=2))
    assert write_scenes(tmp_path, SceneOptions(train=3, test=2)) == (1, 7)  # train.json alone is another
    assert len(list((tmp_path / 'train').iterdir())) == 3
    write_scenes(tmp_path, SceneOptions(train=3, test=2, size=64))
    assert cv2.imread(str(tmp_path / 'train/000000.png')).shape == (64, 64, 3)


def test_bad_options_have_their_sentence():
    for options, message in (
        ({'train': 0}, 'train=0 of the scenes must be at least 1'),
        ({'size': 32}, 'size=32 of the scenes must be at least 64'),
        ({'digits': (4, 2)}, r'digits=\(4, 2\).*smallest and the largest'),
        ({'heights': (0.4, 0.3)}, r'heights=\(0.4, 0.3\).*least and the greatest'),
        ({'heights': (0.0, 0.3)}, 'from above 0 to 0.7'),
        ({'outlines': 'no'}, "outlines='no' of the scenes must be True or False"),
        ({'held_out': ('tree',)}, "held_out='tree' is not one of the classes zero, one"),
        ({'held_out': tuple(get_class_names('digits'))}, 'names all classes'),
    ):
        with pytest.raises(ValueError, match=message):
            SceneOptions(**options)


def run_tool(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, arguments)])
    runpy.run_path(str(TOOL), run_name='__main__')


def test_command(tmp_path, monkeypatch, capsys):
    arguments = ('--out', tmp_path, '--train', 3, '--test', 2, '--size', 64, '--digits', 1, 2, '--held-out', 'one')
    run_tool(monkeypatch, *arguments)
    said = capsys.readouterr().out
    assert '64x64 pixels, 3 in train/, 2 in test/, 3 in train_base/; wrote 11 of 11 files' in said
    sheet = cv2.imread(str(tmp_path / 'contact_sheet_train_base.png'))
    assert sheet.shape[1] == 3 * (256 + 12) + 12
    run_tool(monkeypatch, *arguments)
    assert 'all 11 files were there already' in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        run_tool(monkeypatch, '--out', tmp_path, '--held-out', 'ten')
    assert stopped.value.code == 2 and "held_out='ten' is not one of" in capsys.readouterr().err


def mask_of(polygons, size):
    return maskUtils.decode(maskUtils.merge(maskUtils.frPyObjects(polygons, size, size)))


def test_outline_of_a_square_and_of_two_parts():
    ink = np.zeros((20, 20), dtype=bool)
    ink[4:10, 3:11] = True  # 8 wide, 6 high
    ink[15:18, 15:18] = True
    large, small = ink_outlines(ink, tolerance=0.1)
    # through the edges of the pixels, but for a sixteenth of a pixel and corners that are cut a little
    for part, box in ((large, (3, 4, 11, 10)), (small, (15, 15, 18, 18))):
        np.testing.assert_allclose([*part.min(0), *part.max(0)], box, atol=0.07)
        x, y = part.T
        area = np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) / 2  # positive: clockwise, as y points down
        assert area == pytest.approx((box[2] - box[0]) * (box[3] - box[1]), rel=0.15)
        assert np.argmin((part - part.min(0)).sum(1)) == 0
    # a hole belongs to the outline, and a single pixel has one
    ring = ink.copy()
    ring[6:8, 5:8] = False
    np.testing.assert_array_equal(ink_outlines(ring, tolerance=0.1)[0], large)
    dot = np.zeros((5, 5), dtype=bool)
    dot[2, 3] = True
    (corners,) = ink_outlines(dot, tolerance=3.0)
    assert len(corners) >= 3 and corners.min() >= 2 and (corners <= (4, 3)).all()


def test_quad_of_a_bar_that_is_turned():
    bar = np.zeros((12, 12), dtype=bool)
    bar[4:6, 2:10] = True
    np.testing.assert_allclose(ink_quad(bar, 0), [[2, 4], [10, 4], [10, 6], [2, 6]])
    # of a bar that was turned by a right angle, counterclockwise, the top left is now at the bottom left
    np.testing.assert_allclose(ink_quad(bar, 90), [[2, 6], [2, 4], [10, 4], [10, 6]], atol=1e-9)
    # a square on its corner: pixels whose corners have |x - 6| + |y - 6| <= 4
    rows, columns = np.indices((12, 12)) + 0.5
    diamond = np.abs(rows - 6) + np.abs(columns - 6) <= 4
    corners = ink_quad(diamond, 45)
    np.testing.assert_allclose(corners.mean(0), [6, 6], atol=1e-9)
    sides = np.linalg.norm(corners - np.roll(corners, -1, 0), axis=1)
    np.testing.assert_allclose(sides, 10 / np.sqrt(2), atol=1e-9)
    # turned counterclockwise by 45 degrees, the top left is the leftmost
    assert np.argmin(corners[:, 0]) == 0 and np.argmin(corners[:, 1]) == 1


def test_reading_order_is_by_lines():
    def square(x, y, side=4):
        return np.array([[x, y], [x + side, y], [x + side, y + side], [x, y + side]])

    # two lines, of which the first slants a little
    shapes = [square(20, 3), square(0, 10), square(10, 1), square(0, 0), square(9, 11)]
    assert reading_order(shapes) == [3, 2, 0, 1, 4]
    assert reading_order([]) == []


def test_outlines_add_keys_and_change_nothing_else(scenes, tmp_path):
    assert write_scenes(tmp_path, SceneOptions(**{**asdict(OPTIONS), 'outlines': True})) == (143, 143)
    for path in scenes.rglob('*.png'):
        assert path.read_bytes() == (tmp_path / path.relative_to(scenes)).read_bytes()
    for split in ('train', 'test', 'train_base'):
        plain, outlined = read(scenes, split), read(tmp_path, split)
        added = [{key: item.pop(key) for key in ('segmentation', 'quad', 'order')} for item in outlined['annotations']]
        assert plain == outlined
        for item, shape in zip(plain['annotations'], added, strict=True):
            x, y, width, height = item['bbox']
            every = np.concatenate([np.reshape(part, (-1, 2)) for part in shape['segmentation']])
            # the outline has the box of the visible ink, to the tolerance
            np.testing.assert_allclose(
                [*every.min(0), *every.max(0)], [x, y, x + width, y + height], atol=TOLERANCE + 0.1
            )
            left, top = np.reshape(shape['quad'], (-1, 2)).min(0)
            assert left <= x + 0.01 and top <= y + 0.01
        orders = {}
        for item, shape in zip(plain['annotations'], added, strict=True):
            orders.setdefault(item['image_id'], []).append(shape['order'])
        assert all(sorted(places) == list(range(len(places))) for places in orders.values())
    # the record without outlines is that of the releases that had none, so that their folders stay as they are
    options = json.loads((scenes / 'scenes.json').read_bytes())['options']
    assert options == {
        'version': 2,
        'train': 60,
        'test': 20,
        'size': 128,
        'digits': [3, 7],
        'heights': [0.17, 0.4],
        'seed': 3,
        'held_out': ['three', 'seven'],
    }
    assert json.loads((tmp_path / 'scenes.json').read_bytes())['options'] == {**options, 'version': 3}


def test_outline_is_that_of_the_visible_ink():
    overlaps, covered = [], 0
    for index in range(12):
        _, objects = make_scene(OPTIONS, 'test', index)
        for item, keys in zip(objects, outline_keys([(one.ink, one.angle) for one in objects]), strict=True):
            assert item.box == tight_box(item.ink)
            covered += item.visible < 1
            # filled, as polygons have no holes; three times as fine, as pycocotools rounds corners to pixels
            filled = ndimage.binary_fill_holes(item.ink, structure=np.ones((3, 3)) * [[0, 1, 0], [1, 1, 1], [0, 1, 0]])
            fine = np.kron(filled, np.ones((3, 3), dtype=bool))
            drawn = mask_of([[3 * value for value in part] for part in keys['segmentation']], 3 * 128)
            overlaps.append((fine & (drawn > 0)).sum() / (fine | (drawn > 0)).sum())
            # all ink is in the rotated rectangle
            rows, columns = np.nonzero(item.ink)
            quad = np.array(keys['quad'], dtype=np.float32).reshape(-1, 2)
            inside = [cv2.pointPolygonTest(quad, (x + 0.5, y + 0.5), True) for x, y in zip(columns, rows, strict=True)]
            assert min(inside) > 0.2
    assert covered > 3 and len(overlaps) > 30
    assert min(overlaps) > 0.87 and np.mean(overlaps) > 0.94
