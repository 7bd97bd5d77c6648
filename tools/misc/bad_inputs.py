"""Try all bad inputs of ``tests/bad_inputs`` and print a table of what came of them.

    python tools/misc/bad_inputs.py [--write] [--area TEXT]

With ``--write`` the table goes to ``docs/bad_inputs.md``. Exit status: 0 if each input is refused with one sentence or
gives the right value, 1 otherwise.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import florence_mm  # noqa: F401  patches the installed packages, so it comes before anything that imports them
from florence_mm.utils.files import write_atomic
from florence_mm.utils.progress import ProgressLog

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'tests'))

from bad_inputs import all_cases  # noqa: E402
from bad_inputs.case import BadInput, Outcome, outcomes  # noqa: E402

PAGE = ROOT / 'docs/bad_inputs.md'
LONGEST = 240  # characters of a sentence in the table
HEADER = """# Bad inputs

What florence_mm does with inputs that are wrong, damaged or unusual. Each is tried in a process of its own: it must
be refused with one sentence, or give the right value. None may end in a stack trace, hang, lose data or give a
wrong value.
The table is made by `python tools/misc/bad_inputs.py --write`; `tests/test_bad_inputs.py` tries each input again.
Next: [what counts as bad data](data.md#bad-data), [how a run ends](training.md#how-a-run-ends), [FAQ](faq.md).

"""


def try_all(cases: list[tuple[str, BadInput]]) -> list[Outcome]:
    """Run each input in a fork, with a line of progress."""
    progress = ProgressLog('bad inputs', len(cases))
    with tempfile.TemporaryDirectory() as scratch:
        return outcomes([case for _, case in cases], Path(scratch), progress.update)


def table(cases: list[tuple[str, BadInput]], found: list[Outcome]) -> str:
    """Counts by area, and a row for each input."""
    areas = list(dict.fromkeys(area for area, _ in cases))
    by_area = {area: [(c, f) for (a, c), f in zip(cases, found, strict=True) if a == area] for area in areas}
    lines = ['| area | inputs | refused with a sentence | right value | faults |', '| --- | --- | --- | --- | --- |']
    for area, rows in [*by_area.items(), ('all', list(zip((c for _, c in cases), found, strict=True)))]:
        kinds = [outcome.kind for _, outcome in rows]
        refused, right = kinds.count('refused'), kinds.count('right')
        lines.append(f'| {area} | {len(kinds)} | {refused} | {right} | {len(kinds) - refused - right} |')
    for area, rows in by_area.items():
        lines += ['', f'## {area}', '', '| input | outcome |', '| --- | --- |']
        lines += [f'| {_cell(case.words)} | {outcome.kind}: {_cell(outcome.text)} |' for case, outcome in rows]
    return '\n'.join(lines) + '\n'


def _cell(text: str) -> str:
    text = ' '.join(text.split()).replace('|', '\\|').replace('<', '&lt;')
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + '…'


def main() -> None:
    """Try the inputs, print or write the table."""
    parser = argparse.ArgumentParser(description='Try all bad inputs and print what came of them.')
    parser.add_argument('--write', action='store_true', help=f'write {PAGE.relative_to(ROOT)}')
    parser.add_argument('--area', default='', help='only areas whose title contains this text')
    args = parser.parse_args()
    cases = [(area, case) for area, case in all_cases() if args.area.lower() in area.lower()]
    if not cases or (args.write and args.area):
        parser.error(f'no area has {args.area!r} in its title' if not cases else '--write takes all areas')
    start = time.monotonic()
    found = try_all(cases)
    text = table(cases, found)
    if args.write:
        write_atomic(PAGE, HEADER + text)
    else:
        print(text)
    faults = sum(outcome.fault for outcome in found)
    print(f'{len(cases)} inputs in {time.monotonic() - start:.0f} s, {faults} faults', file=sys.stderr)
    raise SystemExit(int(faults > 0))


if __name__ == '__main__':
    main()
