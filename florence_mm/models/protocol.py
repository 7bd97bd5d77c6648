"""What code outside the models may ask of a whole model, ours or mmdet's or mmaction's, whatever its family.

Consumers name these protocols and functions; they look for no attribute and no class of one family.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn

#: Attributes of mmdet's detectors and of mmaction2's recognizers that hold the classification head.
_CLASS_HEADS = {'bbox_head': 'detector', 'cls_head': 'recognizer'}


class ClassHead(NamedTuple):
    """The head that names classes.

    Attributes:
        name: what the head is called in the model's config.
        owner: what kind of model has it, for messages.
        num_classes: None where the head does not say.
    """

    name: str
    owner: str
    num_classes: int | None


@runtime_checkable
class ZeroShotModel(Protocol):
    """A model that is told its classes by name, as :class:`UniCL` and :class:`ZeroShotDetector` are.

    Inferencers also read ``class_names``, the names in the order of the labels, empty before any are set.
    """

    def set_classes(self, names: str | Sequence[str], templates: str | Sequence[str] | None = None) -> None:
        """Choose the classes of prediction; ``templates`` are prompts with one ``{}``, None takes the model's."""


@runtime_checkable
class TwoTowerModel(ZeroShotModel, Protocol):
    """A model that puts images and texts into one embedding space, as :class:`UniCL` does.

    Its parts are ``image_encoder`` and ``tokenizer``. Shapes: ``B`` images or texts, ``D`` channels, ``K`` classes.
    """

    def extract_image_feat(self, inputs: Tensor) -> Tensor:
        """Preprocessed images ``(B, 3, H, W)`` or clips ``(B, 3, T, H, W)`` to ``(B, D)``, L2-normalised."""

    def extract_text_feat(self, texts: Sequence[str]) -> Tensor:
        """``(B, D)``, L2-normalised."""

    def class_logits(self, image_feat: Tensor) -> Tensor:
        """Image features ``(B, D)`` to ``(B, K)``, the logits of the classes that were set."""


@runtime_checkable
class StagedBackbone(Protocol):
    """A backbone whose stages are rows of blocks on tokens, as :class:`CoSwin` and :class:`VideoCoSwin` are."""

    def last_blocks(self) -> list[nn.Module]:
        """The last block of each stage: called with tokens ``(B, L, C)`` and the size of their map."""


@runtime_checkable
class NamesNoDecay(Protocol):
    """A module that knows which of its own parameters must not decay (timm's convention)."""

    def no_weight_decay(self) -> set[str]:
        """Names of parameters, dotted from this module on."""


def unwrap_model(model: nn.Module) -> nn.Module:
    """The model inside mmengine's wrappers for several processes and for test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def class_head(model: nn.Module) -> ClassHead | None:
    """The classification head of a detector or recognizer; None where the model has no such head.

    Args:
        model: without wrappers, see :func:`unwrap_model`.
    """
    for name, owner in _CLASS_HEADS.items():
        head = getattr(model, name, None)
        if head is not None:
            return ClassHead(name, owner, getattr(head, 'num_classes', None))
    return None
