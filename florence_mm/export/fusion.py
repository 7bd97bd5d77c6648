"""Answers to questions and matches of sentences as functions from tensors to tensors, of a vision-language model.

Each picture is encoded once, however many texts there are about it.

Shape legend: ``U`` pictures, ``B`` texts, ``T`` tokens of a text, ``S`` image tokens, ``C`` channels, ``K`` answers.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from florence_mm.models.multimodal.protocol import Fused, ScoresPairs
from florence_mm.models.tokenizers.protocol import TokenBatch


class ExportedPairs(nn.Module):
    """Scores of pairs of a picture and a text.

    Args:
        model: a vision-language model.
        score: its ``score_answers`` or ``score_matches``.
    """

    def __init__(self, model: ScoresPairs, score: Callable[[Fused], Tensor]) -> None:
        super().__init__()
        self.model = model
        self.score = score

    def forward(self, images: Tensor, input_ids: Tensor, attention_mask: Tensor, image_of: Tensor) -> Tensor:
        """Score texts about pictures.

        Args:
            images: ``(U, 3, H, W)``, normalised.
            input_ids: ``(B, T)`` int64, with start and end tokens, padded at the end.
            attention_mask: ``(B, T)`` int64, 1 where a token is real, 0 at padding.
            image_of: ``(B,)`` int64, index of the picture of each text.

        Returns:
            independent probabilities ``(B, K)`` of the answers; or log-odds ``(B,)`` of matches, whose probabilities
            would all be 1 for good pairs.
        """
        if torch.compiler.is_exporting():  # the program would take them for axes of different sizes
            for length, other in zip(input_ids.shape, attention_mask.shape, strict=True):
                torch._check(length == other)
            torch._check(image_of.shape[0] == input_ids.shape[0])
        mask = attention_mask > 0
        image_tokens = self.model.encode_image(images).index_select(0, image_of)  # (B, S, C)
        text_tokens = self.model.encode_tokens(TokenBatch(input_ids, mask))  # (B, T, C)
        return self.score(self.model.fuse(text_tokens, mask, image_tokens))
