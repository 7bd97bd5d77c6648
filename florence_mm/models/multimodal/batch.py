"""A batch as the heads of a fusion model see it: every part is computed when first asked for, and once.

Shape legend: ``B`` samples, ``U`` different pictures among them, ``T`` text tokens, ``S`` image tokens, ``C`` hidden
size.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from florence_mm.models.tokenizers.protocol import TokenBatch

from .protocol import Fused, Fuser


def find_equal(pictures: Tensor) -> tuple[list[int], list[int]]:
    """Which pictures of a batch are equal, pixel for pixel, or which other rows of numbers.

    Names do not tell: a picture comes augmented in two ways.

    Args:
        pictures: ``(B, ...)``.

    Returns:
        the places of the U different ones, and for each of the B which of the U it is.
    """
    # equal rows have equal sums; so only few are compared
    sums = pictures.flatten(1).sum(1, dtype=torch.float64).tolist()
    first: list[int] = []
    which: list[int] = []
    by_sum: dict[float, list[int]] = {}
    for place, total in enumerate(sums):
        known = by_sum.setdefault(total, [])
        number = next((n for n in known if torch.equal(pictures[first[n]], pictures[place])), None)
        if number is None:
            number = len(first)
            first.append(place)
            known.append(number)
        which.append(number)
    return first, which


def uniform_groups(picture_of: Sequence[int], pictures: int) -> bool:
    """Whether rows lie picture after picture, as many rows each: then one picture's keys serve them in one product."""
    return len(picture_of) % pictures == 0 and list(picture_of) == [
        number for number in range(pictures) for _ in range(len(picture_of) // pictures)
    ]


def rows_of(x: Tensor, picture_of: Sequence[int]) -> Tensor:
    """``(U, ...)`` of pictures to ``(B, ...)`` of rows; ``x`` itself where each picture has one row."""
    if list(picture_of) == list(range(len(x))):
        return x
    return x.index_select(0, torch.tensor(picture_of, device=x.device))


class FusionBatch:
    """Samples of one batch, and what the model makes of them.

    Args:
        model: the model that encodes.
        inputs: ``(B, 3, H, W)``, preprocessed; or ``(U, 3, H, W)`` with ``picture_of``; None where the image tokens are
            known and no head asks for pixels.
        samples: B samples.
        picture_of: for each sample which of ``inputs`` it shows; None: all pairs of inputs are compared.
        image_tokens: ``(U, S, C)``, if they are known already.

    Attributes:
        pictures: ``(U, 3, H, W)``, those that differ, or None.
        picture_of: B numbers below U.

    Raises:
        ValueError: another number of samples than of pictures, or neither pictures nor tokens.
    """

    def __init__(
        self,
        model: Fuser,
        inputs: Tensor | None,
        samples: Sequence[Any],
        picture_of: Sequence[int] | None = None,
        image_tokens: Tensor | None = None,
    ) -> None:
        self.model = model
        self.samples = list(samples)
        if inputs is None and (picture_of is None or image_tokens is None):
            raise ValueError('the batch has no pictures; give inputs, or image_tokens with picture_of')
        if picture_of is None:
            first, picture_of = find_equal(inputs)
            if len(first) < len(inputs):
                inputs = inputs[first]
        self.pictures = inputs
        self.picture_of = list(picture_of)
        if len(self.samples) != len(self.picture_of):
            raise ValueError(f'the batch has {len(self.picture_of)} pictures and {len(self.samples)} data samples')
        if image_tokens is not None:
            self.image_tokens = image_tokens

    def field(self, name: str) -> list:
        """One field of all samples.

        Raises:
            ValueError: a sample lacks it.
        """
        for index, sample in enumerate(self.samples):
            if name not in sample:
                raise ValueError(f'sample {index} of the batch has no {name!r}; the pipeline must pack it')
        return [sample.get(name) for sample in self.samples]

    @cached_property
    def image_tokens(self) -> Tensor:
        """``(U, S, C)``, each different picture encoded once."""
        return self.model.encode_image(self.pictures)

    def image_tokens_of(self, picture_of: Sequence[int]) -> Tensor:
        """``(len(picture_of), S, C)``."""
        return rows_of(self.image_tokens, picture_of)

    @cached_property
    def texts(self) -> list[str]:
        """The samples' ``text``."""
        return self.field('text')

    @cached_property
    def tokens(self) -> TokenBatch:
        """The texts as ids."""
        return self.model.tokenize(self.texts)

    @cached_property
    def text_tokens(self) -> Tensor:
        """``(B, T, C)``."""
        return self.model.encode_tokens(self.tokens)

    @cached_property
    def fused(self) -> Fused:
        """Each text with its own picture."""
        return self.model.fuse(self.text_tokens, self.tokens.mask, self.image_tokens_of(self.picture_of))
