import numpy as np
import pytest
import torch

from florence_mm.visualization.canvas import FAINT, INK, PAPER, RIGHT, WRONG
from florence_mm.visualization.predictions import IMAGE_SIZE
from florence_mm.visualization.texts import Line, draw_clip_prediction, draw_texts


def colours(rows):
    """The text colours that occur in rows of pixels."""
    found = {tuple(pixel) for pixel in rows.reshape(-1, 3).tolist()}
    return found & {INK, FAINT, RIGHT, WRONG}


def test_texts_are_below_the_image_in_their_colours():
    image = np.full((40, 80, 3), 77, np.uint8)
    lines = [Line('why?', bold=True), Line('yes', right=True), Line('no', right=False), Line('people: yes')]
    drawn = draw_texts(image, lines)
    assert drawn.shape == (160 + 10 + 4 * 21, 320, 3) and (drawn[:160] == 77).all()
    steps = [drawn[165 + 21 * i : 165 + 21 * i + 20] for i in range(4)]
    assert [colours(step) for step in steps] == [{INK}, {RIGHT}, {WRONG}, {FAINT}]
    long = draw_texts(image, [Line('word ' * 200)])
    assert len(long) == 160 + 10 + 3 * 21
    assert draw_texts(np.zeros((900, 3, 3), np.uint8), []).shape == (330, 320, 3)
    with pytest.raises(ValueError, match='expected .H, W, 3. uint8'):
        draw_texts(np.zeros((4, 4), np.uint8), [])


def test_a_clip_has_five_frames_and_its_classes():
    frames = np.stack([np.full((20, 20, 3), 20 * i, np.uint8) for i in range(11)])
    drawn = draw_clip_prediction(frames, torch.tensor([0.1, 0.6, 0.3]), ['a', 'b', 'c'], gt_label=1)
    middle = IMAGE_SIZE // 2
    row = [int(drawn[6 + middle, 6 + i * (IMAGE_SIZE + 6) + middle, 0]) for i in range(5)]
    assert row == [0, 40, 100, 160, 200]  # frames 0, 2 or 3, 5, 7 or 8, 10: halves are rounded to even
    cell = drawn[IMAGE_SIZE + 12 :]
    assert int(cell[middle, 6 + middle, 0]) == 100 and RIGHT in colours(cell)
    assert tuple(drawn[-1, -1]) == PAPER
    one = draw_clip_prediction(frames[:1], torch.tensor([1.0]), ['a'], top=1)
    assert one.shape[0] == drawn.shape[0]
    with pytest.raises(ValueError, match='at least one'):
        draw_clip_prediction(frames[:0], torch.tensor([1.0]), ['a'])
