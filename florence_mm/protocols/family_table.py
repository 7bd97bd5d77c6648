"""The table of families: a row each, as Markdown, as plain values, and as panels of a picture."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from .families import FAMILIES, TASKS
from .family_runs import Cell

#: Name of a family -> name of a task -> its result, or the sentence that says why there is none.
Results = Mapping[str, Mapping[str, Cell | str]]

_DASH = '–'
_SIZE, _TIME, _MEMORY = 'parameters, M', 'training, s', 'peak memory, MiB'


def row_of(cells: Mapping[str, Cell | str], tasks: tuple[str, ...]) -> dict[str, float | None]:
    """Numbers of a family by the column's title; None where there is none.

    Parameters are those of its largest model, training seconds those of all its runs together, each once, and memory
    that of the largest test.
    """
    done = {name: cell for name, cell in cells.items() if isinstance(cell, Cell)}
    seconds = {run: spent for cell in done.values() for run, spent in cell.seconds.items()}
    known = bool(seconds) and None not in seconds.values()
    return {
        **{TASKS[name]: done[name].score if name in done else None for name in tasks},
        _SIZE: max((cell.parameters / 1e6 for cell in done.values()), default=None),
        _TIME: sum(spent for spent in seconds.values() if spent is not None) if known else None,
        _MEMORY: max((cell.memory / 2**20 for cell in done.values()), default=None),
    }


def describe(results: Results, tasks: tuple[str, ...]) -> str:
    """Write the table as Markdown, with the reasons of results that failed below it."""
    rows = {name: row_of(cells, tasks) for name, cells in results.items()}
    titles = [*(TASKS[name] for name in tasks), _SIZE, _TIME, _MEMORY]
    lines = [f'| | {" | ".join(titles)} |', f'|---|{"---:|" * len(titles)}']
    for name, row in rows.items():
        lines.append(f'| {FAMILIES[name].title} | {" | ".join(_shown(title, row[title]) for title in titles)} |')
    failed = [
        f'- {FAMILIES[name].title}, {task}: {cell}'
        for name, cells in results.items()
        for task, cell in cells.items()
        if isinstance(cell, str)
    ]
    return '\n'.join([*lines, *(['', *failed] if failed else [])]) + '\n'


def panels_of(results: Results, tasks: tuple[str, ...]) -> dict[str, dict[str, list[float]]]:
    """Numbers by column and family, as :func:`florence_mm.visualization.comparison.draw_comparison` takes them."""
    rows = {FAMILIES[name].title: row_of(cells, tasks) for name, cells in results.items()}
    return {
        title: {name: [] if row[title] is None else [row[title]] for name, row in rows.items()}
        for title in [*(TASKS[name] for name in tasks), _SIZE, _TIME, _MEMORY]
    }


def plain(results: Results, tasks: tuple[str, ...]) -> dict[str, Any]:
    """All numbers as JSON can hold them: of each family its row and its tasks' results."""
    return {
        name: {
            'row': row_of(cells, tasks),
            'tasks': {task: cell if isinstance(cell, str) else asdict(cell) for task, cell in cells.items()},
        }
        for name, cells in results.items()
    }


def _shown(title: str, number: float | None) -> str:
    if number is None:
        return _DASH
    if title in (_TIME, _MEMORY):
        return f'{number:.0f}'
    return f'{number:.2f}' if title == _SIZE else f'{number:.3f}'
