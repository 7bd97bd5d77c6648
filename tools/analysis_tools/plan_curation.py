"""Compute what the data engine needs for many pairs: hours, machines, bytes, and the bottleneck of each stage.

    python tools/analysis_tools/plan_curation.py [--pairs 3e9] [--keep 0.3] [--cores 64] [--machines 32] [--score 2000]

Rates are of one core, measured by ``tools/benchmarks/curation.py`` on a busy machine (AMD EPYC with AVX-512); give your
own. What was not measured is an assumption, and marked so: the network, and what a model scores. Work that grows faster
than the pairs (near-duplicates, embeddings) is computed by its own law, not scaled from a small run.
"""

import argparse
import math
from dataclasses import dataclass

from florence_mm.curation.hamming import MANY

#: Bits of a hash, of a key of two of five blocks, and of one of three of six; numbers of tables.
BITS, SHORT_KEY, LONG_KEY, FEW_TABLES, MANY_TABLES = 64, 25.6, 32, 10, 20
GB, HOUR = 1e9, 3600


@dataclass(frozen=True)
class Step:
    """One row of the table.

    Attributes:
        name: of the step.
        hours: for each thing that may bound it, its hours.
        memory: bytes that one process holds; None: it does not grow with the pairs.
        written: bytes written.
    """

    name: str
    hours: dict[str, float]
    memory: float | None
    written: float

    @property
    def bound(self) -> str:
        """What takes longest."""
        return max(self.hours, key=self.hours.__getitem__)


def plan(args: argparse.Namespace) -> list[Step]:
    """The steps of a run, in order."""
    pairs, kept = args.pairs, args.pairs * args.keep
    measured = pairs * args.pass_a
    distinct = measured * args.distinct
    cores = args.cores * args.machines
    network = args.network * args.machines * 1e9 / 8
    stage_a = {'decoding': pairs / (args.stage_a * cores), 'network': pairs * args.pair_bytes / network}
    if args.score:
        stage_a['model'] = pairs / (args.score * (args.devices or args.machines))
    return [
        Step('A: sidecars', _hours(stage_a), None, pairs * args.sidecar_bytes),
        Step(
            'B: columns, DuckDB',
            _hours({'processor': pairs / (args.stage_b * args.cores)}),
            args.memory_b * pairs,
            0,
        ),
        Step('B: near-duplicates', _hours({'one core': near_seconds(distinct, args)}), 56 * distinct, 0),
        Step(
            'B: embeddings (if asked)',
            _hours({'processor': embedding_seconds(distinct, args) / args.cores}),
            8 * distinct,
            2 * args.width * distinct,
        ),
        Step(
            'B: order and files',
            _hours({'one core': measured / args.write}),
            60 * kept + 9 * (measured - kept),
            17 * kept + 9 * (measured - kept),
        ),
        Step(
            'C: shards',
            _hours({'processor': kept / (args.stage_c * cores), 'network': 2 * kept * args.pair_bytes / network}),
            None,
            kept * args.pair_bytes,
        ),
    ]


def near_seconds(hashes: float, args: argparse.Namespace) -> float:
    """Seconds of the tables, each of all hashes, and of the pairs that agree in a key by chance."""
    tables, key = (FEW_TABLES, SHORT_KEY) if hashes < MANY else (MANY_TABLES, LONG_KEY)
    candidates = hashes * hashes / 2 * tables / 2**key
    return tables * hashes / args.table + candidates / args.compare


def embedding_seconds(features: float, args: argparse.Namespace) -> float:
    """Seconds of dividing features into cells four times and comparing within cells."""
    cells = max(1, min(features / 1000, math.sqrt(features / 2)))
    return 4 * features * (cells + features / cells) * 2 * args.width / args.products


def _hours(seconds: dict[str, float]) -> dict[str, float]:
    return {name: value / HOUR for name, value in seconds.items()}


def show(steps: list[Step]) -> str:
    """The table, as Markdown."""
    lines = ['| stage | time | bound by | memory of one process, GB | written, GB |', '|---|---|---|---|---|']
    for step in steps:
        memory = '-' if step.memory is None else f'{step.memory / GB:,.0f}'
        lines.append(
            f'| {step.name} | {duration(step.hours[step.bound])} | {step.bound} | {memory} | {step.written / GB:,.0f} |'
        )
    return '\n'.join(lines)


def duration(hours: float) -> str:
    """Say hours in the largest unit of which there is one at least.

    >>> duration(103.4), duration(1.31), duration(0.5), duration(0.001)
    ('103 h', '1.3 h', '30 min', '3.6 s')
    """
    value, unit = next(
        ((hours * by, unit) for by, unit in ((1, 'h'), (60, 'min')) if hours * by >= 1), (hours * HOUR, 's')
    )
    return f'{value:,.0f} {unit}' if value >= 9.95 else f'{value:.2g} {unit}'


def _count(number: float, thing: str) -> str:
    return f'{number:g} {thing}{"s" * (number != 1)}'


def make_parser() -> argparse.ArgumentParser:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    # fmt: off
    options = {
        'pairs': (3e9, 'raw pairs'),
        'keep': (0.3, 'share of the pairs that is kept'),
        'pass-a': (0.9, 'share that stage A keeps; assumed'),
        'distinct': (0.7, 'share of these with a hash of their own; assumed'),
        'pair-bytes': (60_000, 'bytes of a raw pair'),
        'sidecar-bytes': (250, 'bytes of a row of a sidecar with its texts; assumed'),
        'cores': (64, 'cores of a machine'),
        'machines': (32, 'machines of stages A and C; stage B is on one of them'),
        'network': (10.0, 'Gbit/s between a machine and the store; assumed'),
        'stage-a': (1000.0, 'pairs a second and core: decoding and hash'),
        'score': (0.0, 'pairs a second that a device scores; 0: no model'),
        'devices': (0, 'devices that score; 0: one a machine'),
        'stage-b': (600_000.0, 'rows a second and core, near-duplicates aside; all cores of the machine assumed'),
        'memory-b': (60.0, 'bytes a row of DuckDB, which it writes to the disk where they exceed its memory'),
        'table': (9e6, 'hashes a second that one core puts into a table'),
        'compare': (1.9e7, 'pairs of hashes that one core compares a second'),
        'write': (1.8e6, 'rows a second that one core sorts and writes'),
        'products': (3e10, 'operations a second and core, of products of features'),
        'width': (512, 'values of an embedding'),
        'stage-c': (4000.0, 'pairs a second and core that are written'),
    }
    # fmt: on
    for name, (default, meaning) in options.items():
        parser.add_argument(f'--{name}', type=float, default=default, help=f'{meaning} (default: {default:g})')
    return parser


def main() -> None:
    """Compute and print."""
    parser = make_parser()
    args = parser.parse_args()
    for name, value in vars(args).items():
        least = 0 if name in ('score', 'devices') else 1e-9
        most = 1 if name in ('keep', 'pass_a', 'distinct') else math.inf
        if not (least <= value <= most and math.isfinite(value)):
            expected = 'from 0 to 1' if most == 1 else 'positive' if least else '0 or more'
            parser.error(f'--{name.replace("_", "-")} {value:g} must be {expected}')
    print(f'{args.pairs:,.0f} raw pairs of {args.pair_bytes:,.0f} bytes, {args.pairs * args.keep:,.0f} kept;')
    machines, cores = _count(args.machines, 'machine'), _count(args.cores, 'core')
    print(f'{machines} with {cores}, {args.network:g} Gbit/s{" each" * (args.machines != 1)}')
    print(show(plan(args)))


if __name__ == '__main__':
    main()
