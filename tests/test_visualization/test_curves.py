import json

import cv2
import pytest
from matplotlib.axes import Axes

from florence_mm.visualization import draw_curves, read_scalars
from florence_mm.visualization.curves import smooth, training_seconds


def write(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(json.dumps(record) + '\n' for record in records))
    return path


def by_epoch(folder, epochs, start=0, loss=1.0):
    """Three iterations an epoch, and a validation logged under the epoch, as mmengine does."""
    records = []
    for epoch in epochs:
        for i in range(3):
            step = 3 * (epoch - 1) + i + 1
            records.append({'loss': loss / step, 'lr': 0.1, 'epoch': epoch, 'iter': step, 'step': step})
        records.append({'zero_shot/top1': epoch / 10, 'data_time': 0.1, 'step': epoch})
    return write(folder / 'vis_data/scalars.json', records)


def test_scores_of_epochs_stand_at_their_last_iteration(tmp_path):
    curves = read_scalars(by_epoch(tmp_path / '1', [1, 2]))
    assert curves['loss'] == [(i, 1 / i) for i in range(1, 7)]
    assert curves['zero_shot/top1'] == [(3, 0.1), (6, 0.2)]


def test_scores_of_iterations_stand_where_they_were_logged(tmp_path):
    records = [{'loss': 2.0, 'iter': 10, 'step': 10}, {'zero_shot/top1': 0.5, 'step': 10}]
    curves = read_scalars(write(tmp_path / 'scalars.json', records))
    assert curves == {'loss': [(10, 2.0)], 'zero_shot/top1': [(10, 0.5)]}


def test_resumed_runs_are_one_curve(tmp_path):
    by_epoch(tmp_path / '20260101_000000', [1, 2])
    by_epoch(tmp_path / '20260102_000000', [2, 3], loss=10.0)
    curves = read_scalars(tmp_path)
    assert curves['loss'] == [(i, (1 if i < 4 else 10) / i) for i in range(1, 10)]
    assert curves['zero_shot/top1'] == [(3, 0.1), (6, 0.2), (9, 0.3)]


def test_broken_logs(tmp_path):
    path = write(tmp_path / 'scalars.json', [{'loss': 1.0, 'iter': 1}, {'loss': float('nan'), 'iter': 2}])
    with path.open('a') as file:
        file.write('{"loss": 3')  # a run killed while writing
    assert read_scalars(path) == {'loss': [(1, 1.0)]}
    path.write_text('{"loss": 3\n{"loss": 1.0, "iter": 1}\n')
    with pytest.raises(ValueError, match='scalars.json, line 1: not JSON'):
        read_scalars(path)
    with pytest.raises(FileNotFoundError, match='has no .*/vis_data/scalars.json'):
        read_scalars(tmp_path / 'nothing')


def test_smooth_by_hand():
    assert smooth([(0, 3.0), (1, 3.0), (5, 3.0)], 0.5) == [(0, 3.0), (1, 3.0), (5, 3.0)]
    # the last of n points counts 1, those before it w, w ** 2, ...: here w * 0 + 1 * 3, by the sum w + 1
    for weight in (0.0, 0.25, 0.5, 0.8):
        assert smooth([(0, 0.0), (1, 3.0)], weight) == [(0, 0.0), (1, pytest.approx(3 / (1 + weight)))]
    three = smooth([(0, 8.0), (1, 0.0), (2, 4.0)], 0.25)
    assert [value for _, value in three] == pytest.approx([8.0, 0.25 * 8 / 1.25, (0.0625 * 8 + 4) / 1.3125])


def test_the_drawn_line_is_the_smoothed_loss(tmp_path, monkeypatch):
    drawn, plot = [], Axes.plot
    monkeypatch.setattr(Axes, 'plot', lambda axes, *args, **options: drawn.append(args) or plot(axes, *args, **options))
    records = [{'loss': float(step == 1), 'iter': step, 'step': step} for step in range(1, 13)]
    draw_curves(write(tmp_path / 'scalars.json', records), tmp_path / 'curves.png')
    (_, values), (steps, smoothed) = drawn
    assert list(steps) == list(range(1, 13)) and list(values) == [1.0] + 11 * [0.0]
    assert smoothed == pytest.approx([0.8 ** (n - 1) / sum(0.8**i for i in range(n)) for n in range(1, 13)])


def test_draw_curves(tmp_path):
    log = by_epoch(tmp_path / 'run', range(1, 8))
    path = tmp_path / 'out/curves.png'
    draw_curves(log, path, title='a run')
    assert cv2.imread(str(path)).shape == (456, 1200, 3)
    first = path.read_bytes()
    draw_curves([log], path, title='a run')
    assert path.read_bytes() == first
    draw_curves(log, path, scores=[])
    assert cv2.imread(str(path)).shape == (456, 648, 3)
    with pytest.raises(ValueError, match=r'the log has no zero_shot/top9; it has loss, lr, zero_shot/top1'):
        draw_curves(log, path, scores=['zero_shot/top9'])
    with pytest.raises(ValueError, match='the log has no loss; it has nothing'):
        draw_curves(write(tmp_path / 'empty.json', []), path)
    with pytest.raises(ValueError, match='must end in .png'):
        draw_curves(log, tmp_path / 'curves.svg')


def test_equal_curves_are_all_seen(tmp_path, monkeypatch):
    """A later one is thinner and broken, so an earlier one shows beside and between."""
    log = tmp_path / 'scalars.json'
    names = ['a/top1', 'a/top5', 'a/mean_class_top1']
    rows = [{'iter': i, 'loss': 1.0, 'step': i} for i in range(5)] + [
        {'step': i, **dict.fromkeys(names, i / 5)} for i in range(5)
    ]
    log.write_text('\n'.join(map(json.dumps, rows)))
    drawn, plot = [], Axes.plot

    def watched(self, *args, **kwargs):
        drawn.append(kwargs)
        return plot(self, *args, **kwargs)

    monkeypatch.setattr(Axes, 'plot', watched)
    draw_curves(log, tmp_path / 'curves.png')
    lines = [line for line in drawn if line.get('label') in names]
    assert [line['label'] for line in lines] == names
    widths = [line['linewidth'] for line in lines]
    assert (
        widths == sorted(widths, reverse=True) and len({line['linestyle'] for line in lines}) == len(set(widths)) == 3
    )


def test_seconds_of_a_training_are_those_of_its_iterations(tmp_path):
    first = [
        {'iter': 50, 'time': 2.0},
        {'iter': 100, 'time': 1.0},
        {'time': 60.0, 'step': 1},
    ]  # the last of a validation
    write(tmp_path / '1/vis_data/scalars.json', first)
    write(tmp_path / '2/vis_data/scalars.json', [{'iter': 100, 'time': 3.0}, {'iter': 150, 'time': 4.0}])  # resumed
    assert training_seconds(tmp_path) == 50 * 2 + 50 * 3 + 50 * 4
    assert training_seconds(tmp_path, 160) == 450 + 10 * 4
    assert training_seconds(tmp_path, 20) == 450


def test_a_log_without_times_has_no_seconds(tmp_path):
    write(tmp_path / '1/vis_data/scalars.json', [{'iter': 50, 'loss': 2.0}])
    with pytest.raises(FileNotFoundError, match='has no line with the time of an iteration'):
        training_seconds(tmp_path)
