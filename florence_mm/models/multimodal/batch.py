"""A batch as the heads of a fusion model see it: every part is computed when first asked for, and once.

Shape legend: ``B`` samples, ``U`` different images among them, ``T`` text tokens, ``S`` image tokens, ``C`` hidden
size.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from florence_mm.models.tokenizers.protocol import TokenBatch

from .protocol import Fused, Fuser


def find_equal(images: Tensor) -> tuple[list[int], list[int]]:
    """Which images of a batch are equal, pixel for pixel, or which other rows of numbers.

    Names do not tell: an image comes augmented in two ways.

    Args:
        images: ``(B, ...)``.

    Returns:
        the places of the U different ones, and for each of the B which of the U it is.
    """
    # equal rows have equal sums; so only few are compared
    sums = images.flatten(1).sum(1, dtype=torch.float64).tolist()
    first: list[int] = []
    which: list[int] = []
    by_sum: dict[float, list[int]] = {}
    for place, total in enumerate(sums):
        known = by_sum.setdefault(total, [])
        number = next((n for n in known if torch.equal(images[first[n]], images[place])), None)
        if number is None:
            number = len(first)
            first.append(place)
            known.append(number)
        which.append(number)
    return first, which


def uniform_groups(image_of: Sequence[int], images: int) -> bool:
    """Whether rows lie image after image, as many rows each: then one image's keys serve them in one product."""
    return len(image_of) % images == 0 and list(image_of) == [
        number for number in range(images) for _ in range(len(image_of) // images)
    ]


def rows_of(x: Tensor, image_of: Sequence[int]) -> Tensor:
    """``(U, ...)`` of images to ``(B, ...)`` of rows; ``x`` itself where each image has one row."""
    if list(image_of) == list(range(len(x))):
        return x
    return x.index_select(0, torch.tensor(image_of, device=x.device))


class FusionBatch:
    """Samples of one batch, and what the model makes of them.

    Args:
        model: the model that encodes.
        inputs: ``(B, 3, H, W)``, preprocessed; or ``(U, 3, H, W)`` with ``image_of``; None where the image tokens are
            known and no head asks for pixels.
        samples: B samples.
        image_of: for each sample which of ``inputs`` it shows; None: all pairs of inputs are compared.
        image_tokens: ``(U, S, C)``, if they are known already.

    Attributes:
        images: ``(U, 3, H, W)``, those that differ, or None.
        image_of: B numbers below U.

    Raises:
        ValueError: another number of samples than of images, or neither images nor tokens.
    """

    def __init__(
        self,
        model: Fuser,
        inputs: Tensor | None,
        samples: Sequence[Any],
        image_of: Sequence[int] | None = None,
        image_tokens: Tensor | None = None,
    ) -> None:
        self.model = model
        self.samples = list(samples)
        if inputs is None and (image_of is None or image_tokens is None):
            raise ValueError('the batch has no images; give inputs, or image_tokens with image_of')
        if image_of is None:
            first, image_of = find_equal(inputs)
            if len(first) < len(inputs):
                inputs = inputs[first]
        self.images = inputs
        self.image_of = list(image_of)
        if len(self.samples) != len(self.image_of):
            raise ValueError(f'the batch has {len(self.image_of)} images and {len(self.samples)} data samples')
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
        """``(U, S, C)``, each different image encoded once."""
        return self.model.encode_image(self.images)

    def image_tokens_of(self, image_of: Sequence[int]) -> Tensor:
        """``(len(image_of), S, C)``."""
        return rows_of(self.image_tokens, image_of)

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
        """Each text with its own image."""
        return self.model.fuse(self.text_tokens, self.tokens.mask, self.image_tokens_of(self.image_of))
