"""Base of whole models: builds parts from our registry, checks that they fit together, dispatches mmengine's modes."""

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModel
from mmengine.registry import Registry
from torch import Tensor, nn

from florence_mm.registry import MODELS


def build_part(part: Any, registry: Registry = MODELS, **defaults: Any) -> Any:
    """Build a part of a model from its config; a part that is already built is returned unchanged.

    mmengine looks unscoped names up in the default scope; this finds ours under any default scope.

    Args:
        part: the part, or its config.
        registry: one of :mod:`florence_mm.registry`.
        defaults: values of keys that the config lacks, such as ``type``.
    """
    return registry.build({**defaults, **part}) if isinstance(part, dict) else part


class FlorenceModel(BaseModel):
    """Base class of whole models for images or clips.

    A subclass implements ``tensor(inputs, data_samples)``, ``loss(inputs, data_samples)`` and
    ``predict(inputs, data_samples)``.

    Args:
        data_preprocessor: a preprocessor of mmengine or its config; by default
            :class:`~florence_mm.models.preprocessor.ImageTextDataPreprocessor`.
        init_cfg: see mmengine.
    """

    def __init__(
        self, data_preprocessor: dict | nn.Module | None = None, init_cfg: dict | list[dict] | None = None
    ) -> None:
        super().__init__(build_part(data_preprocessor or {}, type='ImageTextDataPreprocessor'), init_cfg)

    def forward(self, inputs: Tensor, data_samples: Sequence[Any] | None = None, mode: str = 'tensor') -> Any:
        """Run ``tensor``, ``loss`` or ``predict`` on one preprocessed batch.

        Args:
            inputs: ``(B, 3, H, W)``, for clips ``(B, 3, T, H, W)``.
            data_samples: one per image or clip; the class of the model lists the fields they need.
            mode: name of the method, ``'tensor'``, ``'loss'`` or ``'predict'``.

        Raises:
            ValueError: another mode.
        """
        if mode not in ('tensor', 'loss', 'predict'):
            raise ValueError(f"mode is {mode!r}; use 'tensor', 'loss' or 'predict'")
        return getattr(self, mode)(inputs, data_samples)


def check_width(part: nn.Module, name: str, owner: str) -> None:
    """Check that an encoder has an attribute for the width of its output.

    Args:
        part: the encoder.
        name: the attribute: ``num_features`` for image encoders, ``embed_dims`` for text encoders.
        owner: class name of the model, for the message.

    Raises:
        ValueError: the part lacks it, or it is no number.
    """
    if hasattr(part, name) and not isinstance(getattr(part, name), int):
        raise ValueError(
            f'{name} of {type(part).__name__} is {getattr(part, name)!r}, and {owner} needs one number, the width of '
            'what it returns; take a backbone of florence_mm, or set it'
        )
    if not hasattr(part, name):
        raise ValueError(
            f'{type(part).__name__} has no {name}, the width of what it returns; {owner} needs it to build its '
            'projections'
        )


def check_text_sizes(
    text_encoder: nn.Module, vocab_size: int | None, context_length: int | None, limit: str = 'the tokenizer'
) -> None:
    """Check that a text encoder takes all ids of a tokenizer and texts of its length.

    Args:
        text_encoder: its attributes ``vocab_size`` and ``context_length`` are checked, if it has them.
        vocab_size: number of ids of the tokenizer; None is not checked.
        context_length: longest text in tokens; None is not checked.
        limit: name of the setting that ``context_length`` comes from, for the message.

    Raises:
        ValueError: the encoder takes fewer ids or tokens.
    """
    needed = (
        ('vocab_size', vocab_size, 'ids in the tokenizer'),
        ('context_length', context_length, f'tokens in {limit}'),
    )
    for name, need, what in needed:
        have = getattr(text_encoder, name, None)
        if have is not None and need is not None and need > have:
            raise ValueError(
                f'there are {need} {what} and {name} of {type(text_encoder).__name__} is {have}; the encoder needs as '
                'much'
            )
