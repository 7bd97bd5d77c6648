"""Alignment of the words of a text with the parts of an image by optimal transport (ViLT, UNITER).

Shape legend: ``B`` pairs, ``T`` text tokens, ``S`` image tokens, ``C`` hidden size.
"""

import torch
from torch import Tensor

from florence_mm.models.multimodal.protocol import Fused
from florence_mm.models.tokenizers.protocol import TextTokenizer, TokenBatch
from florence_mm.ops.optimal_transport import cosine_distances, transport_costs, transport_plan


def word_mask(tokens: TokenBatch, tokenizer: TextTokenizer) -> Tensor:
    """Mark the tokens of words, ``(B, T)`` bool: without start, end and padding."""
    ends = torch.tensor([tokenizer.start_token_id, tokenizer.end_token_id])
    return tokens.mask & ~torch.isin(tokens.input_ids, ends)


def alignment_costs(tokens: TokenBatch, fused: Fused, tokenizer: TextTokenizer) -> Tensor:
    """Compute the cost ``(B,)`` of moving the words of each text to the parts of its image, by their fused tokens.

    Args:
        tokens: B texts.
        fused: the pairs, of the last layer.
        tokenizer: the tokenizer of ``tokens``.
    """
    words = word_mask(tokens, tokenizer).to(fused.text.device, non_blocking=True)
    return transport_costs(fused.text, fused.image, words, fused.parts)


def alignment_plan(tokens: TokenBatch, fused: Fused, tokenizer: TextTokenizer) -> Tensor:
    """Compute the plan ``(B, T, S)`` that moves the words of each text to the parts of its image; 0 elsewhere."""
    words = word_mask(tokens, tokenizer).to(fused.text.device, non_blocking=True)
    return transport_plan(cosine_distances(fused.text, fused.image), words, fused.parts)
