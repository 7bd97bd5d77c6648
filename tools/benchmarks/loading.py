"""Speed from JPEG files to a normalised batch, compared with torchvision's ImageFolder and transforms on PIL images.

python tools/benchmarks/loading.py [--pictures FOLDER] [--only NAME] [--rounds N] [--out FILE]

Both sides read the same files, which are in the system's cache: generated pictures with edges and texture of all sizes,
saved with quality 90, or with ``--pictures`` the JPEG files of a folder, resized to the same sizes. Both draw the same
random numbers, so that their batches are compared before they are timed: one level of 255 apart, with ``scaled`` by the
PSNR, which is printed. ``floor`` is OpenCV's decoder alone, at the size that the case decodes.
"""

import argparse
import itertools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from common import Case, Pair, main
from mmengine.dataset import pseudo_collate
from photographs import natural_jpeg
from PIL import Image
from torch.utils.data import default_collate
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.transforms import functional

import florence_mm  # noqa: F401  (patches the stack before the peers are imported)
from florence_mm.datasets import ImageFolderText
from florence_mm.datasets.transforms import RandomResizedCrop
from florence_mm.models.preprocessor import IMAGENET_MEAN, IMAGENET_STD, ImageTextDataPreprocessor

SIZES = {'640x480': (640, 480), '1920x1080': (1920, 1080)}
#: pictures a batch
COUNTS = {'640x480': 16, '1920x1080': 4}
#: area of a crop, of the picture's, as in our pre-training
AREA = (0.5, 1.0)
# one level, relative to the largest normalised value as the comparison counts
LEVEL = 1.02 / (255 - min(IMAGENET_MEAN))

LOAD, PACK = {'type': 'florence_mm.LoadImage'}, {'type': 'florence_mm.PackImageText'}
CROP = {'type': 'florence_mm.RandomResizedCrop', 'scale': 224, 'crop_ratio_range': AREA}
FLIP = {'type': 'mmcv.RandomFlip', 'prob': 0.5}
PIPELINES = {
    'train': [LOAD, CROP, FLIP, PACK],
    'train_scaled': [{**LOAD, 'scaled': True}, CROP, FLIP, PACK],
    'test': [
        LOAD,
        {'type': 'florence_mm.ResizeEdge', 'scale': 256},
        {'type': 'mmcv.CenterCrop', 'crop_size': 224},
        PACK,
    ],
}


def folder(size: str, source: str | None, home: Path) -> Path:
    """Write the JPEG files of one size below ``home``, once, with one class, as ``ImageFolder`` reads them."""
    root = home / size
    if root.exists():
        return root
    (root / 'class').mkdir(parents=True)
    width, height = SIZES[size]
    given = sorted(path for path in Path(source).iterdir() if path.suffix in ('.jpg', '.jpeg')) if source else ()
    for number in range(COUNTS[size]):
        path = root / 'class' / f'{number:02}.jpg'
        if given:
            image = Image.open(given[number % len(given)]).convert('RGB').resize((width, height), Image.BICUBIC)
            image.save(path, quality=90)
        else:
            path.write_bytes(natural_jpeg(number, width, height))
    return root


class _Crop(transforms.RandomResizedCrop):
    """torchvision's transform with the random numbers of ours."""

    ours = RandomResizedCrop(224, AREA)

    def get_params(self, img: Image.Image, scale: list[float], ratio: list[float]) -> tuple[int, int, int, int]:
        return self.ours.draw(img.size[::-1])


class _Flip(torch.nn.Module):
    """torchvision's flip with the random numbers of mmcv's."""

    def forward(self, img: Image.Image) -> Image.Image:
        return functional.hflip(img) if np.random.random() < 0.5 else img


def _seeded(batch: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    seeds = itertools.count()

    def run() -> torch.Tensor:
        np.random.seed(next(seeds))
        return batch()

    return run


def peer(root: Path, train: bool) -> Callable[[], torch.Tensor]:
    """torchvision's ImageFolder and transforms, and PyTorch's collate."""
    bicubic = transforms.InterpolationMode.BICUBIC
    if train:
        first = [_Crop(224, scale=AREA, interpolation=bicubic), _Flip()]
    else:
        first = [transforms.Resize(256, interpolation=bicubic), transforms.CenterCrop(224)]
    mean, std = ([value / 255 for value in values] for values in (IMAGENET_MEAN, IMAGENET_STD))
    steps = transforms.Compose([*first, transforms.ToTensor(), transforms.Normalize(mean, std)])
    data = ImageFolder(str(root), steps)
    return _seeded(lambda: default_collate([data[i] for i in range(len(data))])[0])


def ours(root: Path, pipeline: str) -> Callable[[], torch.Tensor]:
    """A pipeline, the collate and the data preprocessor of our configs."""
    data = ImageFolderText(str(root), pipeline=PIPELINES[pipeline], test_mode=pipeline == 'test')
    preprocessor = ImageTextDataPreprocessor()
    return _seeded(lambda: preprocessor(pseudo_collate([data[i] for i in range(len(data))]))['inputs'])


def decoder(root: Path, flag: int) -> Callable[[], torch.Tensor]:
    """OpenCV's decoder alone; gives zeros of the batch's shape, as there is nothing to compare."""
    files = [np.fromfile(path, np.uint8) for path in sorted(root.rglob('*.jpg'))]
    nothing = torch.zeros(1)

    def run() -> torch.Tensor:
        for data in files:
            cv2.imdecode(data, flag)
        return nothing

    return run


def _print_psnr(first: torch.Tensor, second: torch.Tensor) -> None:
    levels = (first - second) * torch.tensor(IMAGENET_STD).view(3, 1, 1)
    errors = levels.square().mean((1, 2, 3))
    print('  PSNR of the pictures, dB:', *(f'{10 * np.log10(255**2 / error):.1f}' for error in errors.tolist()))


def pair(size: str, pipeline: str, source: str | None, home: Path) -> Pair:
    """One pipeline beside torchvision's."""
    root = folder(size, source, home)
    sides = ours(root, pipeline), peer(root, pipeline != 'test')
    if pipeline == 'train_scaled':
        _print_psnr(sides[0](), sides[1]())
        return Pair(*sides, tolerance=1.0)
    return Pair(*sides, tolerance=1.02 * LEVEL)


def floor(size: str, flag: int, source: str | None, home: Path) -> Pair:
    """The decoder alone beside our pipeline: what remains if everything else cost nothing."""
    root = folder(size, source, home)
    whole = ours(root, 'train' if flag == cv2.IMREAD_COLOR else 'train_scaled')
    nothing = torch.zeros(1)
    return Pair(decoder(root, flag), lambda: (whole(), nothing)[1])


def cases(source: str | None, home: Path) -> list[Case]:
    """The comparisons of this file, with a folder of pictures or None for generated ones, written below ``home``."""
    bars = {
        ('train', '640x480'): 2.2,
        ('test', '640x480'): 2.2,
        ('train', '1920x1080'): 2.2,
        ('test', '1920x1080'): 2.2,
        ('train_scaled', '1920x1080'): 4.0,
    }
    timed = [
        Case(f'{pipeline}_{size}', bar, lambda p=pipeline, s=size: pair(s, p, source, home), rounds=11)
        for (pipeline, size), bar in bars.items()
    ]
    flags = {
        '640x480': cv2.IMREAD_COLOR,
        '1920x1080': cv2.IMREAD_COLOR,
        '1920x1080_quarter': cv2.IMREAD_REDUCED_COLOR_4,
    }
    floors = [
        Case(f'floor_{name}', 0.0, lambda n=name, f=flag: floor(n.partition('_')[0], f, source, home), rounds=11)
        for name, flag in flags.items()
    ]
    return timed + floors


if __name__ == '__main__':
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument('--pictures', help='a folder with JPEG files')
    own, rest = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix='florence_mm_') as home:
        sys.exit(main(cases(own.pictures, Path(home)), rest))
