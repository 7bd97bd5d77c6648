"""Pictures of a CapFilt report."""

import cv2
import numpy as np

from florence_mm.curation.capfilt_report import Example
from florence_mm.visualization.capfilt import draw_examples


def test_rows_are_as_high_as_their_own_texts(tmp_path):
    picture = cv2.imencode('.png', np.zeros((20, 20, 3), np.uint8))[1].tobytes()
    short = Example(picture, [('web', 'a dog', 0.9, True)])
    long = Example(picture, [('web', 'a dog on a beach ' * 20, 0.9, True)])
    heights = []
    for examples in ([short] * 4, [long] * 4, [short] * 4 + [long] * 3, [short]):
        draw_examples({'kept': examples}, tmp_path / 'examples.png')
        drawn = cv2.imread(str(tmp_path / 'examples.png'))
        heights.append(len(drawn))
        widths = drawn.shape[1]
    assert heights[2] == heights[0] + heights[1] and heights[1] > heights[0] == heights[3]
    assert widths == drawn.shape[1]
