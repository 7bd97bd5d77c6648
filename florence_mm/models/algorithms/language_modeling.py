"""Language modeling: a causal language model learns texts alone, before it is frozen behind a Q-Former.

Shape legend: ``B`` texts, ``T`` tokens of the longest text with start and end, ``N`` predicted tokens, ``V``
vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from florence_mm.models.base import FlorenceModel, build_part, check_text_sizes
from florence_mm.models.heads.multimodal.reduction import mean_over_processes
from florence_mm.models.text.protocol import LanguageModel, check_language_model
from florence_mm.models.tokenizers.protocol import TextTokenizer, TokenBatch
from florence_mm.ops.precision import at_least_float32
from florence_mm.registry import MODELS, TASK_UTILS


@MODELS.register_module()
class LanguageModeling(FlorenceModel):
    """Training of a causal language model on the texts of samples, whose images it does not look at.

    Args:
        language_model: a causal :class:`~florence_mm.models.text.protocol.LanguageModel` or its config.
        tokenizer: its tokenizer, or its config.
        max_text_len: longest text in tokens, start and end included.
        data_preprocessor: see mmengine; by default :class:`ImageTextDataPreprocessor`.
        init_cfg: see mmengine.

    Raises:
        ValueError: the language model has an encoder, or takes fewer ids or tokens.
    """

    def __init__(
        self,
        language_model: dict | nn.Module,
        tokenizer: dict | TextTokenizer,
        max_text_len: int = 40,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.language_model: LanguageModel = build_part(language_model)
        check_language_model(self.language_model, LanguageModel, 'LanguageModeling')
        if self.language_model.encodes:
            raise ValueError(
                'LanguageModeling trains a causal language model, and this one has an encoder; give one such as OPT'
            )
        self.tokenizer, self.max_text_len = build_part(tokenizer, TASK_UTILS), max_text_len
        check_text_sizes(self.language_model, self.tokenizer.vocab_size, max_text_len, 'max_text_len')

    def tensor(self, inputs: Tensor | None, data_samples: Sequence[Any] | None = None) -> Tensor:
        """Compute the logits ``(B, T - 1, V)`` that predict the texts of B samples, behind their start token.

        Images alone say nothing to it: without samples it gives ``(B, 0)`` for B of them.
        """
        return inputs.new_zeros(len(inputs), 0) if data_samples is None else self._logits(data_samples)[0]

    def loss(self, inputs: Tensor | None, data_samples: Sequence[Any]) -> dict[str, Tensor]:
        """Compute ``loss_text``, the cross-entropy, a mean over all processes' tokens, and ``acc_text``."""
        logits, tokens = self._logits(data_samples)
        places = tokens.mask[:, 1:].flatten().nonzero().squeeze(1)  # (N,)
        target = tokens.input_ids[:, 1:].flatten()[places].to(logits.device, non_blocking=True)
        logits = logits.flatten(0, 1).index_select(0, places.to(logits.device, non_blocking=True))  # (N, V)
        total = F.cross_entropy(at_least_float32(logits), target, reduction='sum')
        return {
            'loss_text': mean_over_processes(total, len(target)),
            'acc_text': (logits.argmax(1) == target).float().mean(),
        }

    @torch.no_grad()
    def predict(self, inputs: Tensor | None, data_samples: Sequence[Any]) -> list:
        """Set ``text_score`` of each sample, the mean log-probability of its text's tokens, the end included."""
        logits, tokens = self._logits(data_samples)
        ids, real = tokens.input_ids[:, 1:].to(logits.device), tokens.mask[:, 1:].to(logits.device)
        found = at_least_float32(logits).log_softmax(2).gather(2, ids[..., None]).squeeze(2)  # (B, T - 1)
        scores = (found * real).sum(1) / real.sum(1)
        for sample, score in zip(data_samples, scores.tolist(), strict=True):
            sample.set_field(score, 'text_score')
        return list(data_samples)

    def _logits(self, samples: Sequence[Any]) -> tuple[Tensor, TokenBatch]:
        tokens = self.tokenizer([sample.text for sample in samples], self.max_text_len)
        return self.language_model.next_logits(tokens.without_last().input_ids), tokens
