"""The parts of a model that become files: which a model has, what goes in, what comes out, which sizes may be free."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from florence_mm.errors import UsageError
from florence_mm.models.protocol import TwoTowerModel, class_head, finds_boxes, projects_texts
from florence_mm.utils.nearest import nearest

from .detector import ExportedDetector
from .towers import ExportedClassifier, ExportedImageTower, ExportedRecognizer, ExportedTextTower

#: Kinds of parts, in the order in which a model's are written.
KINDS = ('image', 'text', 'classifier', 'detector', 'recognizer')
_OUTPUTS = {
    'image': ('features',),
    'text': ('features',),
    'classifier': ('scores',),
    'detector': ('dets', 'labels'),
    'recognizer': ('scores',),
}


@dataclass(frozen=True)
class Part:
    """A part of a model that becomes one file.

    Attributes:
        kind: one of :data:`KINDS`.
        module: function from the inputs to the outputs, in evaluation mode.
        size: example size of an input without batch and channels: ``(H, W)``, ``(T, H, W)``, or ``(T,)`` of ids.
        free_size: height and width (the length of texts) may change from call to call; the batch always may.
        num_ids: ids of a text tower; 0 otherwise.
    """

    kind: str
    module: nn.Module
    size: tuple[int, ...]
    free_size: bool
    num_ids: int = 0

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return {'text': ('input_ids',), 'detector': ('images', 'sizes')}.get(self.kind, ('images',))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return _OUTPUTS[self.kind]

    @property
    def axes(self) -> dict[int, str]:
        """Free axes of the first input, with their names."""
        axes = {0: 'batch'}
        if self.kind == 'text':
            return axes | {1: 'length'}
        if self.free_size:
            last = 1 + len(self.size)
            axes |= {last - 1: 'height', last: 'width'}
        return axes

    def example(self, batch: int, size: Sequence[int] | None = None, seed: int = 0) -> dict[str, Tensor]:
        """Make inputs by random numbers.

        Args:
            batch: pictures, clips or texts.
            size: as :attr:`size`.
            seed: of the numbers.
        """
        size, numbers = tuple(size or self.size), torch.Generator().manual_seed(seed)
        if self.kind == 'text':
            (length,) = size
            ids = torch.randint(1, self.num_ids - 2, (batch, length), generator=numbers)
            ends = torch.randint(1, length, (batch,), generator=numbers)
            places = torch.arange(length)
            ids[places == ends[:, None]] = self.num_ids - 1
            return {'input_ids': ids.masked_fill(places > ends[:, None], 0)}
        images = {'images': torch.randn(batch, 3, *size, generator=numbers)}
        if self.kind == 'detector':
            # the last pictures of a batch are padded
            sizes = torch.tensor(size).repeat(batch, 1) - torch.arange(batch)[:, None]
            images['sizes'] = sizes
        return images


def parts_of(
    model: nn.Module,
    size: Sequence[int] | None,
    free_size: bool | None = None,
    only: str | None = None,
) -> list[Part]:
    """List the parts of a model that become files.

    A two-tower model gives an image and a text tower; with classes a classifier, into which their features are folded.
    A detector and a recognizer give one file each.

    Args:
        model: the model, in evaluation mode.
        size: size of its inputs, ``(H, W)`` or ``(T, H, W)``; None: the model's are texts alone.
        free_size: sizes may change from call to call; None: those of detectors may, others not.
        only: kind of the one part to list; None: all.

    Raises:
        UsageError: the model has no part that can become a file, or not this one.
    """
    found = _kinds(model)
    if not found:
        raise UsageError(
            f'{type(model).__name__} cannot be exported; models that can are two-tower models, detectors with one '
            'dense head, and recognizers of mmaction2'
        )
    if only is not None and only not in found:
        hint = nearest(only, found)
        raise UsageError(
            f'{type(model).__name__} has no part {only!r}; it has {", ".join(found)}'
            + (f', did you mean {hint!r}?' if hint else '')
            + ('; give classes for a classifier' if only == 'classifier' and 'image' in found else '')
        )
    kinds = [only]
    if only is None:  # a classifier has all that its towers are for
        kinds = ['classifier'] if 'classifier' in found else list(found)
    free = {kind: kind == 'detector' if free_size is None else free_size for kind in kinds}
    return [_make(found[kind], kind, model, size, free[kind]) for kind in kinds]


def _kinds(model: nn.Module) -> Mapping[str, type[nn.Module]]:
    if isinstance(model, TwoTowerModel):
        towers = {'image': ExportedImageTower}
        if projects_texts(model):
            towers['text'] = ExportedTextTower
        return towers | ({'classifier': ExportedClassifier} if list(model.class_names) else {})
    head = class_head(model)
    if head is not None and head.owner == 'recognizer':
        return {'recognizer': ExportedRecognizer}
    if finds_boxes(model):
        return {'detector': ExportedDetector}
    return {}


def _make(wrapper: type[nn.Module], kind: str, model: nn.Module, size: Sequence[int] | None, free: bool) -> Part:
    if kind == 'text':
        encoder = model.text_encoder
        length = min(16, encoder.context_length)
        return Part(kind, wrapper(model).eval(), (length,), True, encoder.vocab_size)
    if size is None:
        raise UsageError(f'the size of the {kind} input is not known; give --size HEIGHT WIDTH')
    return Part(kind, wrapper(model).eval(), tuple(size), free)
