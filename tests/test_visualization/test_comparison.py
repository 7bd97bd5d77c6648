"""The picture that compares ways: bars as long as the mean of their runs, a dot a run, a dash without runs."""

import cv2
import numpy as np
import pytest

from florence_mm.visualization.comparison import axis_ends, draw_comparison

BAR, DOT = (255, 174, 84), (105, 48, 10)  # BGR


def pixels(picture, colour):
    return np.argwhere((picture == colour).all(2))


def drawn(path, panels):
    draw_comparison(panels, path / 'ways.png', 'title')
    return cv2.imread(str(path / 'ways.png'))


def test_bars_are_as_long_as_the_mean(tmp_path):
    lengths = [np.ptp(pixels(drawn(tmp_path, {'m': {'way': runs}}), BAR)[:, 1]) for runs in ([20, 40], [60])]
    assert abs(lengths[0] / lengths[1] - 0.5) < 0.02


def test_axes_end_where_it_is_said(tmp_path):
    lengths = []
    for longest in (100, 4):
        draw_comparison({'m': {'way': [0.6 * longest]}}, tmp_path / 'ways.png', 'title', longest)
        lengths.append(np.ptp(pixels(cv2.imread(str(tmp_path / 'ways.png')), BAR)[:, 1]))
    assert abs(lengths[0] - lengths[1]) <= 1


def test_metrics_have_axes_of_their_own(tmp_path):
    draw_comparison({'a': {'way': [0.6]}, 'b': {'way': [2.4]}}, tmp_path / 'ways.png', 'title', {'a': 1, 'b': 4})
    bars = (cv2.imread(str(tmp_path / 'ways.png')) == BAR).all(2).astype(np.uint8)
    widths = sorted(cv2.connectedComponentsWithStats(bars)[2][1:, cv2.CC_STAT_WIDTH])[-2:]
    assert abs(int(widths[0]) - int(widths[1])) <= 1


def test_more_than_four_metrics_are_in_two_rows(tmp_path):
    four, six = (drawn(tmp_path, {str(i): {'way': [60]} for i in range(count)}) for count in (4, 6))
    tops = [len(np.unique(np.flatnonzero(np.diff(np.r_[0, (p == BAR).all(2).any(1), 0]) == 1))) for p in (four, six)]
    assert tops == [1, 2]
    assert six.shape[1] < four.shape[1]


def test_each_run_has_a_dot_and_each_metric_a_panel(tmp_path):
    panels = {'one': {'a': [10, 90], 'b': []}, 'two': {'a': [50], 'b': [50]}}
    dots = (np.abs(drawn(tmp_path, panels).astype(int) - DOT).sum(2) < 60).astype(np.uint8)
    sizes = cv2.connectedComponentsWithStats(dots)[2][1:, cv2.CC_STAT_AREA]  # without the ground
    assert (sizes > 0.5 * sizes.max()).sum() == 4
    rows = pixels(drawn(tmp_path, {'one': {'a': [10, 90], 'b': []}}), BAR)[:, 0]
    assert np.ptp(rows) < 70  # that of `a` alone


def test_equal_scores_give_equal_files(tmp_path):
    for name in ('a.png', 'b.png'):
        draw_comparison({'m': {'way': [1.0]}}, tmp_path / name, 'title')
    assert (tmp_path / 'a.png').read_bytes() == (tmp_path / 'b.png').read_bytes()


@pytest.mark.parametrize('panels', [{}, {'m': {}}, {'m': {'a': [1]}, 'n': {'b': [1]}}])
def test_panels_that_do_not_fit_are_refused(tmp_path, panels):
    with pytest.raises(ValueError, match='give each panel the same ones, at least one'):
        drawn(tmp_path, panels)
    with pytest.raises(ValueError, match=r'ways.pdf must end in .png'):
        draw_comparison({'m': {'a': [1]}}, tmp_path / 'ways.pdf', '')


def test_axes_end_at_a_round_number_that_holds_all_scores():
    scores = {'a': 0.3, 'b': 1.2, 'c': 10.0, 'd': 10.5, 'e': 563.0, 'f': 1001.0}
    ends = axis_ends({name: {'way': [score], 'other': []} for name, score in scores.items()})
    assert ends == {'a': 1, 'b': 2, 'c': 10, 'd': 15, 'e': 600, 'f': 1500}
