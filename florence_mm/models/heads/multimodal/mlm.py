"""Masked language modelling head, conditioned on the image (``METER/meter/modules/objectives.py``, masks as in BERT).

Shape legend: ``B`` texts, ``T`` tokens, ``M`` masked tokens, ``C`` hidden size, ``V`` vocabulary.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from florence_mm.models.multimodal.batch import FusionBatch
from florence_mm.models.multimodal.protocol import Fuser
from florence_mm.models.tokenizers.protocol import TextTokenizer, TokenBatch
from florence_mm.ops.precision import at_least_float32
from florence_mm.registry import MODELS

from .reduction import mean_over_processes
from .vocabulary import VocabularyHead


def mask_tokens(
    tokens: TokenBatch,
    tokenizer: TextTokenizer,
    probability: float = 0.15,
    whole_word: bool = False,
    at_least_one: bool = False,
) -> tuple[TokenBatch, Tensor]:
    """Mask tokens as in BERT (arXiv 1810.04805, section 3.1).

    Each token that is not special, or each whole word, is chosen with the given probability. Of the chosen tokens 80 %
    become the mask token, 10 % a random token, 10 % stay. Random numbers are drawn on the CPU.

    Args:
        tokens: B texts.
        tokenizer: the tokenizer of ``tokens``.
        probability: probability that a token or word is chosen.
        whole_word: choose whole words.
        at_least_one: choose the token or word with the least random number of a text if no other is chosen.

    Returns:
        the masked texts, and ``(B, T)`` bool, True for chosen tokens.
    """
    ids = tokens.input_ids
    special = torch.tensor(sorted(tokenizer.special_ids))
    draw = torch.rand(ids.shape)
    if whole_word:
        # one random number per word, that of its first token
        word = tokenizer.word_starts(ids).cumsum(1) - 1  # (B, T)
        draw = draw.gather(1, word)
    possible = tokens.mask & ~torch.isin(ids, special)
    chosen = (draw < probability) & possible
    if at_least_one:
        draw = draw.masked_fill(~possible, 2.0)
        chosen |= (draw == draw.amin(1, keepdim=True)) & possible & ~chosen.any(1, keepdim=True)
    kind = torch.rand(ids.shape)
    ordinary = torch.ones(tokenizer.vocab_size, dtype=torch.bool)
    ordinary[special] = False
    ordinary = ordinary.nonzero().squeeze(1)
    other = ordinary[torch.randint(len(ordinary), ids.shape)]  # (B, T)
    hidden = torch.where(chosen & (kind < 0.8), tokenizer.mask_token_id, ids)
    hidden = torch.where(chosen & (kind >= 0.8) & (kind < 0.9), other, hidden)
    return TokenBatch(hidden, tokens.mask), chosen


@MODELS.register_module()
class FusionMLMHead(VocabularyHead):
    """Masked language modelling: predict masked tokens. Logits are computed only for them.

    Args:
        probability: probability that a token, or a word, is masked; 0.15 in BERT and METER.
        whole_word: mask whole words, as in ViLT.
        at_least_one: mask at least one token, or word, of each text, as in UNITER.
        tied: multiply with the word embeddings of the model's text stack, as in UNITER.
        hidden_size: C, set by the model.
        vocab_size: V, set by the model; at least the number of the tokenizer's ids, more in padded weights.
        layer_norm_eps: epsilon of the layer norm; 1e-12 in METER.
        init_std: standard deviation of the initial weights of linear layers, set by the model.
        init_cfg: see mmengine.

    Raises:
        ValueError: ``probability`` is not in (0, 1].
    """

    needs = Fuser

    def __init__(
        self,
        probability: float = 0.15,
        whole_word: bool = False,
        at_least_one: bool = False,
        tied: bool = False,
        hidden_size: int = 768,
        vocab_size: int = 50265,
        layer_norm_eps: float = 1e-12,
        init_std: float = 0.02,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(hidden_size, vocab_size, layer_norm_eps, init_std, init_cfg, tied)
        if not 0 < probability <= 1:
            raise ValueError(f'probability is {probability}; give more than 0 and at most 1 (0.15 in BERT)')
        self.probability = probability
        self.whole_word, self.at_least_one = whole_word, at_least_one

    def loss(self, batch: FusionBatch) -> dict[str, Tensor]:
        """Compute the cross-entropy of masked tokens, a mean over all processes' tokens, and ``acc_mlm``."""
        how = (self.probability, self.whole_word, self.at_least_one)
        hidden, chosen = mask_tokens(batch.tokens, batch.model.tokenizer, *how)
        logits = self._logits(batch, hidden, chosen)  # (M, V)
        target = batch.tokens.input_ids[chosen].to(logits.device, non_blocking=True)  # (M,)
        total = F.cross_entropy(logits, target, reduction='sum')
        right = (logits.argmax(1) == target).float().sum()
        return {'loss_mlm': mean_over_processes(total, len(target)), 'acc_mlm': right / max(len(target), 1)}

    def _logits(self, batch: FusionBatch, hidden: TokenBatch, chosen: Tensor) -> Tensor:
        """Compute logits ``(M, V)``, at least fp32, at the chosen positions of masked texts."""
        image_tokens = batch.image_tokens_of(batch.image_of)
        fused = batch.model.fuse(batch.model.encode_tokens(hidden), hidden.mask, image_tokens)
        places = chosen.flatten().nonzero().squeeze(1).to(fused.text.device, non_blocking=True)  # (M,)
        logits = self(fused.text.flatten(0, 1).index_select(0, places))  # (B, T, C) -> (B T, C) -> (M, C) -> (M, V)
        return at_least_float32(logits)

    def predict(self, batch: FusionBatch) -> None:
        """Set ``pred_text`` of samples whose text has mask tokens: the text with the most probable tokens filled in."""
        tokens, tokenizer = batch.tokens, batch.model.tokenizer
        chosen = (tokens.input_ids == tokenizer.mask_token_id) & tokens.mask  # (B, T)
        if not chosen.any():
            return
        ids = tokens.input_ids.clone()
        # outputs of a padded head beyond the vocabulary are not tokens
        ids[chosen] = self._logits(batch, tokens, chosen)[:, : tokenizer.vocab_size].argmax(1).cpu()
        for sample, row, real, asked in zip(batch.samples, ids, tokens.mask, chosen.any(1), strict=True):
            if asked:
                sample.set_field(tokenizer.decode(row[real]), 'pred_text')
