"""Curves of a training run, from the scalars logged by mmengine."""

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from .figures import save_figure

Curve = list[tuple[float, float]]

_PACE = {'time', 'data_time', 'samples_per_s', 'waiting', 'memory'}
_HOUSEKEEPING = {*_PACE, 'step', 'iter', 'epoch', 'lr', 'base_lr', 'grad_norm'}
_STYLES = ('-', '--', '-.', ':')
_COLOURS = ('#0969da', '#bc4c00', '#1a7f37', '#8250df', '#cf222e', '#57606a')


def read_scalars(log: str | Path | Sequence[str | Path]) -> dict[str, Curve]:
    """Read the logged curves by name, over iterations.

    Validation scores that are logged by epoch are placed at its last iteration. If a step was logged twice, because the
    run was resumed before it, the later value is used.

    Args:
        log: A ``scalars.json`` (JSON lines), several in chronological order, or a work directory, of which all
            ``*/vis_data/scalars.json`` are read.

    Returns:
        dict[str, list[tuple[float, float]]]: (iteration, value) in ascending order; values that are not
        finite are left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is not JSON (an incomplete last line of a killed run is ignored).
    """
    records = [record for path in _log_files(log) for record in _read_lines(path)]
    train = [record for record in records if 'iter' in record]
    last_iter: dict[int, int] = {}
    for record in train:
        if 'epoch' in record:
            last_iter[record['epoch']] = max(record['iter'], last_iter.get(record['epoch'], 0))
    points: dict[str, dict[float, float]] = {}
    for record in records:
        if 'iter' in record:
            step = record['iter']
        elif 'step' in record:
            step = last_iter.get(record['step'], record['step'])
        else:
            continue
        for name, value in record.items():
            if isinstance(value, (int, float)) and name not in ('step', 'iter', 'epoch'):
                points.setdefault(name, {})[step] = float(value)
    return {
        name: sorted((step, value) for step, value in curve.items() if math.isfinite(value))
        for name, curve in points.items()
    }


def training_seconds(log: str | Path | Sequence[str | Path], iterations: int | None = None) -> float:
    """Add up the seconds of all iterations of a run; validations and checkpoints do not count.

    A logged time is the mean of several iterations, and counts for those since the line before.

    Args:
        log: see :func:`read_scalars`.
        iterations: of the whole run; those behind the last line are taken to be like it. None: up to the last line.

    Raises:
        FileNotFoundError: there is no log, or it has no times.
        ValueError: a line is not JSON.
    """
    records = [record for path in _log_files(log) for record in _read_lines(path)]
    times = {record['iter']: record['time'] for record in records if 'iter' in record and 'time' in record}
    if not times:
        raise FileNotFoundError(f'{log} has no line with the time of an iteration')
    steps = sorted(times)
    total = sum((step - before) * times[step] for before, step in pairwise([0, *steps]))
    return total + max(0, (iterations or 0) - steps[-1]) * times[steps[-1]]


def _log_files(log: str | Path | Sequence[str | Path]) -> list[Path]:
    if not isinstance(log, (str, Path)):
        return [path for item in log for path in _log_files(item)]
    path = Path(log)
    if path.is_file():
        return [path]
    # folders are named by the start time of the run
    found = sorted([*path.glob('*/vis_data/scalars.json'), *path.glob('vis_data/scalars.json')])
    if not found:
        raise FileNotFoundError(f'{path} is no scalars.json and has no */vis_data/scalars.json')
    return found


def _read_lines(path: Path) -> list[dict]:
    lines = path.read_text(encoding='utf-8').split('\n')
    records = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise ValueError(f'{path}, line {number}: not JSON ({error.msg})') from None
        if isinstance(record, dict):
            records.append(record)
    return records


def smooth(curve: Curve, weight: float = 0.8) -> Curve:
    """Smooth a curve by an exponential moving average with bias correction at the start (weights sum to 1)."""
    smoothed, total, norm = [], 0.0, 0.0
    for step, value in curve:
        total = weight * total + (1 - weight) * value
        norm = weight * norm + 1 - weight
        smoothed.append((step, total / norm))
    return smoothed


def draw_curves(
    log: str | Path | Sequence[str | Path],
    path: str | Path,
    losses: Sequence[str] | None = None,
    scores: Sequence[str] | None = None,
    title: str | None = None,
) -> None:
    """Draw the losses (left) and validation scores (right) of a run over iterations, and write the PNG.

    Args:
        log: See :func:`read_scalars`.
        path (str | Path): The PNG file.
        losses (Sequence[str] | None): Names of loss curves. None: all whose name contains "loss".
        scores (Sequence[str] | None): Names of score curves. None: the first six that contain "/", as metrics do.
        title (str | None): A line above.

    Raises:
        ValueError: the log has no such curve, or ``path`` does not end in .png.
    """
    from matplotlib.figure import Figure

    if Path(path).suffix.lower() != '.png':
        raise ValueError(f'{path} must end in .png')
    curves = read_scalars(log)
    if losses is None:
        losses = [name for name in curves if 'loss' in name]
    if scores is None:
        scores = [n for n in curves if '/' in n and n.split('/')[-1] not in {*_HOUSEKEEPING, 'num_skipped'}][:6]
    missing = [name for name in [*losses, *scores] if not curves.get(name)]
    if missing or not losses:
        known = ', '.join(name for name, curve in curves.items() if curve) or 'nothing'
        raise ValueError(f'the log has no {", ".join(missing) or "loss"}; it has {known}')

    figure = Figure(figsize=(10 if scores else 5.4, 3.8), dpi=120, layout='constrained')
    axes = figure.subplots(1, 2 if scores else 1, squeeze=False)[0]
    for name, colour in zip(losses, _cycle(len(losses)), strict=True):
        curve = curves[name]
        several = len(curve) > 10
        axes[0].plot(*zip(*curve, strict=True), color=colour, alpha=0.25 if several else 1, linewidth=1)
        if several:
            axes[0].plot(*zip(*smooth(curve), strict=True), color=colour, linewidth=1.8, label=name)
        else:
            axes[0].lines[-1].set_label(name)
    axes[0].set_title('training loss')
    if scores:
        for i, (name, colour) in enumerate(zip(scores, _cycle(len(scores)), strict=True)):
            # of equal curves, such as top1 and mean_class_top1, all can be seen: later ones are thinner and broken
            width, style = 1.4 + 0.9 * (len(scores) - 1 - i), _STYLES[min(i, len(_STYLES) - 1)]
            curve = zip(*curves[name], strict=True)
            axes[1].plot(*curve, color=colour, linewidth=width, linestyle=style, marker='o', ms=2 + width, label=name)
        axes[1].set_title('validation')
        last = [(name, curves[name][-1][1]) for name in scores]
        axes[1].set_xlabel(f'{last[0][0]} ends at {last[0][1]:.4g}', color='#57606a', fontsize=9)
    for axis in axes:
        axis.grid(color='#d0d7de', linewidth=0.6)
        axis.spines[['top', 'right']].set_visible(False)
        axis.legend(frameon=False, fontsize=9)
    axes[0].set_xlabel('iteration', color='#57606a', fontsize=9)
    if title:
        figure.suptitle(title, fontweight='bold')
    save_figure(figure, path)


def _cycle(count: int) -> list[str]:
    return [_COLOURS[i % len(_COLOURS)] for i in range(count)]
