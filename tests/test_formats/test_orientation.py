"""Frames of phones are turned upright."""

import numpy as np
import pytest
from video_files import encode, turn

from florence_mm.errors import DataError
from florence_mm.formats.orientation import upright
from florence_mm.formats.video import open_video

#: a, b, c, d: stored (column, row) is shown at (a column + c row, b column + d row). The corners of a stored frame in
#: reading order are 1 2 3 4; as shown, worked out on paper.
TURNS = {
    'as stored': ((1, 0, 0, 1), [[1, 2], [3, 4]]),
    'a quarter clockwise': ((0, 1, -1, 0), [[3, 1], [4, 2]]),
    'half': ((-1, 0, 0, -1), [[4, 3], [2, 1]]),
    'a quarter counterclockwise': ((0, -1, 1, 0), [[2, 4], [1, 3]]),
    'left and right exchanged': ((-1, 0, 0, 1), [[2, 1], [4, 3]]),
    'upside down': ((1, 0, 0, -1), [[3, 4], [1, 2]]),
    'along the diagonal': ((0, 1, 1, 0), [[1, 3], [2, 4]]),
    'along the other diagonal': ((0, -1, -1, 0), [[4, 2], [3, 1]]),
}


def matrix(a, b, c, d, one=1 << 16):
    return np.int32([round(a * one), round(b * one), 0, round(c * one), round(d * one), 0, 0, 0, 1 << 30]).tobytes()


def quarters(height, width):
    """A frame whose quarters have the values 1 to 4."""
    rows = np.repeat([[1, 2], [3, 4]], height // 2, 0)
    return np.repeat(np.repeat(rows, width // 2, 1)[..., None], 3, 2).astype(np.uint8)


@pytest.mark.parametrize('name', TURNS)
def test_turns_and_mirrors(name):
    (a, b, c, d), corners = TURNS[name]
    image = quarters(2, 2)
    assert upright(image, matrix(a, b, c, d))[..., 0].tolist() == corners
    # each stored pixel is where the matrix puts it, up to a shift
    picture = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)
    shown = upright(picture, matrix(a, b, c, d))
    places = {(p, q): (a * p + c * q, b * p + d * q) for p in range(4) for q in range(6)}
    left, top = (min(place[axis] for place in places.values()) for axis in (0, 1))
    for (p, q), (x, y) in places.items():
        np.testing.assert_array_equal(shown[y - top, x - left], picture[q, p])


@pytest.mark.parametrize('name', TURNS)
def test_videos_are_read_upright(name):
    turned, corners = TURNS[name]
    data = turn(encode(np.stack([quarters(48, 64) * 50] * 4), crf=1), *turned)
    reader = open_video(data, 'x')
    for frames in (reader.read([2]), np.stack(list(reader))):
        assert frames.shape[1:] == ((64, 48, 3) if turned[0] == 0 else (48, 64, 3))
        found = (frames[0, ::2, ::2, 0] / 50).round()
        height, width = found.shape
        seen = [[found[h, w] for w in (width // 4, -width // 4)] for h in (height // 4, -height // 4)]
        assert seen == corners


def test_other_matrices():
    image = quarters(2, 2)
    assert upright(image, None) is image
    # scaled, and with the rounding of a phone
    assert upright(image, matrix(0, 2, -2, 0))[..., 0].tolist() == [[3, 1], [4, 2]]
    assert upright(image, matrix(0.001, 1, -1, -0.001))[..., 0].tolist() == [[3, 1], [4, 2]]
    assert upright(image, matrix(0, 0, 0, 0))[..., 0].tolist() == [[1, 2], [3, 4]]
    with pytest.raises(ValueError, match='is to be shown turned by 30 degrees, which is no multiple of 90'):
        upright(image, matrix(3**0.5 / 2, 0.5, -0.5, 3**0.5 / 2))
    data = encode(np.stack([quarters(48, 64)] * 2))
    tilted = turn(data, 1, 1, -1, 1)
    with pytest.raises(DataError, match='the video a.mp4 is to be shown turned by 45 degrees.*; replace it'):
        open_video(tilted, 'a.mp4').read([0])
