"""Prediction of tokens from hidden states (``METER/meter/modules/heads.py``, BERT's head).

Shape legend: ``N`` states, ``n`` chosen words, ``C`` hidden size, ``V`` vocabulary.
"""

from collections import OrderedDict

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from florence_mm.models.layers.initialisation import init_bert_weights
from florence_mm.ops.inference import few_rows_linear, is_large_on_cpu, is_untouched, rows_product


class VocabularyHead(BaseModule):
    """Base class of heads that predict tokens.

    Args:
        hidden_size: C.
        vocab_size: V.
        layer_norm_eps: epsilon of the layer norm; 1e-12 in METER.
        init_std: standard deviation of the initial weights of linear layers.
        init_cfg: see mmengine.
        tied: multiply with the word embeddings of the model's text stack, which :meth:`tie` gives, as BERT, GIT and
            BLIP do; False: with weights of its own, as METER does.
        transform: a linear layer, GELU and layer norm before; GIT has none.
        learned_bias: the bias on the logits is a parameter; False: it stays 0, or what a checkpoint gives, as in BART.
        gives_logits: the model's states are logits, as of BLIP-2 with a language model, and the head has no layers; set
            by the model.

    Raises:
        ValueError: the head is tied, where the states are logits.
    """

    def __init__(
        self,
        hidden_size: int,
        vocab_size: int,
        layer_norm_eps: float,
        init_std: float,
        init_cfg: dict | None = None,
        tied: bool = False,
        transform: bool = True,
        learned_bias: bool = True,
        gives_logits: bool = False,
    ) -> None:
        super().__init__(init_cfg)
        self.vocab_size, self.tied, self.gives_logits = vocab_size, tied, gives_logits
        if gives_logits:
            if tied:
                raise ValueError('the language model of this model has an output layer of its own; leave tied out')
            return
        self.transform = nn.Sequential(
            OrderedDict(
                dense=nn.Linear(hidden_size, hidden_size),
                act=nn.GELU(),
                LayerNorm=nn.LayerNorm(hidden_size, eps=layer_norm_eps),
            )
            if transform
            else OrderedDict()
        )
        # in a tuple, as the embeddings are part of the text stack, not of the head
        self._embeddings: tuple[nn.Embedding, ...] = ()
        self.decoder = None if tied else nn.Linear(hidden_size, vocab_size, bias=False)
        if learned_bias:
            self.bias = nn.Parameter(torch.zeros(vocab_size))
        else:
            self.register_buffer('bias', torch.zeros(vocab_size))
        init_bert_weights(self, init_std)

    def tie(self, embeddings: nn.Embedding | None) -> None:
        """Take the word embeddings that the head multiplies with; None: the model has none.

        Raises:
            ValueError: there are none, or more or fewer than outputs.
        """
        if embeddings is None:
            raise ValueError('a head is tied to word embeddings, which this model does not offer; set tied=False')
        if embeddings.num_embeddings != self.vocab_size:
            raise ValueError(
                f'vocab_size of a tied head is {self.vocab_size} and the text stack has {embeddings.num_embeddings} '
                'words; leave vocab_size of the head out'
            )
        self._embeddings = (embeddings,)

    def forward(self, tokens: Tensor) -> Tensor:
        """Compute logits ``(N, V)`` from hidden states ``(N, C)``; logits stay as they are."""
        if self.gives_logits:
            return tokens
        return self.logits(self.transform(tokens))

    @property
    def words(self) -> nn.Linear | nn.Embedding:
        """What has the weight ``(V, C)`` of the logits."""
        return self._embeddings[0] if self.tied else self.decoder

    def logits(self, states: Tensor, words: range | Tensor | None = None) -> Tensor:
        """Compute logits of some words ``(N, n)``, or of all ``(N, V)``, from transformed states ``(N, C)``.

        Args:
            states: what ``transform`` makes of hidden states.
            words: ids, ascending, where the head :meth:`is_selective`; None: all.
        """
        if words is None:
            return few_rows_linear(states, self.words) + self.bias
        bias = self.bias[words.start : words.stop] if isinstance(words, range) else self.bias[words.to(states.device)]
        return some_outputs(states, self.words, words) + bias

    def is_selective(self) -> bool:
        """Whether logits of some words are worth computing without the others, and nobody looks at those of all."""
        own = type(self).forward is VocabularyHead.forward
        return own and not self.gives_logits and is_large_on_cpu(self.words) and is_untouched(self)


def some_outputs(x: Tensor, layer: nn.Linear | nn.Embedding, outputs: range | Tensor) -> Tensor:
    """Compute some outputs of a linear layer, without its bias and without gradients.

    Args:
        x: ``(N, C)``.
        layer: its weight is ``(V, C)``, common and parametrised by nothing.
        outputs: their n places, ascending; those of a range are read without a copy.

    Returns:
        ``(N, n)``.
    """
    if isinstance(outputs, range):
        weight = layer.weight[outputs.start : outputs.stop]
    else:
        weight = layer.weight.index_select(0, outputs.to(layer.weight.device))
    return rows_product(x, weight, None)
