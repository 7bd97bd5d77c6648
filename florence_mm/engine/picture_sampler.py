"""A sampler that keeps the samples of an image together, for models that encode equal images of a batch once."""

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
    """Samples of one image one after the other, so that a batch holds whole images but for its first and last.

    Shuffling draws an order of the images, and of the samples within each. Each of ``W`` processes goes through its
    own stretch of that order; where two stretches meet, neighbours may share an image, at most ``W - 1`` in all.
    Samples of an image get the same seed in an epoch, so that random transforms leave their images equal.

    A run goes on exactly where it stopped with as many processes; with another number, the rest of that epoch repeats
    some samples and lacks others. The samples behind the indices must stay the same, so a mixture that draws its rows
    is no data set for this.

    Args:
        dataset (Sized): The data set; with ``get_data_info``, or a concatenation of such.
        shuffle (bool): Draw a new order every epoch. Otherwise images come in the order of their first samples.
        seed (int, optional): Seed of the order and of the samples; None takes one that all ranks share.
        infinite (bool): Go on with the next epoch's order without an end, for training by iterations. Defaults to
            False.
        round_up (bool): An epoch gives every rank the same number of samples; where the data set does not divide,
            some ranks also take the first sample of the next one's stretch. Infinite sampling always does. Defaults to
            True.
        key (str): The sample's field that names its image.

    Raises:
        ValueError: the data set is empty or does not tell images.
    """

    def __init__(
        self,
        dataset: Sized,
        shuffle: bool = True,
        seed: int | None = None,
        infinite: bool = False,
        round_up: bool = True,
        key: str = 'img_path',
    ) -> None:
        super().__init__(dataset, shuffle, seed, infinite, round_up)
        self.key = key
        numbers: dict[Any, int] = {}
        progress = ProgressLog('finding the samples of each image', len(dataset))
        found = []
        for done, image in enumerate(_pictures(dataset, key), 1):
            found.append(numbers.setdefault(image, len(numbers)))
            progress.update(done)
        self._image_of = torch.tensor(found)  # (samples,), images numbered by their first sample
        self._num_pictures = len(numbers)
        self._known: tuple[tuple[int, int], Tensor, Tensor] | None = None

    def __len__(self) -> int:
        """Samples of this rank in one epoch."""
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
        """This rank's first sample among the global draws from ``draw`` on, of which it takes every ``W``-th."""
        return -((self.rank - draw) // self.world_size)

    def _at(self, epoch: int, step: int) -> SeededIndex:
        samples, images = self._epoch(epoch)
        # the last stretch ends with the data set even where all are rounded up
        place = self.rank * len(samples) // self.world_size + step
        return SeededIndex(int(samples[place]), combine_seeds(self.seed, SAMPLE, epoch, int(images[place])))

    def _epoch(self, epoch: int) -> tuple[Tensor, Tensor]:
        """The samples in the order of an epoch, and for each the place of its image; kept until another is asked."""
        if self._known is None or self._known[0] != (self.seed, epoch):
            samples, places = torch.arange(len(self._image_of)), torch.arange(self._num_pictures)
            if self.shuffle:
                generator = torch.Generator().manual_seed(combine_seeds(self.seed, ORDER, epoch))
                samples = torch.randperm(len(samples), generator=generator)
                places = torch.randperm(len(places), generator=generator)
            images, order = places[self._image_of[samples]].sort(stable=True)
            self._known = (self.seed, epoch), samples[order], images
        return self._known[1], self._known[2]


def _pictures(dataset: Any, key: str) -> Iterable:
    """The field ``key`` of all samples.

    Raises:
        ValueError: a sample has none, or the data set does not tell.
    """
    parts = getattr(dataset, 'datasets', None)
    if isinstance(getattr(dataset, '_seeded', dataset), ConcatDataset):
        for part in parts:
            yield from _pictures(part, key)
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
