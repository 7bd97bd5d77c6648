"""Speed of training data from shards: beside plain files, webdataset and torchvision, and by several workers.

python tools/benchmarks/shards.py [--only NAME] [--rounds N] [--out FILE]
python tools/benchmarks/shards.py --workers [--pictures N]

Without ``--workers`` one process reads and decodes the same generated JPEG files on both sides, whose results are
compared first: from shards in random order, from files, from tars by webdataset; and from shards to a batch beside
torchvision's ImageFolder. With it, data loaders of one and two workers are timed by the clock, so nothing else should
run: pictures a second, the time to the first batch of a run that resumes, and how long a consumer that takes 500
pictures a second waits.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from common import Case, Pair, main
from loading import LEVEL, PIPELINES, folder, peer
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader

from florence_mm.datasets import ImageTextManifest, ImageTextShards
from florence_mm.datasets.collating import collate_in_one_piece
from florence_mm.datasets.transforms import LoadImage
from florence_mm.engine.dataloading import SeededDataset, start_loader_at
from florence_mm.engine.samplers import ResumableSampler
from florence_mm.formats.shards import write_set, write_shard
from florence_mm.models.preprocessor import ImageTextDataPreprocessor

LOAD = [{'type': 'florence_mm.LoadImage'}]
SHARDS = 4
BATCH = 50
#: Pictures a second that the consumer takes.
RATE = 500


def files(size: str, home: Path) -> list[Path]:
    """JPEG files of one size, written below ``home`` once."""
    return sorted((folder(size, None, home) / 'class').iterdir())


def shards(size: str, home: Path, copies: int = 1) -> Path:
    """Write the files into a set of shards below ``home``, each ``copies`` times."""
    contents = [path.read_bytes() for path in files(size, home)] * copies
    root = Path(tempfile.mkdtemp(dir=home))
    for shard in range(SHARDS):
        samples = (
            (f'{number:06}', {'jpg': contents[number], 'json': json.dumps({'text': f'picture {number}'}).encode()})
            for number in range(shard, len(contents), SHARDS)
        )
        write_shard(root / f'{shard:05}.tar', samples)
    write_set(root)
    return root


def _means(pictures: Iterator[tuple[int, np.ndarray]]) -> torch.Tensor:
    """Mean of each picture, in the order of their numbers; nearly free beside decoding."""
    found = {number: float(picture[::16, ::16].mean()) for number, picture in pictures}
    return torch.tensor([found[number] for number in sorted(found)])


def _number(sample: dict) -> int:
    return int(sample['text'].split()[1])


def _in_random_order(data: ImageTextShards | ImageTextManifest) -> Callable[[], torch.Tensor]:
    order = np.random.default_rng(0).permutation(len(data)).tolist()
    return lambda: _means((_number(one), one['img']) for one in map(data.__getitem__, order))


def from_shards(size: str, home: Path) -> Callable[[], torch.Tensor]:
    """Read shards by their index in random order, and decode."""
    return _in_random_order(ImageTextShards(str(shards(size, home)), pipeline=LOAD))


def from_files(size: str, home: Path) -> Callable[[], torch.Tensor]:
    """Read the files of a manifest in the same order, and decode: what is there without shards."""
    rows = [json.dumps({'image': str(path), 'text': f'picture {n}'}) for n, path in enumerate(files(size, home))]
    manifest = home / f'{size}.jsonl'
    manifest.write_text('\n'.join(rows))
    return _in_random_order(ImageTextManifest(str(manifest), pipeline=LOAD))


def from_webdataset(size: str, home: Path) -> Callable[[], torch.Tensor]:
    """Stream the same tars by webdataset, and decode by the same transform."""
    import webdataset

    tars = [str(path) for path in sorted(shards(size, home).glob('*.tar'))]
    load = LoadImage()

    def run() -> torch.Tensor:
        read = webdataset.WebDataset(tars, shardshuffle=False)
        samples = ({'img_path': '', 'img_bytes': one['jpg'], **json.loads(one['json'])} for one in read)
        return _means((_number(one), one['img']) for one in map(load, samples))

    return run


def to_batch(size: str, pipeline: str, home: Path) -> Callable[[], torch.Tensor]:
    """A training pipeline from shards to a batch, in the order of the files, with torchvision's random numbers."""
    data = ImageTextShards(str(shards(size, home)), pipeline=PIPELINES[pipeline])
    total = len(data)
    places = [
        number // SHARDS + sum(-(-(total - s) // SHARDS) for s in range(number % SHARDS)) for number in range(total)
    ]
    preprocessor = ImageTextDataPreprocessor()
    seeds = iter(range(10**9))

    def run() -> torch.Tensor:
        np.random.seed(next(seeds))
        return preprocessor(pseudo_collate([data[place] for place in places]))['inputs']

    return run


def beside_torchvision(size: str, pipeline: str, home: Path) -> Pair:
    """The whole way from shards beside torchvision's from a folder."""
    tolerance = 1.0 if pipeline == 'train_scaled' else 1.02 * LEVEL
    return Pair(to_batch(size, pipeline, home), peer(folder(size, None, home), True), tolerance)


def cases(home: Path) -> list[Case]:
    """The comparisons in one process; what they read is written below ``home``."""
    small, large = '640x480', '1920x1080'

    def pair(peer_of: Callable[[str, Path], Callable[[], torch.Tensor]]) -> Pair:
        return Pair(from_shards(small, home), peer_of(small, home))

    return [
        Case('index_vs_files', 0.97, lambda: pair(from_files), rounds=11),
        Case('index_vs_webdataset', 1.0, lambda: pair(from_webdataset), rounds=11),
        Case('train_640x480', 2.2, lambda: beside_torchvision(small, 'train', home), rounds=11),
        Case('train_1920x1080', 2.2, lambda: beside_torchvision(large, 'train', home), rounds=9),
        Case('train_scaled_1920x1080', 4.0, lambda: beside_torchvision(large, 'train_scaled', home), rounds=9),
    ]


def _loader(root: Path, workers: int, infinite: bool = True) -> DataLoader:
    data = ImageTextShards(str(root), pipeline=PIPELINES['train'])
    sampler = ResumableSampler(data, seed=0, infinite=infinite)
    return DataLoader(
        SeededDataset(data),
        batch_size=BATCH,
        sampler=sampler,
        num_workers=workers,
        collate_fn=collate_in_one_piece,
        prefetch_factor=2 if workers else None,
        worker_init_fn=_one_thread,
    )


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)


def time_workers(root: Path, workers: int, pictures: int) -> tuple[float, float]:
    """Seconds to the first batch of a run that resumes at batch 1,000, and pictures a second after that."""
    start = time.perf_counter()
    stream = start_loader_at(_loader(root, workers), 0, 1000)
    next(stream)
    first = time.perf_counter() - start
    for _ in range(2 * workers):  # what was prefetched meanwhile
        next(stream)
    start = time.perf_counter()
    for _ in range(pictures // BATCH):
        next(stream)
    return first, pictures / (time.perf_counter() - start)


def share_of_waiting(root: Path, workers: int, pictures: int) -> float:
    """Share of the time in which a consumer of :data:`RATE` pictures a second waits."""
    stream = start_loader_at(_loader(root, workers), 0, 0)
    next(stream)
    waited, begin = 0.0, time.perf_counter()
    for _ in range(pictures // BATCH):
        time.sleep(BATCH / RATE)
        start = time.perf_counter()
        next(stream)
        waited += time.perf_counter() - start
    return waited / (time.perf_counter() - begin)


def cpu_of_workers(root: Path, workers: int) -> tuple[float, float]:
    """Milliseconds of CPU that a picture takes in the workers and in the main process, over an epoch.

    Unlike pictures a second they hardly depend on what else runs on the machine.
    """
    loader = _loader(root, workers, infinite=False)
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.process_time()
    for _ in loader:
        pass
    own = time.process_time() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)  # of the workers, which have ended
    spent = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return 1e3 * spent / len(loader.dataset), 1e3 * own / len(loader.dataset)


def by_workers(pictures: int, home: Path) -> None:
    """Print pictures a second of one and two workers, in turns."""
    root = shards('640x480', home, copies=20)
    for workers in (1, 2, 1, 2):
        spent, own = cpu_of_workers(root, workers)
        rate = workers * 1e3 / max(spent, workers * own)
        print(
            f'{workers} workers: {spent:.2f} ms of CPU a picture, main process {own:.3f}: at most {rate:.0f} pictures/s'
        )
    rates: dict[int, list[float]] = {1: [], 2: []}
    for round_ in range(3):
        for workers in (1, 2)[:: 1 if round_ % 2 else -1]:
            first, rate = time_workers(root, workers, pictures)
            rates[workers].append(rate)
            print(f'{workers} workers: {rate:.0f} pictures/s, first batch of a resumed run after {first:.2f} s')
    ratio = np.median(np.array(rates[2]) / np.array(rates[1]))
    print(f'two workers / one: {ratio:.2f} (median of {len(rates[1])}), bar 1.90')
    waiting = share_of_waiting(root, 2, pictures)
    print(f'a consumer of {RATE} pictures/s with two workers waits {waiting:.1%} of the time')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument('--workers', action='store_true', help='time data loaders of one and two workers')
    parser.add_argument('--pictures', type=int, default=1000, help='pictures of each timing (default: 1000)')
    own, rest = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix='florence_mm_') as name:
        if own.workers:
            by_workers(own.pictures, Path(name))
        else:
            sys.exit(main(cases(Path(name)), rest))
