"""Speed and memory of the data engine (florence_mm/curation/) on generated pairs and columns, one process each.

python tools/benchmarks/curation.py [--only stage_b] [--pairs 2000] [--rows 2000000] [--hashes 1400000]

- ``hamming``: near-duplicates within 3 of 64 bits.
- ``stage_a`` and ``stage_c``: JPEG files of 512x384 in a tar to a sidecar, and to a curated tar, by one process.
- ``stage_b``: scores, near-duplicates, balance, order over columns, with DuckDB, and with Daft where it is there; the
  files of both are compared.
- ``embeddings``: near features through cells, and how many of the planted ones they find.

Seconds are of the clock, CPU seconds of all threads; memory is the most that the process ever held.
"""

import argparse
import importlib.util
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
from photographs import natural_jpeg
from pyarrow import parquet

from florence_mm.curation.columns import POSITION_BITS
from florence_mm.curation.embeddings import find_near_features, quantize
from florence_mm.curation.hamming import choose, find_near
from florence_mm.curation.inputs import find_shards
from florence_mm.curation.options import InputOptions, StageAOptions, StageBOptions
from florence_mm.curation.stage_a import process_shard, sidecar_path
from florence_mm.curation.stage_b import DROPS_NAME, KEPT_NAME, select
from florence_mm.curation.stage_c import Part, Places, read_kept, write_part
from florence_mm.formats.shards import write_shard

CHOICES = ('hamming', 'stage_a', 'stage_b', 'stage_c', 'embeddings')
SHARDS = 20
#: Bits of a hash below two of five blocks.
TWO_BLOCKS = 38
QUERIES = 50_000
#: Pictures of which another row has a copy with up to 3 bits changed.
NEAR = 0.08


def flipped(hashes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Hashes with 0 to 3 bits changed."""
    for _ in range(3):
        bits = np.uint64(1) << generator.integers(0, 64, len(hashes)).astype(np.uint64)
        hashes = np.where(generator.random(len(hashes)) < 0.5, hashes ^ bits, hashes)
    return hashes


def make_hashes(count: int, generator: np.random.Generator) -> np.ndarray:
    """Hashes in random order, some of them near to others; different ones only."""
    near = int(count * NEAR)
    base = generator.integers(0, 2**64, count - near, np.uint64)
    return generator.permutation(np.unique(np.concatenate([base, flipped(base[:near], generator)])))


def write_sidecars(folder: Path, rows: int) -> list[Path]:
    """Columns as stage A writes them, those that stage B reads: a third of the rows has another's picture."""
    generator = np.random.default_rng(0)
    hashes = make_hashes(int(rows * 0.7), generator)
    paths = []
    for shard in range(SHARDS):
        size = rows // SHARDS
        queries = np.char.add('query ', (generator.zipf(1.3, size) % QUERIES).astype(str))
        table = pa.table(
            {
                'id': np.arange(size, dtype=np.int64) + (shard << POSITION_BITS),
                'phash': generator.choice(hashes, size),
                'label': generator.integers(0, rows // 2, size),
                'query': pa.array(queries, pa.string(), mask=generator.random(size) < 0.2),
                'words': generator.integers(1, 20, size).astype(np.int32),
                'sampling': generator.integers(0, 2**64, size, np.uint64),
                'score': generator.normal(0.3, 0.1, size).astype(np.float32),
                'drop': pa.array(np.full(size, 'too_small'), pa.string(), mask=generator.random(size) >= 0.05),
            }
        )
        paths.append(folder / f'{shard:05}.parquet')
        parquet.write_table(table, paths[-1], compression='zstd')
    return paths


def report(name: str, work: Callable[[], str]) -> None:
    """Run a measurement and print its line."""
    before, start, cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter(), time.process_time()
    said = work()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f'{name}: {seconds:.1f} s, {cpu:.1f} CPU s, {peak / 1024:.0f} MiB ({before / 1024:.0f} before): {said}',
        flush=True,
    )


def measure_hamming(count: int, alike: float) -> None:
    """Near pairs of hashes and the choice of what stays; a share of them agrees in two whole blocks of five."""
    hashes = make_hashes(count, np.random.default_rng(0))
    hashes[: round(alike * count)] &= np.uint64(2**TWO_BLOCKS - 1)
    hashes = np.unique(hashes)

    def work() -> str:
        found = find_near(hashes)
        stays = int((choose(len(hashes), found.pairs) == np.arange(len(hashes))).sum())
        return f'{len(hashes)} hashes, {found.compared} compared, {len(found.pairs)} near pairs, {stays} stay'

    report('hamming', work)


def measure_pictures(folder: Path, count: int) -> None:
    """Stages A and C on one tar, by one process with one thread."""
    cv2.setNumThreads(1)
    pictures = [natural_jpeg(seed, 512, 384, quality=75) for seed in range(100)]
    samples = (
        (f'{i:06}', {'jpg': pictures[i % 100], 'txt': f'a cloud of number {i} over the hills'.encode()})
        for i in range(count)
    )
    write_shard(folder / 'raw/00000.tar', samples)
    shards = find_shards([InputOptions('tars', str(folder / 'raw'))], folder / 'lists')
    size = Path(shards[0].path).stat().st_size

    def stage_a() -> str:
        digest.append(process_shard(shards[0], StageAOptions(), folder).digest)
        return f'{count} pairs of {size / count:.0f} bytes, {sidecar.stat().st_size / count:.0f} of sidecar a pair'

    def stage_c() -> str:
        places = Places(shards, [(sidecar, digest[0])], folder, folder / 'out')
        write_part(Part(0, 0, *read_kept(folder / 'b' / KEPT_NAME)), places)
        return f'{count} pairs, {size / 1e6:.0f} MB'

    digest: list[str] = []
    sidecar = sidecar_path(folder, 0)
    report('stage_a', stage_a)
    select([sidecar], folder / 'b', StageBOptions(duplicates='all'))
    report('stage_c', stage_c)


def measure_embeddings(count: int, width: int = 512) -> None:
    """Near features: a tenth of them is another one, turned by a cosine of about 0.95, and 0.9 is asked for."""
    generator = np.random.default_rng(0)
    base = generator.standard_normal((count, width), np.float32)
    near = count // 10
    noise = generator.standard_normal((near, width), np.float32)
    base[-near:] = base[:near] + 0.33 * noise
    features, sampling = quantize(base), generator.integers(0, 2**64, count, np.uint64)
    del base, noise

    def work() -> str:
        found = find_near_features(features, sampling, 0.9)
        planted, others = int(found[-near:].sum()), int(found[:-near].sum())
        return f'{count} features of {width} values, {planted} of {near} planted found, {others} others'

    report('embeddings', work)


def measure_stage_b(folder: Path, engine: str) -> None:
    """All steps over the columns."""
    options = StageBOptions(
        min_score=0.2, max_per_query=1000, max_per_text=20, short_words=2, engine=engine, memory='400MB', threads=2
    )
    sidecars = sorted((folder / 'stage_a').glob('*.parquet'))

    def work() -> str:
        select(sidecars, folder / engine, options)
        rows = [parquet.read_metadata(folder / engine / name).num_rows for name in (KEPT_NAME, DROPS_NAME)]
        return f'{rows[0]} kept, {rows[1]} dropped'

    report(f'stage_b, {engine}', work)


def main() -> int:
    """Command line; exit status 1 when two engines differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', choices=CHOICES, help='one measurement (default: all)')
    parser.add_argument('--pairs', type=int, default=2000, help='pairs of stage_a and stage_c (default: 2000)')
    parser.add_argument('--rows', type=int, default=2_000_000, help='rows of stage_b (default: 2000000)')
    parser.add_argument('--hashes', type=int, default=1_400_000, help='hashes of hamming (default: 1400000)')
    parser.add_argument('--alike', type=float, default=0.0, help='share of them with two equal blocks (default: 0)')
    parser.add_argument('--features', type=int, default=100_000, help='features of embeddings (default: 100000)')
    parser.add_argument('--engine', help=argparse.SUPPRESS)
    parser.add_argument('--folder', type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.engine:
        measure_stage_b(args.folder, args.engine)
        return 0
    if args.folder:
        (args.folder / 'stage_a').mkdir()
        write_sidecars(args.folder / 'stage_a', args.rows)
        return 0
    if args.only == 'hamming':
        measure_hamming(args.hashes, args.alike)
        return 0
    if args.only == 'embeddings':
        measure_embeddings(args.features)
        return 0
    if args.only in ('stage_a', 'stage_c'):
        with tempfile.TemporaryDirectory() as folder:
            measure_pictures(Path(folder), args.pairs)
        return 0
    call = [sys.executable, __file__]
    if args.only is None:
        sizes = {'hamming': ('hashes', args.hashes), 'stage_a': ('pairs', args.pairs)}
        sizes['embeddings'] = ('features', args.features)
        for name, (option, size) in sizes.items():
            subprocess.run([*call, '--only', name, f'--{option}', str(size)], check=True)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*call, '--folder', folder, '--rows', str(args.rows)], check=True)
        engines = [name for name in ('duckdb', 'daft') if importlib.util.find_spec(name)]
        for engine in engines:
            subprocess.run([*call, '--folder', folder, '--engine', engine], check=True)
        files = [[Path(folder, engine, name).read_bytes() for name in (KEPT_NAME, DROPS_NAME)] for engine in engines]
    if any(found != files[0] for found in files):
        print('two engines wrote different files')
        return 1
    print(f'{" and ".join(engines)} wrote the same bytes' if len(engines) > 1 else 'one engine is installed')
    return 0


if __name__ == '__main__':
    sys.exit(main())
