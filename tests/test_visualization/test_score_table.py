"""The picture of scores: lengths of bars, marks of published figures, and parts of sets that look like no whole one."""

import cv2
import numpy as np

from florence_mm.visualization.score_table import Score, draw_scores

OURS, PUBLISHED, LIGHT, INK = (218, 105, 9), (0, 76, 188), (255, 244, 221), (106, 96, 87)  # BGR


def columns(picture, colour):
    """Columns of a picture with pixels of a colour."""
    return np.flatnonzero((picture == colour).all(2).any(0))


def test_bars_are_as_long_as_their_scores_and_a_part_is_light(tmp_path):
    def drawn(ours, published=None, **values):
        draw_scores(
            [Score('few-shot', 'a', 'accuracy', ours, published, 'done', **values)], tmp_path / 'scores.png', ''
        )
        picture = cv2.imread(str(tmp_path / 'scores.png'))
        return picture[: picture.shape[0] * 2 // 3, : int(picture.shape[1] * 0.85)]  # without legend and numbers

    half, whole = columns(drawn(40.0), OURS), columns(drawn(80.0), OURS)
    assert abs(len(half) / len(whole) - 0.5) < 0.02
    picture = drawn(40.0, 80.0)
    mark = columns(picture, PUBLISHED)
    assert abs(mark.mean() - whole.max()) < 4 and not len(columns(picture, LIGHT))
    assert len(columns(drawn(40.0, partial=True), LIGHT)) > 0.8 * len(half)
    # the interval goes from 20 to 60
    wide, plain = ((np.abs(drawn(40.0, **v).astype(int) - INK).sum(2) < 12).any(0) for v in ({'interval': 20.0}, {}))
    extra = np.flatnonzero(wide & ~plain)
    assert abs((extra.max() - extra.min()) / len(half) - 1) < 0.1
