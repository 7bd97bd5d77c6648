"""Memory of a merged detection data set: the peak while it is read, and afterwards.

    python tools/benchmarks/detection_memory.py [--images 20000] [--boxes 10]

The file is generated, federated as FLOD-9M's is, and read in a process of its own.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CLASSES = 1000


def write(path: Path, images: int, boxes: int) -> None:
    """A merged file whose images each have ``boxes`` boxes and three verified negatives."""
    rng = random.Random(0)
    ids = range(1, CLASSES + 1)
    with path.open('w') as file:
        file.write(f'{{"categories": {json.dumps([{"id": i, "name": f"class {i}"} for i in ids])},\n"images": [')
        for i in range(images):
            image = {'id': i, 'file_name': f'train/{rng.getrandbits(64):016x}.jpg', 'width': 1024, 'height': 768}
            image |= {'source': 'a', 'neg_category_ids': rng.sample(ids, 3), 'not_exhaustive_category_ids': []}
            file.write(',\n'[not i :] + json.dumps(image))
        file.write('],\n"annotations": [')
        for i in range(images * boxes):
            box = [round(rng.uniform(5, 400), 2) for _ in range(4)]
            item = {'id': i, 'image_id': i // boxes, 'category_id': rng.choice(ids), 'bbox': box}
            file.write(',\n'[not i :] + json.dumps(item | {'area': round(box[2] * box[3], 2), 'iscrowd': 0}))
        source = {'name': 'a', 'category_ids': list(ids), 'federated': True}
        file.write(f'],\n"sources": {json.dumps([source])}}}\n')


def peak() -> float:
    """The most memory this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def read(path: str) -> None:
    """Print what reading took, beyond the imports."""
    from florence_mm.datasets import DetectionDataset

    before, start = peak(), time.process_time()
    dataset = DetectionDataset(path, check_files=False)
    seconds, most = time.process_time() - start, peak() - before
    print(f'{len(dataset)} images: {most:.0f} MiB at most, {seconds:.1f} s of one core')
    print(f'afterwards {(dataset.data_bytes.nbytes + dataset.data_address.nbytes) / 2**20:.0f} MiB')


def main() -> None:
    """Write a file, and read it in a process of its own."""
    parser = argparse.ArgumentParser(description='Memory that a data set of a merged detection file takes')
    parser.add_argument('--images', type=int, default=20_000)
    parser.add_argument('--boxes', type=int, default=10, help='of an image (default: 10)')
    parser.add_argument('--read', metavar='FILE.json', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.read:
        read(args.read)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'merged.json'
        write(path, args.images, args.boxes)
        print(f'{path.stat().st_size / 2**20:.0f} MiB, {args.images * args.boxes} boxes')
        subprocess.run([sys.executable, __file__, '--read', str(path)], check=True)


if __name__ == '__main__':
    main()
