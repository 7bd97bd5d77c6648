"""Cost of the order of an epoch over hundreds of millions of samples, and of the list of their shards.

python tools/benchmarks/sample_order.py [--samples 900000000] [--shards 90000] [--draws 100000]

Prints CPU microseconds a sample and the memory that Python allocates (``tracemalloc``): of the order that computes the
sample of each place, of the order in blocks of shards, and of ``index.json`` while it is read and once it is.
"""

import argparse
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np

from florence_mm.config.arguments import positive_int
from florence_mm.datasets.order_parts import OrderPart
from florence_mm.engine.samplers import ResumableSampler
from florence_mm.formats.shards import Shard, read_set, write_set

MB = 1e6
#: Shards of a block, whose samples are shuffled together.
BLOCK = 16


class Samples:
    """A data set of which only the number of samples is known."""

    def __init__(self, total: int) -> None:
        self.total = total

    def __len__(self) -> int:
        return self.total


class Shards(Samples):
    """A data set in shards that are fetched from a store."""

    def __init__(self, ends: np.ndarray) -> None:
        super().__init__(int(ends[-1]))
        self.ends = ends

    def order_parts(self) -> list[OrderPart]:
        """The one part, in blocks of shards."""
        return [OrderPart(len(self), self.ends, BLOCK, self.fetch)]

    def fetch(self, shards: list[int]) -> None:
        """Fetch nothing."""


def allocated(call: Callable[[], Any]) -> tuple[Any, float, float, float]:
    """Call twice: for its CPU seconds, and for the bytes that are held after it and at most."""
    start = time.process_time()
    call()
    seconds = time.process_time() - start
    tracemalloc.start()
    result = call()
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return result, seconds, held, most


def measure_order(data: Samples, draws: int) -> None:
    """Draw samples from the middle of a run, where blocks change too."""

    def work() -> ResumableSampler:
        sampler = ResumableSampler(data, seed=1, infinite=True)
        sampler.start_at(len(data) // 3)
        for _ in islice(sampler, draws):
            pass
        return sampler

    sampler, seconds, held, _ = allocated(work)
    print(f'{sampler.order_name}: {seconds / draws * 1e6:.1f} µs a sample, {held / MB:.1f} MB held')


def main() -> None:
    """Measure both orders and the list of shards."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--samples', type=positive_int, default=900_000_000, help='samples (default: 900000000)')
    parser.add_argument('--shards', type=positive_int, default=90_000, help='their shards (default: 90000)')
    parser.add_argument('--draws', type=positive_int, default=100_000, help='samples drawn (default: 100000)')
    args = parser.parse_args()
    bounds = np.linspace(0, args.samples, args.shards + 1).astype(np.int64)
    measure_order(Samples(args.samples), args.draws)
    measure_order(Shards(bounds[1:]), args.draws)
    digests = [f'{number:032x}' for number in range(args.shards)]
    shards = [
        Shard(f'{number:05}.tar', samples, 10**9, digests[number], digests[-1 - number])
        for number, samples in enumerate(np.diff(bounds).tolist())
    ]
    with tempfile.TemporaryDirectory() as folder:
        write_set(folder, shards)
        _, seconds, held, most = allocated(lambda: read_set(folder))
    print(
        f'list of {args.shards} shards: {seconds:.2f} CPU s, {most / MB:.0f} MB while it is read, {held / MB:.0f} held'
    )


if __name__ == '__main__':
    main()
