from pathlib import Path

import numpy as np
import pytest

from florence_mm.errors import UsageError
from florence_mm.visualization import draw_detections
from florence_mm.visualization.canvas import drawable, font
from florence_mm.visualization.detections import class_colour, place_label

NAMES = ['cat', 'dog', 'bench']
CAT, DOG = class_colour('cat', NAMES), class_colour('dog', NAMES)


def plain(height=500, width=700):
    return np.full((height, width, 3), 128, dtype=np.uint8)


def coloured(picture, colour):
    """Bounds (x1, y1, x2, y2) of the pixels of one colour."""
    rows, columns = np.nonzero((picture == colour).all(-1))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def test_boxes_lie_on_their_pixels():
    picture = draw_detections(plain(), [[100, 200, 300, 400]], ['dog'], [0.5], NAMES, thickness=3)
    assert picture.shape == (500, 700, 3)
    outline = picture[200:400, 100:300]
    for line in (outline[:3], outline[-3:], outline[:, :3], outline[:, -3:]):
        assert (line == DOG).all()
    assert (outline[3:-3, 3:-3] == 128).all()
    # the label is above the upper left corner
    x1, y1, x2, y2 = coloured(picture[:199], DOG)
    assert (x1, y2) == (100, 199) and 200 - y1 == font(14, bold=True).size + 6 and 130 < x2 < 250


def test_the_best_box_is_painted_on_top():
    cat, dog = [100, 100, 300, 300], [200, 200, 400, 400]
    for best, given in ((DOG, [0.9, 0.3]), (CAT, [0.3, 0.9])):
        for order in (1, -1):  # whichever comes first
            boxes, names, scores = [dog, cat][::order], ['dog', 'cat'][::order], given[::order]
            picture = draw_detections(plain(), boxes, names, scores, NAMES, thickness=3)
            # where the lower line of the cat meets the left one of the dog, and the right one the upper one
            for rows, columns in ((slice(297, 300), slice(200, 203)), (slice(200, 203), slice(297, 300))):
                assert (picture[rows, columns] == best).all()


def test_small_pictures_are_enlarged_with_their_boxes():
    picture = draw_detections(plain(50, 100), [[10, 20, 60, 50]], ['cat'], [0.5], NAMES)
    assert picture.shape == (250, 500, 3)
    x1, _, x2, y2 = coloured(picture, CAT)
    assert (x1, x2, y2) == (50, 300, 250)
    assert draw_detections(plain(480, 20), [], []).shape == (480, 20, 3)


def test_colours_go_by_the_classes():
    both = draw_detections(plain(), [[0, 100, 90, 190], [200, 100, 290, 190]], ['dog', 'cat'], class_names=NAMES)
    assert coloured(both[:, :150], DOG)[0] == 0
    assert coloured(both[:, 150:], CAT)[0] == 50
    alone = draw_detections(plain(), [[0, 100, 90, 190]], ['dog'], class_names=NAMES)
    assert (alone[100:190, :90] == both[100:190, :90]).all()
    assert len({class_colour(str(i), [str(j) for j in range(12)]) for i in range(12)}) == 12


def test_labels_cover_no_other_label_as_long_as_there_is_room():
    placed = []
    for i in range(12):
        place = place_label((100.0, 100.0 + i, 300.0, 300.0 + i), (60.0, 20.0), (640, 480), placed)
        x1, y1, x2, y2 = place
        assert min(x1, y1) >= 0 and x2 <= 640 and y2 <= 480 and (x2 - x1, y2 - y1) == (60, 20)
        for a, b, c, d in placed:
            assert min(c, x2) <= max(a, x1) or min(d, y2) <= max(b, y1)
        placed.append(place)
    assert placed[0] == (100, 80, 160, 100)
    # no room above: inside the box; at the right edge: shifted to the left
    assert place_label((100.0, 0.0, 300.0, 200.0), (60.0, 20.0), (640, 480), [(100.0, 0.0, 300.0, 20.0)])[1] >= 20
    assert place_label((630.0, 100.0, 640.0, 200.0), (60.0, 20.0), (640, 480), [])[2] == 640
    # nowhere any room: still a place
    assert place_label((0.0, 0.0, 50.0, 20.0), (60.0, 20.0), (60, 20), [(0.0, 0.0, 60.0, 20.0)]) == (0, 0, 60, 20)


def test_odd_input_is_drawn_or_named():
    names = ['猫', 'Straßenbahn ' * 30, '']
    picture = draw_detections(plain(), [[-50, -50, 900, 900], [5, 5, 5, 5], [0, 0, 1, 1]], names, [0.1, 0.2, 0.3])
    assert picture.shape == (500, 700, 3)
    assert draw_detections(plain(), np.zeros((0, 4)), []).tolist() == plain().tolist()
    with pytest.raises(ValueError, match='1 boxes, 2 names and 2 scores'):
        draw_detections(plain(), [[0, 0, 1, 1]], ['a', 'b'])
    with pytest.raises(ValueError, match=r'expected \(n, 4\) numbers'):
        draw_detections(plain(), [[0, 0, 1]], ['a'])
    with pytest.raises(ValueError, match='not finite'):
        draw_detections(plain(), [[0, 0, 1, float('nan')]], ['a'])
    with pytest.raises(ValueError, match=r'expected \(H, W, 3\) uint8'):
        draw_detections(np.zeros((4, 4), dtype=np.uint8), [], [])


def test_names_in_any_script_differ():
    """A character without glyph is drawn as its code, apart from its neighbours."""
    face = font(14, bold=True)
    assert drawable('猫', face) == 'U+732B'
    assert drawable('big 猫犬 cat', face) == 'big U+732B U+72AC cat'
    assert drawable('x猫y', face) == 'x U+732B y'
    assert drawable('Ёж, ça va: ≥ 3 ✓', face) == 'Ёж, ça va: ≥ 3 ✓'
    assert drawable('a\tb\n\udcff', face) == 'a b U+DCFF'
    blank = np.full((100, 200, 3), 255, np.uint8)
    names = ['猫', '狗', '고양이', 'แมว', '\U0001f9ff', '\ue000']
    drawings = [draw_detections(blank, [[20, 40, 180, 90]], [name]).tobytes() for name in names]
    assert len(set(drawings)) == len(names)


def test_a_font_of_ones_own(monkeypatch, tmp_path):
    import matplotlib

    own = Path(matplotlib.get_data_path()) / 'fonts/ttf/STIXGeneral.ttf'
    monkeypatch.setenv('FLORENCE_MM_FONT', str(own))
    font.cache_clear()
    assert font(15).getname()[0] == 'STIXGeneral'
    (tmp_path / 'x.ttf').write_text('no font')
    for path in ('nowhere.ttf', tmp_path / 'x.ttf'):
        monkeypatch.setenv('FLORENCE_MM_FONT', str(path))
        font.cache_clear()
        with pytest.raises(UsageError, match=f'FLORENCE_MM_FONT={path} cannot be read as a font'):
            font(15)
    font.cache_clear()


def test_of_hundreds_of_boxes_the_best_are_drawn_with_the_labels_that_have_room():
    boxes = [[20 + 60 * (i % 10), 20 + 40 * (i // 10), 70 + 60 * (i % 10), 50 + 40 * (i // 10)] for i in range(100)]
    blank = plain()
    drawn = draw_detections(blank, boxes, ['cat'] * 100, [1 - i / 100 for i in range(100)], NAMES, most=4)
    # the seventh box, of the same row, is not drawn, and a line at the bottom says so
    assert (drawn[:150, 370:440] == 128).all() and (drawn[49, 22:68] == CAT).all()
    assert (drawn[499 - font(14).size, :40] != 128).any() and (drawn[-1, 300:] == 128).all()
    whole = draw_detections(blank, boxes[:4], ['cat'] * 4, [1 - i / 100 for i in range(4)], NAMES)
    assert (whole[:450] == drawn[:450]).all() and (whole[-30:] == 128).all()
    # labels take a part of the image at most, whose places do not overlap: here 100 of one box have room for less
    alike = draw_detections(blank, [[200, 200, 300, 300]] * 100, ['cat'] * 100, [0.5] * 100, NAMES)
    assert (alike == CAT).all(-1).sum() < 0.15 * 500 * 700 + 4 * 100
    assert (alike[:130] == 128).all() and (alike[:, 450:] == 128).all()
