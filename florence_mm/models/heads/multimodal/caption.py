"""Captions, written from left to right with the picture in view.

METER's text encoder and text stack are run causally: each word sees the picture and the words before it. Image tokens
never read text, since a word would otherwise reach earlier ones through them
(:meth:`~florence_mm.models.multimodal.co_attention.CoAttentionStacks.image_contexts`). So the loss of a whole caption
is that of writing it word by word, and what the picture gives is computed once, however many words are written. The
words' own keys and values are not kept from step to step: text encoders share no cache, and captions are short.

Shape legend: ``B`` captions, ``U`` different pictures among them, ``T`` tokens with start and end, ``S`` image tokens,
``N`` tokens to be predicted, ``C`` hidden size, ``H`` heads, ``D = C / H``, ``V`` vocabulary, ``K`` beams.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from florence_mm.models.generation.search import Decoded, DecodingRules, beam_search, greedy_search
from florence_mm.models.tokenizers.protocol import TokenBatch
from florence_mm.registry import MODELS

from .reduction import mean_of_all
from .vocabulary import VocabularyHead

if TYPE_CHECKING:
    from florence_mm.models.multimodal.batch import FusionBatch
    from florence_mm.models.multimodal.meter import METER


@MODELS.register_module()
class FusionCaptionHead(VocabularyHead):
    """A language model over METER's text stack. Its layers are those of :class:`FusionMLMHead`.

    A model that learns captions alone leaves parts without gradient (poolers, what image tokens would read text with):
    with several processes its config needs ``find_unused_parameters=True``.

    Args:
        num_beams: K of prediction; 1 is greedy.
        length_penalty: see :func:`~florence_mm.models.generation.search.beam_search`.
        max_length: most tokens of a predicted caption, without start and end; None: as many as METER's texts may have.
        min_length: least tokens, likewise.
        label_smoothing: part of the target that all tokens share, 0 for none.
        hidden_size: C, which METER gives.
        vocab_size: V, likewise; may be more than the tokenizer's ids, as in padded weights, and not less.
        layer_norm_eps: 1e-12 in METER.
        init_std: standard deviation of the linear layers' first weights; METER gives that of its fusion.
        init_cfg: see mmengine.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(
        self,
        num_beams: int = 1,
        length_penalty: float = 1.0,
        max_length: int | None = None,
        min_length: int = 0,
        label_smoothing: float = 0.0,
        hidden_size: int = 768,
        vocab_size: int = 50265,
        layer_norm_eps: float = 1e-12,
        init_std: float = 0.02,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(hidden_size, vocab_size, layer_norm_eps, init_std, init_cfg)
        if num_beams < 1 or length_penalty < 0 or not 0 <= label_smoothing < 1:
            raise ValueError(
                f'num_beams={num_beams}, length_penalty={length_penalty} and label_smoothing={label_smoothing} of the '
                'caption head must be at least 1, at least 0, and from 0 to below 1'
            )
        self.num_beams = num_beams
        self.length_penalty = length_penalty
        self.max_length = max_length
        self.min_length = min_length
        self.label_smoothing = label_smoothing

    def loss(self, model: 'METER', batch: 'FusionBatch') -> dict[str, Tensor]:
        """Cross-entropy of each token given those before it, a mean over all processes' tokens, and ``acc_caption``."""
        ids, mask = batch.tokens.input_ids, batch.tokens.mask  # (B, T)
        contexts = self._contexts_of(model, batch)
        # the last token of a caption has no successor, and is no input
        before = TokenBatch(ids[:, :-1], mask[:, 1:])
        text = model.cross_modal.layers.decode(model.encode_tokens(before, causal=True), contexts, before.mask)
        places = before.mask.flatten().nonzero().squeeze(1)  # (N,)
        target = ids[:, 1:].flatten()[places].to(text.device, non_blocking=True)  # (N,)
        # (B, T - 1, C) -> (B (T - 1), C) -> (N, C) -> (N, V)
        logits = self(text.flatten(0, 1).index_select(0, places.to(text.device, non_blocking=True)))
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        total = F.cross_entropy(logits, target, reduction='sum', label_smoothing=self.label_smoothing)
        return {
            'loss_caption': mean_of_all(total, len(target)),
            'acc_caption': (logits.argmax(1) == target).float().mean(),
        }

    @staticmethod
    def _contexts_of(model: 'METER', batch: 'FusionBatch') -> list[tuple[Tensor, Tensor]]:
        """Keys and values ``(B, H, S, D)`` of each caption's picture; each different picture is computed once."""
        contexts = model.cross_modal.layers.image_contexts(batch.image_tokens)
        if batch.picture_of == list(range(len(batch.image_tokens))):
            return contexts
        rows = torch.tensor(batch.picture_of, device=batch.image_tokens.device)
        return [(keys.index_select(0, rows), values.index_select(0, rows)) for keys, values in contexts]

    @torch.no_grad()
    def write(self, model: 'METER', image_tokens: Tensor) -> Decoded:
        """Captions as ids.

        Args:
            model: the model with this head.
            image_tokens: ``(U, S, C)`` of :meth:`METER.encode_image`.

        Raises:
            ValueError: the head's lengths do not fit the model's texts.
        """
        rules, layers = self._rules(model), model.cross_modal.layers
        contexts = layers.image_contexts(image_tokens)
        if self.num_beams > 1:
            # (U, H, S, D) -> (U K, H, S, D)
            contexts = [tuple(x.repeat_interleave(self.num_beams, 0) for x in pair) for pair in contexts]

        def next_logits(ids: Tensor) -> Tensor:
            tokens = TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool))
            text = layers.decode(model.encode_tokens(tokens, causal=True), contexts)
            return self(text[:, -1])

        if self.num_beams == 1:
            return greedy_search(next_logits, len(image_tokens), rules)
        return beam_search(next_logits, len(image_tokens), rules, self.num_beams, self.length_penalty)

    def _rules(self, model: 'METER') -> DecodingRules:
        tokenizer, longest = model.tokenizer, model.max_text_len - 2
        if self.max_length is not None and self.max_length > longest:
            raise ValueError(
                f'max_length of the caption head is {self.max_length}, but texts of the model have at most {longest} '
                'tokens between start and end; lower it or raise max_text_len'
            )
        return DecodingRules(
            start_id=tokenizer.start_token_id,
            end_id=tokenizer.end_token_id,
            max_length=longest if self.max_length is None else self.max_length,
            min_length=self.min_length,
            # a padded head has outputs that are no tokens
            banned=tokenizer.special_ids - {tokenizer.end_token_id} | {*range(tokenizer.vocab_size, self.vocab_size)},
        )

    def predict(self, model: 'METER', batch: 'FusionBatch') -> None:
        """Give each sample ``pred_caption``, and ``caption_score``, the caption's mean log-probability a token."""
        written = self.write(model, batch.image_tokens)
        captions = [model.tokenizer.decode(ids) for ids in written.ids]
        for sample, picture in zip(batch.samples, batch.picture_of, strict=True):
            sample.set_field(captions[picture], 'pred_caption')
            sample.set_field(float(written.log_probs[picture]) / (len(written.ids[picture]) + 1), 'caption_score')
