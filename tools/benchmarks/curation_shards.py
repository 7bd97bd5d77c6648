"""Speed of stage A of the data engine (florence_mm/curation/) on generated pictures.

python tools/benchmarks/curation_shards.py [--only decoding processes ray] [--tars 12] [--pictures 200] [--rounds 3]

``decoding``: from the bytes of a JPEG file to its perceptual hash, decoded whole or at a half or a quarter, in CPU time
of one thread, both in turns; and by how many bits the hashes differ. ``processes``: raw tars to sidecars by one and by
two processes, in turns, by the clock, which wants an idle machine, and by CPU seconds of the busiest process. ``ray``:
the same as Ray tasks, beside two processes.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from photographs import natural_jpeg

from florence_mm.config.arguments import positive_int
from florence_mm.curation.hashing import LEAST_SIDE, perceptual_hash
from florence_mm.curation.inputs import RawShard, find_shards
from florence_mm.curation.options import InputOptions, StageAOptions
from florence_mm.curation.pool import run_tasks
from florence_mm.curation.stage_a import REDUCTIONS, process_shard
from florence_mm.errors import one_sentence_errors
from florence_mm.formats.image import decode_image
from florence_mm.formats.shards import write_shard

SIZES = ((400, 300), (640, 480), (1920, 1080))
#: Pixels of the shorter side that a tower is given at least (florence_mm/apis/relevance.py).
TOWER = 224


def measure_decoding(pictures: int, rounds: int) -> None:
    """Print how much quicker reduced decoding is, for the hash alone and for a tower too."""
    cv2.setNumThreads(1)
    for size in SIZES:
        files = [natural_jpeg(seed, *size) for seed in range(max(12, pictures * 40_000 // (size[0] * size[1])))]
        for name, least, grey in (('hash alone', LEAST_SIDE, True), ('hash and tower', TOWER, False)):
            by = next((by for by in REDUCTIONS if min(size) >= by * least), 1)
            if by == 1 and not grey:
                print(f'{size[0]} x {size[1]}, {name}: decoded whole')
                continue

            def seconds(reduction: int, grey: bool, files: Sequence[bytes] = files) -> tuple[float, list[int]]:
                start = time.process_time()
                hashes = [perceptual_hash(decode_image(data, reduction=reduction, grey=grey)) for data in files]
                return (time.process_time() - start) / len(files), hashes

            turns = [(seconds(1, False), seconds(by, grey)) for _ in range(rounds)]
            ratio = statistics.median(whole[0] / reduced[0] for whole, reduced in turns)
            bits = [(a ^ b).bit_count() for a, b in zip(turns[0][0][1], turns[0][1][1], strict=True)]
            whole, reduced = (min(turn[side][0] for turn in turns) * 1e3 for side in (0, 1))
            print(
                f'{size[0]} x {size[1]}, {name}: whole {whole:.2f} ms, at 1/{by} {reduced:.2f} ms, ratio {ratio:.2f}; '
                f'{np.mean(bits):.2f} bits differ, at most {max(bits)}, of {len(files)} pictures'
            )


def make_tars(folder: Path, tars: int, pictures: int) -> list[RawShard]:
    """Write raw tars of pictures of 640 x 480."""
    files = [natural_jpeg(seed, 640, 480) for seed in range(32)]
    for tar in range(tars):
        write_shard(
            folder / f'raw/{tar:05}.tar',
            (
                (f'{tar:05}{place:05}', {'jpg': files[(tar + place) % 32], 'txt': b'a picture of the benchmark'})
                for place in range(pictures)
            ),
        )
    return find_shards([InputOptions('tars', str(folder / 'raw'))], folder / 'lists')


def make_options(work: Path) -> tuple[StageAOptions, Path]:
    """What a process needs to work on shards."""
    return StageAOptions(), work


def work_on(shard: RawShard, context: tuple[StageAOptions, Path]) -> tuple[int, int, float]:
    """Write the sidecar of a shard; returns its number of pairs, the process, and its CPU seconds for them."""
    start = time.process_time()
    return process_shard(shard, *context).pairs, os.getpid(), time.process_time() - start


def clock(shards: Sequence[RawShard], folder: Path, workers: int, engine: str) -> tuple[float, float]:
    """Seconds of the clock for all shards, start of processes included, and CPU seconds of the busiest process."""
    work = folder / 'work'
    shutil.rmtree(work, ignore_errors=True)
    start = time.monotonic()
    found = list(run_tasks(work_on, shards, workers, engine, partial(make_options, work)))
    seconds = time.monotonic() - start
    busy: dict[int, float] = {}
    for _, process, spent in found:
        busy[process] = busy.get(process, 0.0) + spent
    total = sum(pairs for pairs, _, _ in found)
    cpu = ', '.join(f'{spent:.2f}' for spent in busy.values())
    print(f'  {workers} by {engine}: {total / seconds:.0f} pictures/s; CPU seconds of each: {cpu}', flush=True)
    return seconds, max(busy.values())


def compare(
    shards: Sequence[RawShard], folder: Path, rounds: int, first: tuple[int, str], second: tuple[int, str]
) -> tuple[float, float]:
    """How much quicker the second way is than the first, by the clock and by CPU seconds: medians of turns."""
    clock(shards[:2], folder, *second)  # starts what stays for all runs
    turns = [(clock(shards, folder, *first), clock(shards, folder, *second)) for _ in range(rounds)]
    by_clock, by_cpu = (statistics.median(one[side] / two[side] for one, two in turns) for side in (0, 1))
    return by_clock, by_cpu


def main() -> None:
    """Run the chosen measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ('decoding', 'processes', 'ray')
    parser.add_argument('--only', nargs='+', choices=names, default=names, help='measurements (default: all)')
    parser.add_argument('--tars', type=positive_int, default=12, help='raw tars (default: 12)')
    parser.add_argument('--pictures', type=positive_int, default=200, help='pictures of a tar (default: 200)')
    parser.add_argument('--rounds', type=positive_int, default=3, help='turns, of which the median counts (default: 3)')
    args = parser.parse_args()
    with one_sentence_errors(), tempfile.TemporaryDirectory(prefix='curation_') as name:
        folder = Path(name)
        if 'decoding' in args.only:
            measure_decoding(args.pictures, args.rounds)
        if set(args.only) == {'decoding'}:
            return
        shards = make_tars(folder, args.tars, args.pictures)
        if 'processes' in args.only:
            ratios = compare(shards, folder, args.rounds, (1, 'pool'), (2, 'pool'))
            print('two processes {:.2f} x one by the clock, {:.2f} x by CPU seconds of the busiest'.format(*ratios))
        if 'ray' in args.only:
            ratios = compare(shards, folder, args.rounds, (2, 'pool'), (2, 'ray'))
            print('Ray tasks {:.2f} x the pool by the clock, {:.2f} x by CPU seconds of the busiest'.format(*ratios))


if __name__ == '__main__':
    # Ray's processes find the functions of a module, not those of this script
    import curation_shards

    curation_shards.main()
