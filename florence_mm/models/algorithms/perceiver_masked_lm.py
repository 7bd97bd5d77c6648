"""Perceiver IO as a masked language model over bytes (arXiv 2107.14795, section 4.1 and appendix B).

The latents read the bytes of a text, and the output query of a position reads from the latents which byte stands there.
An output depends on its query alone: those of masked bytes are computed, and no others.

Shape legend: ``B`` texts, ``T`` tokens of the longest text, ``M`` masked tokens of the text with most, ``N`` latents,
``C`` their channels, ``E`` channels of a token, ``V`` ids.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from florence_mm.models.base import FlorenceModel, build_part
from florence_mm.models.heads.multimodal.mlm import mask_tokens
from florence_mm.models.heads.multimodal.reduction import mean_over_processes
from florence_mm.models.layers.initialisation import init_bert_weights, trunc_normal_
from florence_mm.models.layers.latent_attention import LatentAttention
from florence_mm.models.layers.latent_encoder import LatentEncoder
from florence_mm.models.tokenizers.protocol import TextTokenizer, TokenBatch, pad_ids
from florence_mm.ops.precision import at_least_float32
from florence_mm.registry import MODELS, TASK_UTILS

#: Sizes of the published model, 201 M parameters.
PUBLISHED = {
    'num_latents': 256,
    'embed_dims': 1280,
    'depth': 26,
    'num_heads': 8,
    'cross_heads': 8,
    'qk_channels': 256,
    'v_channels': 1280,
}


@MODELS.register_module()
class PerceiverMaskedLM(FlorenceModel):
    """Masked language model whose latents read bytes.

    It trains on the ``text`` of samples, as :class:`~florence_mm.datasets.TextManifest` and the data sets of images
    with texts give them; images are not read. Prediction sets ``pred_text`` of samples whose text has mask tokens: the
    text with the most probable bytes filled in.

    Args:
        tokenizer: a :class:`~florence_mm.models.tokenizers.protocol.TextTokenizer` or its config; None: bytes.
        encoder: sizes of the :class:`~florence_mm.models.layers.latent_encoder.LatentEncoder` that differ from the
            published ones.
        token_dims: E.
        max_text_len: longest text in tokens, start and end included.
        decoder_heads: heads of the attention from output queries to latents.
        decoder_qk_channels: channels of its queries and keys.
        probability: probability that a token, or a word, is masked.
        whole_word: mask whole words.
        init_std: standard deviation of the initial weights of embeddings and linear layers.
        data_preprocessor: see :class:`~florence_mm.models.base.FlorenceModel`.
        init_cfg: see mmengine.

    Raises:
        ValueError: ``probability`` is not in (0, 1], or sizes do not fit.
    """

    def __init__(
        self,
        tokenizer: dict | TextTokenizer | None = None,
        encoder: Mapping[str, Any] | None = None,
        token_dims: int = 768,
        max_text_len: int = 2048,
        decoder_heads: int = 8,
        decoder_qk_channels: int = 256,
        probability: float = 0.15,
        whole_word: bool = False,
        init_std: float = 0.02,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        if not 0 < probability <= 1:
            raise ValueError(f'probability is {probability}; give more than 0 and at most 1 (0.15 in BERT)')
        self.tokenizer = build_part(tokenizer or {}, TASK_UTILS, type='ByteTokenizer')
        self.max_text_len, self.probability, self.whole_word = max_text_len, probability, whole_word
        self.word_embeddings = nn.Embedding(self.tokenizer.vocab_size, token_dims)
        self.position_embeddings = nn.Embedding(max_text_len, token_dims)
        self.encoder = LatentEncoder(token_dims, **{**PUBLISHED, 'init_std': init_std, **(encoder or {})})
        latent_dims = self.encoder.latents.shape[1]
        self.queries = nn.Parameter(torch.empty(max_text_len, token_dims))
        self.cross_attend = LatentAttention(
            token_dims, decoder_heads, latent_dims, decoder_qk_channels, token_dims, mlp_ratio=1, query_residual=False
        )
        self.bias = nn.Parameter(torch.zeros(self.tokenizer.vocab_size))
        trunc_normal_(self.queries, std=0.02)
        for part in (self.word_embeddings, self.position_embeddings, self.cross_attend):
            init_bert_weights(part, init_std)

    def no_weight_decay(self) -> set[str]:
        """Parameters without weight decay: latents, queries, norms, biases; embeddings have none anywhere."""
        own = ('encoder.latents', 'queries')
        return {name for name, parameter in self.named_parameters() if parameter.ndim == 1 or name in own}

    def encode(self, tokens: TokenBatch) -> Tensor:
        """Read B texts; returns the latents ``(B, N, C)``."""
        device = self.queries.device
        ids = tokens.input_ids.to(device, non_blocking=True)
        x = self.word_embeddings(ids) + self.position_embeddings.weight[: ids.shape[1]]  # (B, T, E)
        mask = None if bool(tokens.mask.all()) else tokens.mask.to(device, non_blocking=True)
        return self.encoder(x, mask)

    def decode(self, latents: Tensor, places: Tensor) -> Tensor:
        """Compute logits ``(B, M, V)`` of positions ``(B, M)``, or ``(1, M)`` if they are those of all texts."""
        hidden = self.cross_attend(self.queries[places], latents)  # (B, M, E)
        return F.linear(hidden, self.word_embeddings.weight, self.bias)

    def tensor(self, inputs: Tensor | None, data_samples: Sequence[Any] | None = None) -> Tensor:
        """Compute logits ``(B, T, V)`` of all positions of the samples' texts; those of padding have no meaning.

        Raises:
            ValueError: there are no samples, or one has no text.
        """
        tokens = self._tokens(data_samples)
        places = torch.arange(tokens.input_ids.shape[1], device=self.queries.device)
        return self.decode(self.encode(tokens), places[None])

    def loss(self, inputs: Tensor | None, data_samples: Sequence[Any]) -> dict[str, Tensor]:
        """Compute the cross-entropy of masked tokens, a mean over all processes' tokens, and ``acc_mlm``.

        Args:
            inputs: images of the samples, which are not read.
            data_samples: B samples with ``text``.

        Raises:
            ValueError: there are no samples, or one has no text.
        """
        tokens = self._tokens(data_samples)
        hidden, chosen = mask_tokens(tokens, self.tokenizer, self.probability, self.whole_word)
        logits = self._logits(hidden, chosen)  # (sum of M, V)
        target = tokens.input_ids[chosen].to(logits.device, non_blocking=True)
        total = F.cross_entropy(logits, target, reduction='sum')
        right = (logits.argmax(1) == target).float().sum()
        return {'loss_mlm': mean_over_processes(total, len(target)), 'acc_mlm': right / max(len(target), 1)}

    @torch.no_grad()
    def predict(self, inputs: Tensor | None, data_samples: Sequence[Any]) -> Sequence[Any]:
        """Set ``pred_text`` of samples whose text has mask tokens.

        Args:
            inputs: images of the samples, which are not read.
            data_samples: B samples with ``text``.

        Raises:
            ValueError: there are no samples, or one has no text.
        """
        tokens = self._tokens(data_samples)
        chosen = (tokens.input_ids == self.tokenizer.mask_token_id) & tokens.mask
        if not chosen.any():
            return data_samples
        ids = tokens.input_ids.clone()
        logits = self._logits(tokens, chosen)
        # special tokens are no bytes
        logits[:, sorted(self.tokenizer.special_ids)] = -torch.inf
        ids[chosen] = logits.argmax(1).cpu()
        for sample, row, real, asked in zip(data_samples, ids, tokens.mask, chosen.any(1), strict=True):
            if asked:
                sample.set_field(self.tokenizer.decode(row[real]), 'pred_text')
        return data_samples

    def _logits(self, tokens: TokenBatch, chosen: Tensor) -> Tensor:
        """Compute logits, at least fp32, of the chosen positions ``(B, T)``, in their order."""
        rows = pad_ids([row.nonzero().flatten().tolist() for row in chosen], 0)  # (B, M)
        latents = self.encode(tokens)
        if not rows.input_ids.shape[1]:  # nothing was drawn; all parameters take part nevertheless
            return at_least_float32(
                self.decode(latents, torch.zeros_like(tokens.input_ids[:, :1]))[:, :0].flatten(0, 1)
            )
        logits = self.decode(latents, rows.input_ids.long().to(latents.device, non_blocking=True))
        return at_least_float32(logits[rows.mask.to(logits.device)])

    def _tokens(self, data_samples: Sequence[Any] | None) -> TokenBatch:
        if not data_samples:
            raise ValueError('PerceiverMaskedLM got no data_samples and reads their texts; give samples with text')
        for index, sample in enumerate(data_samples):
            if 'text' not in sample:
                raise ValueError(f"sample {index} of the batch has no 'text'; the pipeline must pack it")
        return self.tokenizer([sample.text for sample in data_samples], self.max_text_len)
