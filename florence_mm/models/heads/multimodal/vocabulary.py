"""Prediction of tokens from hidden states (``METER/meter/modules/heads.py``, BERT's head)."""

from collections import OrderedDict

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from florence_mm.models.layers.initialisation import init_bert_weights
from florence_mm.ops.inference import few_rows_linear


class VocabularyHead(BaseModule):
    """Base class of heads that predict tokens.

    Args:
        hidden_size: C.
        vocab_size: V.
        layer_norm_eps: epsilon of the layer norm; 1e-12 in METER.
        init_std: standard deviation of the initial weights of linear layers.
        init_cfg: see mmengine.
    """

    def __init__(
        self, hidden_size: int, vocab_size: int, layer_norm_eps: float, init_std: float, init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        self.vocab_size = vocab_size
        self.transform = nn.Sequential(
            OrderedDict(
                dense=nn.Linear(hidden_size, hidden_size),
                act=nn.GELU(),
                LayerNorm=nn.LayerNorm(hidden_size, eps=layer_norm_eps),
            )
        )
        self.decoder = nn.Linear(hidden_size, vocab_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        init_bert_weights(self, init_std)

    def forward(self, tokens: Tensor) -> Tensor:
        """Compute logits ``(N, V)`` from hidden states ``(N, C)``."""
        return few_rows_linear(self.transform(tokens), self.decoder) + self.bias
