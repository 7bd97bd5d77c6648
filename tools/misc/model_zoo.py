"""Write docs/model_zoo.md from the metafiles, or count the size of a model for its entry there.

python tools/misc/model_zoo.py            # exit status 1 if the page is not current
python tools/misc/model_zoo.py --write
python tools/misc/model_zoo.py --size NAME 224 224
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import florence_mm  # noqa: F401  patches the installed packages, so it comes before anything that imports them
from florence_mm.config.metafiles import TASKS, ModelEntry, model_entries, model_entry
from florence_mm.errors import one_sentence_errors
from florence_mm.utils.numbers import readable

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / 'docs/model_zoo.md'
BEGIN = '<!-- written by tools/misc/model_zoo.py --write -->'
END = '<!-- end -->'


def tables() -> str:
    """Return a table of models a task, with their scores and weights."""
    entries = sorted(model_entries().values(), key=lambda entry: (entry.weights is None, entry.name))
    lines: list[str] = []
    for task in TASKS:
        rows = [row(entry) for entry in entries if entry.task == task]
        if rows:
            lines += [f'### {task}', '', '| model | parameters | multiply-adds, of | result | weights |']
            lines += ['|---|---|---|---|---|', *rows, '']
    return '\n'.join(lines)


def row(entry: ModelEntry) -> str:
    """Return the row of a model."""
    config = entry.config.relative_to(ROOT)
    weights = '–'
    if entry.weights is not None and entry.weights.embedded:
        weights = '`make zoo`'
    elif entry.weights is not None:
        weights = f'[{entry.weights.licence or "licence unknown"}]({entry.weights.source or entry.weights.url})'
    results = '; '.join(scores(entry)) or '–'
    cost = f'{readable(entry.macs)}, {entry.macs_input}' if entry.macs else '–'
    return f'| [{entry.name}](../{config.as_posix()}) | {readable(entry.parameters)} | {cost} | {results} | {weights} |'


def scores(entry: ModelEntry) -> Iterator[str]:
    """Yield the scores of a model on each data set."""
    for result in entry.results:
        numbers = ', '.join(f'{name} {value}' for name, value in result['Metrics'].items())
        yield f'{numbers} ({result["Dataset"]})'


def page() -> str:
    """Return the page with its tables as they should be."""
    text = PAGE.read_text(encoding='utf-8')
    before, _, rest = text.partition(BEGIN)
    return f'{before}{BEGIN}\n\n{tables()}\n{END}{rest.partition(END)[2]}'


def main() -> int:
    """Compare or write the page, or count a model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--write', action='store_true', help='write the page')
    parser.add_argument(
        '--size', nargs=3, metavar=('NAME', 'HEIGHT', 'WIDTH'), help='print the lines of an entry for its size'
    )
    args = parser.parse_args()
    with one_sentence_errors():
        if args.size:
            from florence_mm.config.arguments import positive_int
            from florence_mm.engine.entry_size import entry_size

            name, *shape = args.size
            size = entry_size(model_entry(name), tuple(map(positive_int, shape)))
            print(f'      Parameters: {size.parameters}\n      FLOPs: {size.macs}\n      FLOPs Input: {size.call}')
            return 0
        wanted = page()
        if wanted == PAGE.read_text(encoding='utf-8'):
            return 0
        if not args.write:
            print(f'{PAGE} is not current; run python tools/misc/model_zoo.py --write', file=sys.stderr)
            return 1
        PAGE.write_text(wanted, encoding='utf-8')
        return 0


if __name__ == '__main__':
    sys.exit(main())
