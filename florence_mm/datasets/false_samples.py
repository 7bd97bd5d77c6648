"""Images and texts of other samples beside each sample, drawn from the whole data set."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from florence_mm.errors import DataError
from florence_mm.registry import DATASETS
from florence_mm.utils.numbers import is_whole

from .arguments import require, require_flags

_TRIES = 100  # draws of another sample, before a data set is taken for one of a single image or text


@DATASETS.register_module()
class WithFalseSamples(Dataset):
    """Give each sample the image, or texts, of other samples of the whole data set, for matching (ViLT, UNITER).

    A false sample has another text (by ``label_key``, the hash of the text without template) and another image (by
    ``img_path``). It is drawn by numpy's global generator, which a seeded sampler sets anew for each sample: the same
    sample of an epoch gets the same false ones, also after a run was stopped and resumed.

    A sample gets ``false_inputs``, the packed image or regions of another one, and ``false_texts``, a list.

    Args:
        dataset (dict): Data set, or its config, whose samples are ``dict(inputs=..., data_samples=...)``.
        image (bool): Draw an image.
        texts (int): Number of texts drawn; 15 in ViLT's fine-tuning for retrieval.

    Raises:
        ValueError: nothing is drawn, or an argument is of another type.
        DataError: there is no other image or text.
    """

    def __init__(self, dataset: Mapping | Dataset, image: bool = True, texts: int = 0) -> None:
        require_flags(image=image)
        require('texts', texts, is_whole(texts) and texts >= 0, 'a whole number from 0')
        require('image', image, image or texts > 0, 'True, or texts above 0: otherwise nothing is drawn')
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, Mapping) else dataset
        self.image, self.texts = image, texts

    @property
    def metainfo(self) -> dict:
        """That of the data set."""
        return self.dataset.metainfo

    def full_init(self) -> None:
        """Read the data set, if it was not yet."""
        if hasattr(self.dataset, 'full_init'):
            self.dataset.full_init()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        """Return sample ``idx`` with its false ones."""
        packed = self.dataset[idx]
        sample = packed['data_samples']
        if self.image:
            sample.set_field(self._other(int(idx), sample, set())['inputs'], 'false_inputs')
        if self.texts:
            taken: set[int] = set()
            texts = []
            for _ in range(self.texts):
                other = self._other(int(idx), sample, taken)['data_samples']
                taken.add(other.label_key)
                texts.append(other.text)
            sample.set_field(texts, 'false_texts')
        return packed

    def _other(self, idx: int, sample: Any, taken: set[int]) -> dict[str, Any]:
        """Draw a sample of another image and text, whose text is not yet taken."""
        for _ in range(_TRIES):
            place = np.random.randint(len(self.dataset))
            if place == idx:
                continue
            packed = self.dataset[place]
            other = packed['data_samples']
            if other.label_key not in {sample.label_key, *taken} and other.get('img_path') != sample.get('img_path'):
                return packed
        raise DataError(
            f'no false sample of sample {idx} was found among {len(self.dataset)} in {_TRIES} draws; matching needs '
            'data of several images and texts, so give more or ask for fewer texts'
        )
