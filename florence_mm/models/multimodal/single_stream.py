"""What single-stream models share: text and image tokens are embedded, put in a row, and read by one transformer.

Image tokens have one channel more than text tokens: the last one is 1 where a token is real and 0 at padding, so that
pictures of any sizes, or numbers of regions, can be in a batch.

Shape legend: ``B`` samples, ``T`` text tokens, ``S`` image tokens, ``L = T + S``, ``N`` real tokens of the batch, ``C``
hidden size.
"""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from florence_mm.models.layers.token_layout import TokenLayout
from florence_mm.ops.inference import is_recorded

from .base import VisionLanguageModel
from .protocol import Fused


def with_mask(tokens: Tensor, real: Tensor | None = None) -> Tensor:
    """Append the channel that says which image tokens are real, and set the others to 0.

    Args:
        tokens: ``(U, S, C)``.
        real: ``(U, S)`` bool; None: all are.

    Returns:
        ``(U, S, C + 1)``.
    """
    if real is None:
        return torch.cat([tokens, torch.ones_like(tokens[..., :1])], -1)
    real = real.unsqueeze(-1).to(tokens)
    return torch.cat([tokens * real, real], -1)


class SingleStream(VisionLanguageModel):
    """Base class of single-stream models: readers and fusers.

    A subclass embeds images (``encode_image``) and texts (``encode_tokens``) and applies its layers (``run``).

    Args:
        parts_from: number of image tokens before those of places or regions, such as a class token.
        arguments: of :class:`~florence_mm.models.multimodal.base.VisionLanguageModel`.
    """

    def __init__(self, *arguments: Any, parts_from: int = 0, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.pooled_size = self.hidden_size
        self.image_dims = self.hidden_size + 1
        self.parts_from = parts_from
        self.pooler = nn.Linear(self.hidden_size, self.hidden_size)

    @abstractmethod
    def run(self, x: Tensor, layout: TokenLayout) -> Tensor:
        """Apply the layers to packed tokens of pairs, ``(N, C)`` to ``(N, C)``."""

    def fuse(self, text_tokens: Tensor, text_mask: Tensor | None, image_tokens: Tensor) -> Fused:
        """Fuse texts and images: their tokens in a row go through all layers.

        Args:
            text_tokens: ``(B, T, C)`` from ``encode_tokens``.
            text_mask: ``(B, T)`` bool, True where a token is real, best on the CPU; None: all are.
            image_tokens: ``(B, S, C + 1)`` from ``encode_image``.

        Returns:
            tokens, zeros at padding; ``pooled (B, C)`` is a layer with tanh on the text's start token.
        """
        image, seen = image_tokens[..., :-1], image_tokens[..., -1] > 0.5
        length = text_tokens.shape[1]
        if text_mask is None:
            text_mask = torch.ones(text_tokens.shape[:2], dtype=torch.bool, device=seen.device)
        # values of masks are read on the CPU; of a program that is recorded none are
        where = text_mask.device if is_recorded() else 'cpu'
        real = torch.cat([text_mask.to(where), seen.to(where)], 1)  # (B, L)
        layout = TokenLayout.of(real, device=text_tokens.device)
        x = torch.cat([text_tokens, image.to(text_tokens.dtype)], 1)  # (B, L, C)
        x = layout.pad(self.run(layout.pack(x), layout))
        if is_recorded():  # where padding is computed like tokens
            x = x * real.unsqueeze(-1).to(x)
        text, image = x[:, :length], x[:, length:]
        parts = seen.clone()
        parts[:, : self.parts_from] = False
        return Fused(text, image, self.pooler(text[:, 0]).tanh(), parts=parts)
