"""A sampler that keeps samples of the same image together, for models that encode equal images of a batch once."""

from collections.abc import Iterable, Iterator, Sized
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset

from florence_mm.registry import DATA_SAMPLERS
from florence_mm.utils.progress import ProgressLog
from florence_mm.utils.seeded import SeededIndex

from .samplers import ResumableSampler
from .seeding import ORDER, SAMPLE, combine_seeds


@DATA_SAMPLERS.register_module()
class PictureSampler(ResumableSampler):
    """Sampler that draws all samples of an image consecutively, so that few batches split an image.

    Shuffling permutes the images, and the samples within each. Each of ``W`` processes gets a contiguous part of that
    order; at most ``W - 1`` images are split between processes. In an epoch all samples of an image get the same seed,
    so that random transforms leave their images equal.

    A run resumes exactly with the same number of processes; with another number, the rest of that epoch repeats some
    samples and omits others. Each index must always give the same sample, so the data set must not be a mixture that
    draws its rows.

    Args:
        dataset (Sized): A data set with ``get_data_info``, or a concatenation of such.
        shuffle (bool): Draw a new order every epoch. Otherwise images are in the order of their first samples.
        seed (int, optional): Seed of the order and the samples; None: a random one that all ranks share.
        infinite (bool): Continue with the next epoch without end, for training by iterations. Defaults to False.
        round_up (bool): Give every rank the same number of samples per epoch; if the data set does not divide evenly,
            some ranks also take the first sample of the next rank's part. Always so for infinite sampling. Defaults to
            True.
        key (str): Field of the samples that identifies the image.
        together (int, optional): Most samples of an image that come consecutively when shuffling; an image that has
            more is drawn several times an epoch, so that batches have more images. None: all.

    Raises:
        ValueError: the data set is empty, its samples do not have ``key``, or ``together`` is below 1.
    """

    def __init__(
        self,
        dataset: Sized,
        shuffle: bool = True,
        seed: int | None = None,
        infinite: bool = False,
        round_up: bool = True,
        key: str = 'img_path',
        together: int | None = None,
    ) -> None:
        if together is not None and together < 1:
            raise ValueError(f'together is {together}; give at least 1 sample of an image, or None for all')
        super().__init__(dataset, shuffle, seed, infinite, round_up, order='drawn')
        self.key, self.together = key, together
        numbers: dict[Any, int] = {}
        progress = ProgressLog('finding the samples of each image', len(dataset))
        found = []
        for done, image in enumerate(_image_keys(dataset, key), 1):
            found.append(numbers.setdefault(image, len(numbers)))
            progress.update(done)
        self._image_of = torch.tensor(found)  # (samples,), images numbered by their first sample
        self._num_images = len(numbers)
        self._cached: tuple[tuple[int, int], Tensor, Tensor] | None = None

    def __len__(self) -> int:
        """Number of samples of this rank per epoch."""
        size, world = len(self.dataset), self.world_size
        if self.round_up or self.infinite:
            return -(-size // world)
        return (self.rank + 1) * size // world - self.rank * size // world

    def _infinite(self, start: int) -> Iterator[int]:
        step = self._first_step(start)
        while True:
            yield self._at(*divmod(step, len(self)))
            step += 1

    def _one_epoch(self, start: int, epoch: int) -> Iterator[int]:
        for step in range(self._first_step(start), len(self)):
            yield self._at(epoch, step)

    def _first_step(self, draw: int) -> int:
        """First step of this rank at or after global draw ``draw``, as it takes every ``W``-th draw."""
        return -((self.rank - draw) // self.world_size)

    def _at(self, epoch: int, step: int) -> SeededIndex:
        samples, images = self._epoch(epoch)
        # the last part ends with the data set even with rounding up
        place = self.rank * len(samples) // self.world_size + step
        return SeededIndex(int(samples[place]), combine_seeds(self.seed, SAMPLE, epoch, int(images[place])))

    def _epoch(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Samples in the order of an epoch, and the position of the image of each; cached for one epoch."""
        if self._cached is None or self._cached[0] != (self.seed, epoch):
            samples, places = torch.arange(len(self._image_of)), torch.arange(self._num_images)
            if self.shuffle:
                generator = torch.Generator().manual_seed(combine_seeds(self.seed, ORDER, epoch))
                samples = torch.randperm(len(samples), generator=generator)
                places = torch.randperm(len(places), generator=generator)
            images, order = places[self._image_of[samples]].sort(stable=True)
            samples = samples[order]
            if self.shuffle and self.together is not None:
                order = _shuffled_groups(images, self.together, generator)
                samples, images = samples[order], images[order]
            self._cached = (self.seed, epoch), samples, images
        return self._cached[1], self._cached[2]


def _shuffled_groups(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Order that permutes groups of at most ``size`` consecutive samples of an image; ``images`` is sorted."""
    counts = images.bincount()
    within = torch.arange(len(images)) - (counts.cumsum(0) - counts)[images]
    group = (within.remainder(size) == 0).cumsum(0) - 1
    return torch.randperm(int(group[-1]) + 1, generator=generator)[group].argsort(stable=True)


def _image_keys(dataset: Any, key: str) -> Iterable:
    """Yield the field ``key`` of all samples.

    Raises:
        ValueError: a sample lacks it, or the data set has no ``get_data_info``.
    """
    parts = getattr(dataset, 'datasets', None)
    if isinstance(getattr(dataset, '_seeded', dataset), ConcatDataset):
        for part in parts:
            yield from _image_keys(part, key)
        return
    name = type(getattr(dataset, '_seeded', dataset)).__name__
    if not hasattr(dataset, 'get_data_info'):
        raise ValueError(f'data set {name} has no get_data_info, by which PictureSampler finds the samples of an image')
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        if key not in info:
            raise ValueError(
                f'sample {index} of data set {name} has no {key!r}; set `key` of PictureSampler to the field that '
                f'names its image, one of {", ".join(sorted(info))}'
            )
        yield info[key]
