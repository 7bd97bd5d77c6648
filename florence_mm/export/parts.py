"""The parts of a model that become files: which a model has, what goes in, what comes out, which sizes may be free."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from florence_mm.errors import UsageError
from florence_mm.models.multimodal.protocol import ScoresPairs, VisionLanguage, unwrap_reranker
from florence_mm.models.protocol import (
    TwoTowerModel,
    ZeroShotModel,
    class_head,
    finds_boxes,
    label_scores,
    projects_texts,
    recognizes_clips,
)
from florence_mm.utils.nearest import nearest

from .detector import exported_detector
from .fusion import ExportedPairs
from .towers import (
    ExportedClassifier,
    ExportedFixedClassifier,
    ExportedImageTower,
    ExportedRecognizer,
    ExportedTextTower,
)

#: Names of the outputs of each kind of part.
_OUTPUTS = {
    'image': ('features',),
    'text': ('features',),
    'classifier': ('scores',),
    'detector': ('dets', 'labels'),
    'recognizer': ('scores',),
    'answerer': ('scores',),
    'matcher': ('log_odds',),
}
#: Kinds of parts, in the order in which a model's are written.
KINDS = tuple(_OUTPUTS)
#: Kinds that take pictures and texts about them.
PAIRS = ('answerer', 'matcher')
_LENGTH = 7  # tokens of example texts; another number than those of pictures and texts, with which it has nothing to do

_Makers = Mapping[str, Callable[[nn.Module], nn.Module]]


@dataclass(frozen=True)
class Part:
    """A part of a model that becomes one file.

    Attributes:
        kind: one of :data:`KINDS`.
        module: function from the inputs to the outputs, in evaluation mode.
        size: example size of an input without batch and channels: ``(H, W)``, ``(T, H, W)``, or ``(T,)`` of ids.
        free_size: height and width (the length of texts) may change from call to call; the batch always may.
        num_ids: ids of texts; 0 if there are none.
        longest: longest text in tokens; 0 if there are none.
    """

    kind: str
    module: nn.Module
    size: tuple[int, ...]
    free_size: bool
    num_ids: int = 0
    longest: int = 0

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return tuple(self.axes)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return _OUTPUTS[self.kind]

    @property
    def axes(self) -> dict[str, dict[int, str]]:
        """The inputs, each with the names of its free axes."""
        if self.kind == 'text':
            return {'input_ids': {0: 'batch', 1: 'length'}}
        last = 1 + len(self.size)
        sides = {last - 1: 'height', last: 'width'} if self.free_size else {}
        axes = {'images': {0: 'batch'} | sides}
        if self.kind == 'detector':
            axes['sizes'] = {0: 'batch'}
        if self.kind in PAIRS:
            ids = {0: 'texts', 1: 'length'}
            axes |= {'input_ids': ids, 'attention_mask': ids, 'image_of': {0: 'texts'}}
        return axes

    def example(
        self, batch: int, size: Sequence[int] | None = None, seed: int = 0, length: int | None = None
    ) -> dict[str, Tensor]:
        """Make inputs by random numbers.

        Args:
            batch: pictures, clips or texts; there is one text more than pictures, if there are both.
            size: as :attr:`size`.
            seed: of the numbers.
            length: of texts about pictures, in tokens.
        """
        size, numbers = tuple(size or self.size), torch.Generator().manual_seed(seed)
        if self.kind == 'text':
            return {'input_ids': self._ids(batch, size[0], numbers)[0]}
        inputs = {'images': torch.randn(batch, 3, *size, generator=numbers)}
        if self.kind == 'detector':
            # the last pictures of a batch are padded
            inputs['sizes'] = torch.tensor(size).repeat(batch, 1) - torch.arange(batch)[:, None]
        if self.kind in PAIRS:
            ids, ends = self._ids(batch + 1, min(length or _LENGTH, self.longest), numbers)
            real = torch.arange(ids.shape[1]) <= ends[:, None]
            image_of = torch.randint(batch, (batch + 1,), generator=numbers)
            inputs |= {'input_ids': ids, 'attention_mask': real.long(), 'image_of': image_of}
        return inputs

    def _ids(self, texts: int, length: int, numbers: torch.Generator) -> tuple[Tensor, Tensor]:
        """Ids ``(B, T)``, padded with 0 behind the largest, CLIP's end token; and the places ``(B,)`` of the ends."""
        ids = torch.randint(1, self.num_ids - 2, (texts, length), generator=numbers)
        ends = torch.randint(1, length, (texts,), generator=numbers)
        places = torch.arange(length)
        ids[places == ends[:, None]] = self.num_ids - 1
        return ids.masked_fill(places > ends[:, None], 0), ends


def parts_of(
    model: nn.Module,
    size: Sequence[int] | None,
    free_size: bool | None = None,
    only: str | None = None,
) -> list[Part]:
    """List the parts of a model that become files.

    A two-tower model gives an image and a text tower; with classes a classifier, into which their features are folded.
    A vision-language model gives a file for each of answers and matches that it has a head for; a classifier, a
    detector and a recognizer give one file.

    Args:
        model: the model, in evaluation mode.
        size: size of its inputs, ``(H, W)`` or ``(T, H, W)``; None: the model's are texts alone.
        free_size: sizes may change from call to call; None: those of detectors may, others not.
        only: kind of the one part to list; None: all.

    Raises:
        UsageError: the model has no part that can become a file, or not this one.
    """
    model = unwrap_reranker(model)  # the two-tower model in it has a config of its own
    found = _kinds(model)
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


def _kinds(model: nn.Module) -> _Makers:
    """Find the parts of a model, each with its maker.

    Raises:
        UsageError: it has none.
    """
    name = type(model).__name__
    if isinstance(model, TwoTowerModel):
        towers: dict[str, Callable] = {'image': ExportedImageTower}
        if projects_texts(model):
            towers['text'] = ExportedTextTower
        return towers | ({'classifier': ExportedClassifier} if list(model.class_names) else {})
    if isinstance(model, ScoresPairs):
        pairs: dict[str, Callable] = {}
        if model.has_heads(answers=True):
            pairs['answerer'] = lambda model: ExportedPairs(model, model.score_answers)
        if model.has_heads(matches=True):
            pairs['matcher'] = lambda model: ExportedPairs(model, model.score_matches)
        if pairs:
            return pairs
    if isinstance(model, VisionLanguage):
        raise UsageError(
            f'{name} has no head that scores answers or matches, and texts are written word by word, which no exported '
            "file can hold; write them with 'florence-mm caption' or 'solve', or export a model with a FusionVQAHead "
            'or FusionITMHead'
        )
    if label_scores(model) is not None:
        return {'classifier': ExportedFixedClassifier}
    head = class_head(model)
    if head is not None and head.owner == 'recognizer':
        if not recognizes_clips(model):
            raise UsageError(
                f'{name} classifies the frames of a video one by one; export a recognizer with a 3D backbone, such as '
                'Recognizer3D with VideoCoSwin'
            )
        return {'recognizer': ExportedRecognizer}
    if finds_boxes(model) and isinstance(model, ZeroShotModel):
        raise UsageError(
            f'{name} classifies each box that its detector finds, which takes two files; export the detector and the '
            'classifier from their own configs, the latter with --classes'
        )
    if finds_boxes(model):
        return {'detector': exported_detector}
    raise UsageError(
        f'{name} cannot be exported; models that can are two-tower models, classifiers of mmpretrain, detectors with '
        'one dense head or DynamicDETR, recognizers of mmaction2, and vision-language models that answer or match'
    )


def _make(
    maker: Callable[[nn.Module], nn.Module], kind: str, model: nn.Module, size: Sequence[int] | None, free: bool
) -> Part:
    if kind == 'text':
        encoder = model.text_encoder
        length = min(16, encoder.context_length)
        return Part(kind, maker(model).eval(), (length,), True, encoder.vocab_size, encoder.context_length)
    if size is None:
        raise UsageError(f'the size of the {kind} input is not known; give --size HEIGHT WIDTH')
    if kind in PAIRS:
        return Part(kind, maker(model).eval(), tuple(size), free, model.tokenizer.vocab_size, model.max_text_len)
    return Part(kind, maker(model).eval(), tuple(size), free)
