import numpy as np
import pytest
import torch

from florence_mm.visualization.detections import class_colour
from florence_mm.visualization.video import (
    LEAST_SIDE,
    PredictionPainter,
    TimedScores,
    draw_activation_strip,
    overlay_map,
)

NAMES = ['waving', 'jumping', 'a name that is far too long for a narrow picture of any kind']


def grey(height, width, value=128):
    return np.full((height, width, 3), value, dtype=np.uint8)


def coloured(picture, colour):
    """Bounds (x1, y1, x2, y2) of the pixels of one colour."""
    rows, columns = np.nonzero((picture == colour).all(-1))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.mark.parametrize('size', [(64, 64), (31, 57), (240, 320), (481, 33), (1080, 1920)])
def test_small_and_large_frames_are_whole_and_legible(size):
    painter = PredictionPainter(size, [TimedScores(0, 2, NAMES, [0.75, 0.2, 0.05])], 2.0)
    picture = painter(grey(*size), 0.5)
    factor = -(-LEAST_SIDE // max(size)) if max(size) < LEAST_SIDE else 1
    assert picture.shape[0] % 2 == picture.shape[1] % 2 == 0
    assert picture.shape[1] >= 320 and picture.shape[1] >= factor * size[1] - 1
    frame = picture[: factor * size[0] - 1]
    # the frame is as large as promised, in the middle, with nothing over it
    x1, y1, x2, y2 = coloured(frame, (128, 128, 128))
    assert y1 == 0 and abs((x1 + x2) - picture.shape[1]) <= 1 and x2 - x1 >= 0.97 * factor * size[1] - 2
    assert (frame[:, x1:x2] == 128).all()
    # letters are at least 13 pixels high, and at least a fortieth of the width
    assert painter.letters >= max(13, min(picture.shape[1] / 40, 64))
    assert painter(grey(*size), 1.0).shape == picture.shape


def test_bars_are_as_long_as_scores():
    painter = PredictionPainter((500, 700), [TimedScores(0, 2, NAMES[:2], [0.5, 0.25])], 2.0, NAMES)
    panel = painter(grey(500, 700), 0.0)[500:]
    first, second = (coloured(panel[: 3 * painter.line], class_colour(name, NAMES)) for name in NAMES[:2])
    assert first[0] == second[0] and second[1] - first[1] == painter.line
    assert (first[2] - first[0]) == pytest.approx(2 * (second[2] - second[0]), abs=1)
    full = PredictionPainter((500, 700), [TimedScores(0, 2, NAMES[:1], [1.0])], 2.0, NAMES)
    x1, _, x2, _ = coloured(full(grey(500, 700), 0.0)[500 : 500 + 2 * full.line], class_colour(NAMES[0], NAMES))
    assert (first[2] - first[0]) == pytest.approx((x2 - x1) / 2, abs=1)


def test_the_nearest_window_is_shown_and_the_moment_marked():
    windows = [
        TimedScores(0, 2, ['waving'], [0.9]),
        TimedScores(1, 3, ['jumping'], [0.8]),
        TimedScores(2, 4, ['waving'], [0.6]),
    ]
    painter = PredictionPainter((480, 480), windows, 4.0, NAMES)
    waving, jumping = (class_colour(name, NAMES) for name in NAMES[:2])

    def bar(second):
        rows = painter(grey(480, 480), second)[480 + painter.line : 480 + 2 * painter.line]
        return [name for name, colour in (('waving', waving), ('jumping', jumping)) if (rows == colour).all(-1).any()]

    # their middles are at 1, 2 and 3 s
    assert [bar(second) for second in (0.0, 1.4, 1.6, 2.4, 2.6, 4.0)] == [
        ['waving'], ['waving'], ['jumping'], ['jumping'], ['waving'], ['waving']
    ]  # fmt: skip
    line = painter(grey(480, 480), 0.0)[-painter.letters]
    # between 1.5 and 2.5 of 4 s the line has the colour of the middle window
    columns = np.flatnonzero((line == jumping).all(-1))
    inner = 480 - 2 * (painter.letters // 2)
    assert len(columns) == pytest.approx(inner / 4, abs=2)
    assert columns.mean() == pytest.approx(240, abs=2)
    marks = [np.flatnonzero((painter(grey(480, 480), s)[-painter.letters] == 31).any(-1)).mean() for s in (1.0, 3.0)]
    assert marks[1] - marks[0] == pytest.approx(inner / 2, abs=3)
    with pytest.raises(ValueError, match='as many scores as names'):
        PredictionPainter((64, 64), [TimedScores(0, 1, NAMES, [0.1])], 1.0)
    with pytest.raises(ValueError, match='at least one stretch'):
        PredictionPainter((64, 64), [], 1.0)


def test_maps_lie_on_their_frames():
    frames = np.zeros((4, 32, 48, 3), np.uint8)
    maps = torch.zeros(2, 4, 6)
    maps[1, 3, 0] = 5.0  # the last two frames, below on the left
    picture = overlay_map(frames, maps).astype(int)
    brightest = [np.unravel_index(frame.sum(-1).argmax(), (32, 48)) for frame in picture[2:]]
    assert all(row >= 24 and column < 8 for row, column in brightest)
    assert picture[3].sum(-1).max() > picture[2].sum(-1).max() > picture[0].sum(-1).max()
    assert (picture[0] == picture[0, 0, 0]).all()
    # scaled by its largest value
    np.testing.assert_array_equal(overlay_map(frames, 100 * maps), picture)
    assert (overlay_map(frames, 0 * maps) == picture[0, 0, 0]).all()


def test_a_strip_has_all_frames_in_their_order():
    frames = np.stack([grey(32, 64, 20 + 25 * i) for i in range(8)])
    strip = draw_activation_strip(frames, torch.ones(2, 2, 2), np.arange(8) / 4, 'a title', columns=4)
    cell = 160 + 6
    assert strip.shape[1] == 4 * cell + 6
    for i in range(8):
        y = 36 + 6 + (i // 4) * ((2 * 80 + 22) + 6)
        x = 6 + (i % 4) * cell
        assert (strip[y : y + 80, x : x + 160] == 20 + 25 * i).all()
        below = strip[y + 82 : y + 162, x : x + 160]
        assert (below == below[0, 0]).all() and len(set(below[0, 0].tolist())) > 1
    one = draw_activation_strip(frames[:1], torch.ones(1, 1, 1))
    assert one.shape[1] == cell + 6
    for bad, message in (
        (torch.ones(2, 2), r'shape \(2, 2\) must be \(t, h, w\)'),
        (-torch.ones(1, 2, 2), 'finite values from 0'),
        (torch.full((1, 2, 2), float('nan')), 'finite values from 0'),
    ):
        with pytest.raises(ValueError, match=message):
            draw_activation_strip(frames, bad)
    with pytest.raises(ValueError, match='3 times for 8 frames'):
        draw_activation_strip(frames, torch.ones(1, 2, 2), [0, 1, 2])
    with pytest.raises(ValueError, match=r'expected \(T, H, W, 3\) uint8'):
        draw_activation_strip(frames[0], torch.ones(1, 2, 2))
