"""Logits of the next tokens of texts that a model writes, of all tokens or of some alone.

Shape legend: ``B`` texts, or beams of texts, ``L`` tokens so far, ``S`` steps at which few tokens might follow, ``C``
hidden size, ``V`` vocabulary.
"""

import torch
from torch import Tensor

from florence_mm.models.generation.state import WriterState
from florence_mm.models.multimodal.protocol import Writer
from florence_mm.models.tokenizers.protocol import TokenBatch
from florence_mm.ops.precision import at_least_float32

from .vocabulary import VocabularyHead

_AT_ONCE = 128  # states whose logits of all tokens are in memory together
_FEW = 8  # tokens are few up to one of so many: their weights may be copied, and the others are needed in the end


class WriterLogits:
    """Logits of the next tokens, see :class:`~florence_mm.models.generation.few.SelectiveLogits`.

    Args:
        head: the head that writes.
        model: the model with this head.
        state: state of the texts, which caches earlier tokens.

    Attributes:
        vocab_size (int): V.
        most (int): number of tokens up to which they count as few; 0 where all are faster.
    """

    def __init__(self, head: VocabularyHead, model: Writer, state: WriterState) -> None:
        self._head, self._model, self._state = head, model, state
        self.vocab_size = head.vocab_size
        self.most = self.vocab_size // _FEW if head.is_selective() else 0
        self._left: list[Tensor] = []  # transformed states (B, C) of the steps at which few tokens might follow

    def __call__(self, ids: Tensor, parents: Tensor | None) -> Tensor:
        """Compute the logits of all tokens, ``(B, V)``, behind ids ``(B, L)``.

        Args:
            ids: all tokens so far.
            parents: ``(B,)`` row of the previous call that each row continues; None: rows are unchanged.
        """
        if parents is not None:
            self._state.select(parents)
        return self._head(self._hidden(ids))

    def among(self, ids: Tensor, tokens: range | Tensor) -> Tensor:
        """Compute the logits of some tokens alone, ``(B, n)``, behind ids ``(B, L)``."""
        states = self._head.transform(self._hidden(ids))
        self._left.append(states)
        return self._head.logits(states, tokens)

    def log_probs(self, chosen: Tensor, which: Tensor) -> Tensor:
        """Compute log-probabilities of tokens chosen at the steps of :meth:`among`, among all tokens.

        Args:
            chosen: ``(B, S)`` ids.
            which: ``(B, S)`` bool, those that are asked for.

        Returns:
            ``(N,)`` float64 of the N that are asked for, on the CPU.
        """
        rows, steps = which.nonzero(as_tuple=True)
        states, tokens = torch.stack(self._left, 1), chosen[rows, steps]  # (B, S, C), (N,)
        found = []
        for part in torch.arange(len(rows)).split(_AT_ONCE):
            row, step, token = (x[part].to(states.device) for x in (rows, steps, tokens))
            log_probs = at_least_float32(self._head.logits(states[row, step])).log_softmax(1)
            found.append(log_probs.gather(1, token[:, None])[:, 0].double().cpu())
        return torch.cat(found)

    def _hidden(self, ids: Tensor) -> Tensor:
        """Hidden states ``(B, C)`` of the last tokens."""
        new = ids[:, self._state.length :]
        hidden = self._model.write_on(TokenBatch(new, torch.ones_like(new, dtype=torch.bool)), self._state)
        return hidden[:, -1]
