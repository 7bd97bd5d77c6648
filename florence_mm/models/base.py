"""What whole models share: parts from our registry, checks that they fit each other, mmengine's modes."""

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModel
from mmengine.registry import Registry
from torch import Tensor, nn

from florence_mm.registry import MODELS


def build_part(part: Any, registry: Registry = MODELS, **defaults: Any) -> Any:
    """A part of a model: built from its config, or as it is.

    mmengine would look an unscoped name up in the default scope; ours are found under every one.

    Args:
        part: the part, or its config.
        registry: one of :mod:`florence_mm.registry`.
        defaults: keys of the config where it lacks them, ``type`` included.
    """
    return registry.build({**defaults, **part}) if isinstance(part, dict) else part


class FlorenceModel(BaseModel):
    """Base of whole models over images or clips.

    A subclass has ``tensor(inputs, data_samples)``, ``loss(inputs, data_samples)`` and
    ``predict(inputs, data_samples)``.

    Args:
        data_preprocessor: see mmengine, its config or itself; by default
            :class:`~florence_mm.models.preprocessor.ImageTextDataPreprocessor`.
        init_cfg: see mmengine.
    """

    def __init__(
        self, data_preprocessor: dict | nn.Module | None = None, init_cfg: dict | list[dict] | None = None
    ) -> None:
        super().__init__(build_part(data_preprocessor or {}, type='ImageTextDataPreprocessor'), init_cfg)

    def forward(self, inputs: Tensor, data_samples: Sequence[Any] | None = None, mode: str = 'tensor') -> Any:
        """One preprocessed batch.

        Args:
            inputs: ``(B, 3, H, W)``, for clips ``(B, 3, T, H, W)``.
            data_samples: one an image or clip; the model's class says with which fields.
            mode: ``'tensor'``, ``'loss'`` or ``'predict'``: the method of that name.

        Raises:
            ValueError: another mode.
        """
        if mode not in ('tensor', 'loss', 'predict'):
            raise ValueError(f"mode is {mode!r}; use 'tensor', 'loss' or 'predict'")
        return getattr(self, mode)(inputs, data_samples)


def check_width(part: nn.Module, name: str, owner: str) -> None:
    """Raise where a part does not say how wide its output is.

    Args:
        part: an encoder.
        name: the attribute, ``num_features`` of image encoders and ``embed_dims`` of text encoders.
        owner: class name of the model, for the message.

    Raises:
        ValueError: the part lacks it.
    """
    if not hasattr(part, name):
        raise ValueError(
            f'{type(part).__name__} has no {name}, the width of what it returns; {owner} needs it to build its '
            'projections'
        )


def check_text_sizes(
    text_encoder: nn.Module, vocab_size: int | None, context_length: int | None, limit: str = 'the tokenizer'
) -> None:
    """Raise where texts have more ids or more tokens than a text encoder takes.

    Args:
        text_encoder: it may have ``vocab_size`` and ``context_length``.
        vocab_size: number of ids that the tokenizer gives.
        context_length: longest text in tokens.
        limit: what says so, for the message.

    Raises:
        ValueError: the encoder has fewer.
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
