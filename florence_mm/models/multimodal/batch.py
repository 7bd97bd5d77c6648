"""The batch that heads of fusion models get; tokens and fused features are computed at first use and shared.

Shape legend: ``B`` samples, ``U`` different images among them, ``T`` text tokens, ``S`` image tokens, ``C`` hidden
size.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from florence_mm.language.labels import name_label, text_label
from florence_mm.models.text.stack import StackMemory
from florence_mm.models.tokenizers.protocol import TokenBatch
from florence_mm.ops.inference import drops_at_random, is_recorded

from .protocol import Fused, PairFeatures, Reader

_SIDE = 64  # pixels of the picture that is encoded where there is none


def find_equal(rows: Tensor) -> tuple[list[int], list[int]]:
    """Find equal rows of a tensor, such as equal images of a batch.

    Images are compared by pixels, not by file names, as augmentation makes one file different images.

    Args:
        rows: ``(B, ...)``.

    Returns:
        the indices of the U different rows, and for each of the B rows which of the U it equals.
    """
    # equal rows have equal sums, so that only few are compared
    sums = rows.flatten(1).sum(1, dtype=torch.float64)
    if rows.device.type != 'cpu':
        return _find_neighbours(rows, sums)
    sums = sums.tolist()
    first: list[int] = []
    which: list[int] = []
    by_sum: dict[float, list[int]] = {}
    for place, total in enumerate(sums):
        known = by_sum.setdefault(total, [])
        number = next((n for n in known if torch.equal(rows[first[n]], rows[place])), None)
        if number is None:
            number = len(first)
            first.append(place)
            known.append(number)
        which.append(number)
    return first, which


def _find_neighbours(rows: Tensor, sums: Tensor) -> tuple[list[int], list[int]]:
    """:func:`find_equal` that waits for the device once: rows are compared with their neighbours by sum.

    Equal rows between which another one has the same sum, by chance, are taken for different ones, which is no error.
    """
    order = sums.argsort(stable=True)
    ordered = rows.flatten(1).index_select(0, order)
    same = (ordered[1:] == ordered[:-1]).all(1)  # (B - 1,)
    places, repeats = torch.stack([order, F.pad(same.long(), (1, 0))]).tolist()
    leaders: dict[int, int] = {}  # of each row, the first that it equals
    leader = -1
    for place, repeated in zip(places, repeats, strict=True):
        leader = leader if repeated else place
        leaders[place] = leader
    first = sorted(set(leaders.values()))
    number = {place: n for n, place in enumerate(first)}
    return first, [number[leaders[place]] for place in range(len(rows))]


def last_output(outputs: Tensor | Sequence[Tensor]) -> Tensor:
    """Return the output of a backbone, or the last of several."""
    return outputs[-1] if isinstance(outputs, tuple | list) else outputs


def as_tokens(x: Tensor) -> Tensor:
    """Take the positions of a map ``(U, C, H, W)`` as tokens ``(U, S, C)``; tokens stay as they are."""
    return x.flatten(2).transpose(1, 2) if x.ndim == 4 else x


def different_texts(encoder: nn.Module, tokens: TokenBatch) -> tuple[TokenBatch, list[int] | None]:
    """Choose the different ones among texts, such as one question about several images, to encode each once.

    Args:
        encoder: the module that encodes them; if it drops at random, or is recorded, all texts are kept.
        tokens: B texts.

    Returns:
        the different texts, and for each of the B which of these it equals, for :func:`rows_of`; None: all are kept.
    """
    if drops_at_random(encoder) or is_recorded():
        return tokens, None
    first, which = find_equal(torch.cat([tokens.input_ids, tokens.mask], 1))
    return TokenBatch(tokens.input_ids[first], tokens.mask[first]), which


def different_pairs(
    model: nn.Module, image_of: Sequence[int | None], prompts: TokenBatch
) -> tuple[list[int], list[int]]:
    """Find the different pairs of an image and a prompt, which a model reads together, to encode each once.

    Args:
        model: the model that encodes them; if it drops at random, all pairs are kept.
        image_of: index of the image of each of the B prompts; None: it has none.
        prompts: B prompts.

    Returns:
        the rows of the different pairs, and for each of the B which of these it equals.
    """
    if drops_at_random(model):
        return list(range(len(image_of))), list(range(len(image_of)))
    images = torch.tensor([[-1 if image is None else image] for image in image_of])
    return find_equal(torch.cat([images, prompts.input_ids.masked_fill(~prompts.mask, -1)], 1))


def uniform_groups(image_of: Sequence[int], images: int) -> bool:
    """Whether each image has equally many consecutive rows, which can then attend to its keys in one product."""
    return len(image_of) % images == 0 and list(image_of) == [
        number for number in range(images) for _ in range(len(image_of) // images)
    ]


def memory_of_rows(memory: StackMemory, image_of: Sequence[int], images: int) -> StackMemory:
    """Give each row the memory of its image; it stays as it is where :func:`uniform_groups` need none of their own."""
    return memory if uniform_groups(image_of, images) else memory.of_rows(image_of)


def even_groups(image_of: Sequence[int | None], kinds: Sequence[int]) -> list[list[int]]:
    """Group rows of one kind, such as texts of one length, so that each image of a group has equally many rows of it.

    Rows of a group are in the order of their images: its groups of rows per image are uniform
    (:func:`uniform_groups`), and nothing of an image needs to be repeated for them. Rows without an image (None) are
    groups of their own.

    >>> even_groups([1, 0, 0, 1, 2], kinds=[5, 5, 5, 5, 5]), even_groups([0, 0, 1], kinds=[3, 4, 4])
    ([[4], [1, 2, 0, 3]], [[0], [1, 2]])
    """
    by_image: dict[tuple[int, int], list[int]] = {}
    for row, (image, kind) in enumerate(zip(image_of, kinds, strict=True)):
        by_image.setdefault((kind, -1 if image is None else image), []).append(row)
    groups: dict[tuple[int, int], list[int]] = {}
    for (kind, image), rows in sorted(by_image.items()):
        groups.setdefault((kind, 0 if image < 0 else len(rows)), []).extend(rows)
    return [groups[key] for key in sorted(groups)]


def images_of_rows(image_tokens: Tensor, image_of: Sequence[int | None]) -> tuple[Tensor, list[int | None]]:
    """Choose the images that rows have: their tokens ``(U', S, C)``, and the index of each row's image among them."""
    images = sorted(set(image_of) - {None})
    if len(images) < len(image_tokens):
        image_tokens = image_tokens.index_select(0, torch.tensor(images, dtype=torch.long).to(image_tokens.device))
    place = {image: number for number, image in enumerate(images)}
    return image_tokens, [place.get(image) for image in image_of]


def rows_of(x: Tensor, image_of: Sequence[int] | None) -> Tensor:
    """Expand features of images ``(U, ...)`` to rows ``(B, ...)``; returns ``x`` itself if each image has one row.

    Args:
        x: features of images, or of different texts.
        image_of: index of the image of each row; None: rows are images.
    """
    if image_of is None or list(image_of) == list(range(len(x))):
        return x
    return x.index_select(0, torch.tensor(image_of).to(x.device, non_blocking=True))


def _different_images(inputs: Tensor, pictured: Sequence[bool]) -> tuple[Tensor, list[int | None]]:
    """Find the U different images ``(U, ...)`` of pictured samples, and which of them each sample has."""
    rows = [row for row, has in enumerate(pictured) if has]
    if len(rows) < len(pictured) == len(inputs):
        inputs = inputs[rows]
    first, which = find_equal(inputs)
    if len(first) < len(inputs):
        inputs = inputs.index_select(0, torch.tensor(first).to(inputs.device, non_blocking=True))
    if len(rows) == len(pictured):
        return inputs, which
    images = dict(zip(rows, which, strict=False))
    return inputs, [images.get(row) for row in range(len(pictured))]


class FusionBatch:
    """Samples of one batch, and their lazily computed tokens and fused features.

    Args:
        model: the model that encodes.
        inputs: ``(B, 3, H, W)``, preprocessed; or ``(U, 3, H, W)`` with ``image_of``; None if the image tokens are
            given and no head needs pixels.
        samples: B samples.
        image_of: index of the image of each sample; None: equal inputs are found by comparison, and those of samples
            whose ``pictured`` is False are left out.
        image_tokens: ``(U, S, C)``, if the images are already encoded.

    Attributes:
        images: ``(U, 3, H, W)``, the different images, or None.
        image_of: B indices of images, below U; None for a sample without one.

    Raises:
        ValueError: the numbers of samples and images differ, neither images nor their tokens are given, or a sample has
            no image and the model needs one.
    """

    def __init__(
        self,
        model: Reader,
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
            inputs, image_of = _different_images(inputs, self._pictured())
        self.images = inputs
        self.image_of = list(image_of)
        if len(self.samples) != len(self.image_of):
            raise ValueError(f'the batch has {len(self.image_of)} images and {len(self.samples)} data samples')
        if image_tokens is not None:
            self.image_tokens = image_tokens

    def _pictured(self) -> list[bool]:
        """Whether each sample has an image."""
        pictured = [bool(sample.get('pictured', True)) for sample in self.samples]
        if not all(pictured) and getattr(self.model, 'needs_pictures', True):
            raise ValueError(
                f'sample {pictured.index(False)} of the batch has no picture, and {type(self.model).__name__} needs '
                'one; leave texts alone out of its data'
            )
        return pictured

    def field(self, name: str) -> list:
        """Collect one field of all samples.

        Raises:
            ValueError: a sample lacks it.
        """
        for index, sample in enumerate(self.samples):
            if name not in sample:
                raise ValueError(f'sample {index} of the batch has no {name!r}; the pipeline must pack it')
        return [sample.get(name) for sample in self.samples]

    @cached_property
    def image_tokens(self) -> Tensor:
        """Image tokens ``(U, S, C)``; each different image is encoded once."""
        if not len(self.images) and self.samples:  # texts alone
            if not self.model.training:
                return self.images.new_zeros(0, 1, self.model.image_dims)
            # a picture that no sample has: other processes have some, and wait for all in batch norms and gradients
            return self.model.encode_image(self.images.new_zeros(1, 3, _SIDE, _SIDE))
        return self.model.encode_image(self.images)

    def image_tokens_of(self, image_of: Sequence[int]) -> Tensor:
        """Image tokens ``(len(image_of), S, C)`` for indices of images."""
        return rows_of(self.image_tokens, image_of)

    @cached_property
    def texts(self) -> list[str]:
        """The ``text`` of each sample."""
        return self.field('text')

    @cached_property
    def text_labels(self) -> list[int]:
        """The ``label_key`` of each sample, or else the hash of its text; equal for equal texts.

        Raises:
            ValueError: there is nothing to read in a text.
        """
        pairs = zip(self.samples, self.texts, strict=True)
        return [int(sample.label_key) if 'label_key' in sample else text_label(text) for sample, text in pairs]

    def image_labels(self) -> list[int] | None:
        """Labels of the samples' images, by ``img_id`` or else ``img_path``, whatever augmentation made of them.

        Returns:
            one of each sample, equal for one image; None if the first sample has neither.

        Raises:
            ValueError: a sample lacks what the first one has.
        """
        known = next((name for name in ('img_id', 'img_path') if name in self.samples[0]), None)
        return None if known is None else [name_label(f'{value}') for value in self.field(known)]

    @cached_property
    def tokens(self) -> TokenBatch:
        """The texts as ids."""
        return self.model.tokenize(self.texts)

    @cached_property
    def text_tokens(self) -> Tensor:
        """Text tokens ``(B, T, C)``."""
        return self.model.encode_tokens(self.tokens)

    @cached_property
    def fused(self) -> Fused:
        """Each text fused with its own image."""
        return self.model.fuse(self.text_tokens, self.tokens.mask, self.image_tokens_of(self.image_of))

    @cached_property
    def features(self) -> PairFeatures:
        """Features of images and texts in one space, by the model's contrastive head."""
        return self.model.find_head('embed').embed(self)
