"""Captioning head: generates texts from left to right, conditioned on the image.

The model must be a :class:`~florence_mm.models.multimodal.protocol.Writer`: each token sees the image and the tokens
before it, so that one pass gives the loss of a whole caption. In generation, keys and values of earlier tokens are
cached, and the image is encoded once.

Shape legend: ``B`` captions, ``U`` different images among them, ``T`` tokens with start and end, ``S`` image tokens,
``N`` predicted tokens, ``C`` hidden size, ``V`` vocabulary, ``K`` beams.
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
from florence_mm.ops.precision import at_least_float32
from florence_mm.registry import MODELS

from .reduction import mean_over_processes
from .vocabulary import VocabularyHead


@MODELS.register_module()
class FusionCaptionHead(VocabularyHead):
    """Captioning head: a language model on the hidden states of a writer, with the layers of :class:`FusionMLMHead`.

    A METER trained only on captions has parameters without gradient (the poolers, and the cross-attention of image
    tokens to texts); for distributed training its config needs ``find_unused_parameters=True``.

    Args:
        num_beams: K in prediction; 1 is greedy search.
        length_penalty: see :func:`~florence_mm.models.generation.beam.beam_search`.
        max_length: most tokens of a predicted caption, without start and end; None: the limit of the model's texts.
        min_length: fewest tokens of a predicted caption.
        prompt: text before every caption, such as "a picture of"; it is neither learned nor part of the prediction.
        label_smoothing: label smoothing of the cross-entropy.
        hidden_size: C, set by the model.
        vocab_size: V, set by the model; at least the number of the tokenizer's ids, more in padded weights.
        layer_norm_eps: epsilon of the layer norm; 1e-12 in METER.
        init_std: standard deviation of the initial weights of linear layers, set by the model.
        init_cfg: see mmengine.
        tied: see :class:`~florence_mm.models.heads.multimodal.vocabulary.VocabularyHead`.
        transform: see there.

    Raises:
        ValueError: an argument is out of range.
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
        tied: bool = False,
        transform: bool = True,
    ) -> None:
        super().__init__(hidden_size, vocab_size, layer_norm_eps, init_std, init_cfg, tied, transform)
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
        """Compute the cross-entropy of each token given those before it, a mean over all processes' tokens."""
        model = batch.model
        tokens = model.tokenize([f'{self.prompt} {text}' for text in batch.texts]) if self.prompt else batch.tokens
        ids, mask = tokens.input_ids, tokens.mask  # (B, T)
        # the last token of a caption has no successor, so it is not an input
        before = TokenBatch(ids[:, :-1], mask[:, 1:])
        hidden = model.write_on(before, model.start_writing(batch.image_tokens, batch.image_of))  # (B, T - 1, C)
        learned = before.mask.clone()
        if self.prompt:
            learned[:, : len(model.tokenize([self.prompt]).input_ids[0]) - 2] = False
        places = learned.flatten().nonzero().squeeze(1)  # (N,)
        target = ids[:, 1:].flatten()[places].to(hidden.device, non_blocking=True)  # (N,)
        # (B, T - 1, C) -> (B (T - 1), C) -> (N, C) -> (N, V)
        logits = self(hidden.flatten(0, 1).index_select(0, places.to(hidden.device, non_blocking=True)))
        logits = at_least_float32(logits)
        total = F.cross_entropy(logits, target, reduction='sum', label_smoothing=self.label_smoothing)
        return {
            'loss_caption': mean_over_processes(total, len(target)),
            'acc_caption': (logits.argmax(1) == target).float().mean(),
        }

    # --- prediction ---------------------------------------------------------------------------------------------------

    def predict(self, batch: FusionBatch) -> None:
        """Set ``pred_caption`` and ``caption_score``, its mean log-probability per token, of each sample."""
        written = self.write(batch.model, batch.image_tokens)
        for sample, image in zip(batch.samples, batch.image_of, strict=True):
            sample.set_field(written[image].text, 'pred_caption')
            sample.set_field(written[image].score, 'caption_score')

    def write(self, model: Writer, image_tokens: Tensor, prompts: Sequence[str] | None = None) -> list[Written]:
        """Generate a caption for each image.

        Args:
            model: the model with this head.
            image_tokens: ``(U, S, C)``.
            prompts: U texts before the captions; None: the head's prompt, if any.

        Raises:
            ValueError: ``max_length`` does not fit into the model's longest texts, or the number of prompts is not
                that of images.
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
        """Generate a caption for each image, as ids.

        Args:
            model: the model with this head.
            image_tokens: ``(U, S, C)``.
            prompts: U texts before the captions; None: the head's prompt, if any.
            cached: cache keys and values of generated tokens; without, each step computes all tokens again.
        """
        if not isinstance(prompts, str | None) and len(prompts) != len(image_tokens):
            raise ValueError(f'there are {len(image_tokens)} images and {len(prompts)} prompts; give each image one')
        if not len(image_tokens):
            return Decoded([], torch.zeros(0, dtype=torch.float64))
        if prompts is None and self.prompt:
            prompts = [self.prompt] * len(image_tokens)
        if prompts is None:
            return self._decode(model, image_tokens, None, cached)
        # prompts of equal length are processed together, so that there is no padding before generated tokens
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
        next_logits = self._next_logits(model, state)
        if beams == 1:
            return greedy_search(next_logits, count, rules, first)
        return beam_search(next_logits, count, rules, beams, self.length_penalty, first)

    def _next_logits(self, model: Writer, state: WriterState) -> NextLogits:
        """Make the function that returns the logits of the next token; the state caches earlier tokens."""

        def next_logits(ids: Tensor, parents: Tensor | None) -> Tensor:
            if parents is not None:
                state.select(parents)
            new = ids[:, state.length :]
            hidden = model.write_on(TokenBatch(new, torch.ones_like(new, dtype=torch.bool)), state)
            return self(hidden[:, -1])

        return next_logits

    def _rules(self, model: Writer, first: int) -> DecodingRules:
        """Make the rules of generation after ``first`` given ids, the start token included."""
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
            # outputs of a padded head beyond the vocabulary are not tokens
            banned=tokenizer.special_ids - {tokenizer.end_token_id} | {*range(tokenizer.vocab_size, self.vocab_size)},
        )
