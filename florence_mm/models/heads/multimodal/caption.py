"""Captions, written from left to right with the image in view.

The model is a :class:`~florence_mm.models.multimodal.protocol.Writer`: each word sees the image and the words before
it, so that the loss of a whole caption is that of writing it word by word. While a caption is written, keys and values
of its words are kept, and what the image gives is computed once.

Shape legend: ``B`` captions, ``U`` different images among them, ``T`` tokens with start and end, ``S`` image tokens,
``N`` tokens to be predicted, ``C`` hidden size, ``V`` vocabulary, ``K`` beams.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from florence_mm.models.generation import Decoded, DecodingRules, NextLogits, beam_search, greedy_search
from florence_mm.models.generation.state import WriterState
from florence_mm.models.multimodal.batch import FusionBatch
from florence_mm.models.multimodal.protocol import Writer, Written
from florence_mm.models.tokenizers.protocol import TokenBatch
from florence_mm.registry import MODELS

from .reduction import mean_of_all
from .vocabulary import VocabularyHead


@MODELS.register_module()
class FusionCaptionHead(VocabularyHead):
    """A language model over a writer's hidden states. Its layers are those of :class:`FusionMLMHead`.

    A METER that learns captions alone leaves parts without gradient (poolers, what image tokens would read text with):
    with several processes its config needs ``find_unused_parameters=True``.

    Args:
        num_beams: K of prediction; 1 is greedy.
        length_penalty: see :func:`~florence_mm.models.generation.beam.beam_search`.
        max_length: most tokens of a predicted caption, without start and end; None: as many as the model's texts may
            have.
        min_length: least tokens of a predicted caption.
        prompt: words that every caption follows, such as "a picture of": they are read, not learned and not reported.
        label_smoothing: part of the target that all tokens share, 0 for none.
        hidden_size: C, which the model gives.
        vocab_size: V, which the model gives; may be more than the tokenizer's ids, as in padded weights, and not less.
        layer_norm_eps: 1e-12 in METER.
        init_std: standard deviation of the linear layers' first weights, which the model gives.
        init_cfg: see mmengine.

    Raises:
        ValueError: an argument out of range.
    """

    needs = Writer

    def __init__(
        self,
        num_beams: int = 1,
        length_penalty: float = 1.0,
        max_length: int | None = None,
        min_length: int = 0,
        prompt: str = '',
        label_smoothing: float = 0.0,
        hidden_size: int = 768,
        vocab_size: int = 50265,
        layer_norm_eps: float = 1e-12,
        init_std: float = 0.02,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(hidden_size, vocab_size, layer_norm_eps, init_std, init_cfg)
        if num_beams < 1 or not 0 <= length_penalty < math.inf or not 0 <= label_smoothing < 1:
            raise ValueError(
                f'num_beams={num_beams}, length_penalty={length_penalty} and label_smoothing={label_smoothing} of the '
                'caption head must be at least 1, finite and at least 0, and from 0 to below 1'
            )
        self.num_beams = num_beams
        self.length_penalty = length_penalty
        self.max_length = max_length
        self.min_length = min_length
        self.prompt = prompt.strip()
        self.label_smoothing = label_smoothing

    # --- training -----------------------------------------------------------------------------------------------------

    def loss(self, batch: FusionBatch) -> dict[str, Tensor]:
        """Cross-entropy of each token given those before it, a mean over all processes' tokens, and ``acc_caption``."""
        model = batch.model
        tokens = model.tokenize([f'{self.prompt} {text}' for text in batch.texts]) if self.prompt else batch.tokens
        ids, mask = tokens.input_ids, tokens.mask  # (B, T)
        # the last token of a caption has no successor, and is no input
        before = TokenBatch(ids[:, :-1], mask[:, 1:])
        hidden = model.write_on(before, model.start_writing(batch.image_tokens, batch.image_of))  # (B, T - 1, C)
        learned = before.mask.clone()
        if self.prompt:
            learned[:, : len(model.tokenize([self.prompt]).input_ids[0]) - 2] = False
        places = learned.flatten().nonzero().squeeze(1)  # (N,)
        target = ids[:, 1:].flatten()[places].to(hidden.device, non_blocking=True)  # (N,)
        # (B, T - 1, C) -> (B (T - 1), C) -> (N, C) -> (N, V)
        logits = self(hidden.flatten(0, 1).index_select(0, places.to(hidden.device, non_blocking=True)))
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        total = F.cross_entropy(logits, target, reduction='sum', label_smoothing=self.label_smoothing)
        return {
            'loss_caption': mean_of_all(total, len(target)),
            'acc_caption': (logits.argmax(1) == target).float().mean(),
        }

    # --- prediction ---------------------------------------------------------------------------------------------------

    def predict(self, batch: FusionBatch) -> None:
        """Give each sample ``pred_caption``, and ``caption_score``, the caption's mean log-probability a token."""
        written = self.write(batch.model, batch.image_tokens)
        for sample, image in zip(batch.samples, batch.image_of, strict=True):
            sample.set_field(written[image].text, 'pred_caption')
            sample.set_field(written[image].score, 'caption_score')

    def write(self, model: Writer, image_tokens: Tensor, prompts: Sequence[str] | None = None) -> list[Written]:
        """Write a caption of each image.

        Args:
            model: the model with this head.
            image_tokens: ``(U, S, C)``.
            prompts: U texts that the captions follow; None: the head's own, or none.

        Raises:
            ValueError: the head's lengths do not fit the model's texts, or another number of prompts than of images.
        """
        decoded = self.decode(model, image_tokens, prompts)
        return [
            Written(model.tokenizer.decode(ids), float(log_prob) / (len(ids) + 1))
            for ids, log_prob in zip(decoded.ids, decoded.log_probs, strict=True)
        ]

    @torch.no_grad()
    def decode(
        self, model: Writer, image_tokens: Tensor, prompts: Sequence[str] | None = None, cached: bool = True
    ) -> Decoded:
        """:meth:`write` as ids.

        Args:
            model: the model with this head.
            image_tokens: ``(U, S, C)``.
            prompts: U texts that the captions follow; None: the head's own, or none.
            cached: keep keys and values of what was written; without them each step computes all words again.
        """
        if not isinstance(prompts, str | None) and len(prompts) != len(image_tokens):
            raise ValueError(f'there are {len(image_tokens)} images and {len(prompts)} prompts; give each image one')
        if not len(image_tokens):
            return Decoded([], torch.zeros(0, dtype=torch.float64))
        if prompts is None and self.prompt:
            prompts = [self.prompt] * len(image_tokens)
        if prompts is None:
            return self._decode(model, image_tokens, None, cached)
        # prompts of one length are read together, so that no padding comes before a word
        tokens = model.tokenize(prompts)
        lengths = tokens.mask.sum(1)
        ids: list[list[int]] = [[] for _ in prompts]
        log_probs = torch.zeros(len(prompts), dtype=torch.float64)
        for length in lengths.unique().tolist():
            rows = (lengths == length).nonzero().squeeze(1)
            part = TokenBatch(tokens.input_ids[rows, :length], tokens.mask[rows, :length])
            decoded = self._decode(model, image_tokens[rows.to(image_tokens.device)], part, cached)
            for row, text, log_prob in zip(rows.tolist(), decoded.ids, decoded.log_probs, strict=True):
                ids[row], log_probs[row] = text, log_prob
        return Decoded(ids, log_probs)

    def _decode(self, model: Writer, image_tokens: Tensor, prompts: TokenBatch | None, cached: bool) -> Decoded:
        count, beams = len(image_tokens), self.num_beams
        if prompts is not None:
            prompts = TokenBatch(*(x.repeat_interleave(beams, 0) for x in (prompts.input_ids, prompts.mask)))
        image_of = [number for number in range(count) for _ in range(beams)]
        state = model.start_writing(image_tokens, image_of, prompts, cached)
        rules, first = self._rules(model, state.first_ids.shape[1]), state.first_ids[::beams]
        follow = self._continuation(model, state)
        if beams == 1:
            return greedy_search(follow, count, rules, first)
        return beam_search(follow, count, rules, beams, self.length_penalty, first)

    def _continuation(self, model: Writer, state: WriterState) -> NextLogits:
        """Logits of the token after given ids, of which the state may hold most."""

        def next_logits(ids: Tensor, parents: Tensor | None) -> Tensor:
            if parents is not None:
                state.select(parents)
            new = ids[:, state.length :]
            hidden = model.write_on(TokenBatch(new, torch.ones_like(new, dtype=torch.bool)), state)
            return self(hidden[:, -1])

        return next_logits

    def _rules(self, model: Writer, first: int) -> DecodingRules:
        """What a caption may be after ``first`` ids, the start token among them."""
        tokenizer, longest = model.tokenizer, model.max_text_len - first - 1
        if longest < 1:
            raise ValueError(
                f'what a caption follows has {first} tokens with the start, which leaves none for a word where texts '
                f'of the model have at most {model.max_text_len}; shorten the prompt or raise max_text_len'
            )
        if self.max_length is not None and self.max_length > longest:
            raise ValueError(
                f'max_length of the caption head is {self.max_length}, but texts of the model have at most {longest} '
                'tokens between what they follow and the end; lower it or raise max_text_len'
            )
        return DecodingRules(
            start_id=tokenizer.start_token_id,
            end_id=tokenizer.end_token_id,
            max_length=longest if self.max_length is None else self.max_length,
            min_length=self.min_length,
            # a padded head has outputs that are no tokens
            banned=tokenizer.special_ids - {tokenizer.end_token_id} | {*range(tokenizer.vocab_size, self.vocab_size)},
        )
