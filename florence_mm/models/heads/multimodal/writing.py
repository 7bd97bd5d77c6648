"""Base class of heads that write texts: cross-entropy in training, and generation by search or sampling.

Shape legend: ``B`` texts, ``U`` images, ``S`` image tokens, ``N`` predicted tokens, ``C`` hidden size, ``V``
vocabulary, ``K`` beams.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from florence_mm.models.generation import (
    AllowedNext,
    Decoded,
    DecodingRules,
    NextLogits,
    RandomSource,
    beam_search,
    greedy_search,
    nucleus_search,
)
from florence_mm.models.generation.nucleus import check_sampling
from florence_mm.models.multimodal.batch import even_groups, images_of_rows
from florence_mm.models.multimodal.protocol import Writer, Written
from florence_mm.models.tokenizers.protocol import TokenBatch
from florence_mm.ops.precision import at_least_float32

from .vocabulary import VocabularyHead
from .writer_logits import WriterLogits


class WritingHead(VocabularyHead):
    """Base class of heads that write texts with a writer, by a language model on its hidden states.

    Args:
        num_beams: K in prediction; 1 is greedy search.
        length_penalty: see :func:`~florence_mm.models.generation.beam.beam_search`.
        max_length: most tokens of a predicted text, without start and end; None: the limit of the model's texts.
        min_length: fewest tokens of a predicted text.
        top_p: draw texts by nucleus sampling with this probability instead of searching the most probable one; None:
            search. See :func:`~florence_mm.models.generation.nucleus.nucleus_search`.
        temperature: temperature of nucleus sampling.
        label_smoothing: share of the target that label smoothing spreads over the vocabulary.
        smoothing_over: ``'all'`` spreads it over all V tokens, as torch and BLIP do; ``'others'`` over the V - 1 tokens
            other than the right one, as GIT does.
        hidden_size: C, set by the model.
        vocab_size: V, set by the model; at least the number of the tokenizer's ids, more in padded weights.
        layer_norm_eps: epsilon of the layer norm; 1e-12 in METER.
        init_std: standard deviation of the initial weights of linear layers, set by the model.
        layers: ``tied``, ``transform``, ``learned_bias``, ``gives_logits`` and ``init_cfg``, see
            :class:`~florence_mm.models.heads.multimodal.vocabulary.VocabularyHead`.

    Raises:
        ValueError: an argument is out of range, or ``top_p`` and ``num_beams`` exclude each other.
    """

    needs = Writer
    #: what it writes, for messages
    noun = 'text'

    def __init__(
        self,
        num_beams: int = 1,
        length_penalty: float = 1.0,
        max_length: int | None = None,
        min_length: int = 0,
        top_p: float | None = None,
        temperature: float = 1.0,
        label_smoothing: float = 0.0,
        smoothing_over: Literal['all', 'others'] = 'all',
        hidden_size: int = 768,
        vocab_size: int = 50265,
        layer_norm_eps: float = 1e-12,
        init_std: float = 0.02,
        **layers: Any,
    ) -> None:
        super().__init__(hidden_size, vocab_size, layer_norm_eps, init_std, **layers)
        if num_beams < 1 or not 0 <= length_penalty < math.inf or not 0 <= label_smoothing < 1:
            raise ValueError(
                f'num_beams={num_beams}, length_penalty={length_penalty} and label_smoothing={label_smoothing} of the '
                f'{self.noun} head must be at least 1, finite and at least 0, and from 0 to below 1'
            )
        check_sampling(1.0 if top_p is None else top_p, temperature)
        if top_p is None and temperature != 1:
            raise ValueError(
                f'temperature={temperature} of the {self.noun} head has no effect without sampling; give top_p too, or '
                'leave it out'
            )
        if top_p is not None and num_beams > 1:
            raise ValueError(
                f'the {self.noun} head got top_p={top_p}, which draws texts, and num_beams={num_beams}, which searches '
                'the best; leave one of them out'
            )
        if smoothing_over not in ('all', 'others'):
            raise ValueError(
                f"smoothing_over of the {self.noun} head is {smoothing_over!r}; give 'all' or 'others', the tokens "
                'that label smoothing is spread over'
            )
        self.num_beams = num_beams
        self.length_penalty = length_penalty
        self.max_length = max_length
        self.min_length = min_length
        self.top_p = top_p
        self.temperature = temperature
        self.label_smoothing = label_smoothing
        self.smoothing_over = smoothing_over

    # --- training -----------------------------------------------------------------------------------------------------

    def token_losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the cross-entropy ``(N,)`` of each token from logits ``(N, V)`` and ids ``(N,)``.

        With smoothing s the target is 1 - s + s / V for the right token and s / V for each other one; over the others
        alone it is 1 - s and s / (V - 1), which is the former with s V / (V - 1) for s.
        """
        smoothing = self.label_smoothing
        if self.smoothing_over == 'others':
            smoothing *= self.vocab_size / (self.vocab_size - 1)
        return F.cross_entropy(at_least_float32(logits), target, reduction='none', label_smoothing=smoothing)

    # --- generation ---------------------------------------------------------------------------------------------------

    def draw_texts(self, top_p: float, temperature: float = 1.0) -> None:
        """Draw texts by nucleus sampling from now on, instead of what the head was built to do.

        Raises:
            ValueError: a number is out of range.
        """
        check_sampling(top_p, temperature)
        self.top_p, self.temperature, self.num_beams = top_p, temperature, 1

    @torch.no_grad()
    def generate(
        self,
        model: Writer,
        image_tokens: Tensor,
        image_of: Sequence[int | None],
        prompts: TokenBatch | None = None,
        beginning: Sequence[int] = (),
        allowed: AllowedNext | Sequence[AllowedNext | None] | None = None,
        cached: bool = True,
        generator: RandomSource = None,
    ) -> Decoded:
        """Generate B texts, as ids.

        Args:
            model: the model with this head.
            image_tokens: ``(U, S, C)``.
            image_of: index of the image of each text; None: it has none.
            prompts: B prompts of any lengths, with start and end tokens; None: no prompts.
            beginning: ids that each text begins with, which are not returned.
            allowed: see :class:`~florence_mm.models.generation.rules.DecodingRules`.
            cached: cache keys and values of generated tokens; without, each step computes all tokens again.
            generator: see :func:`~florence_mm.models.generation.nucleus.nucleus_search`.
        """
        ids: list[list[int]] = [[] for _ in image_of]
        log_probs = torch.zeros(len(ids), dtype=torch.float64)
        of_tokens: list[list[float]] = [[] for _ in image_of]
        lengths = [0] * len(ids) if prompts is None else prompts.mask.sum(1).tolist()
        # prompts that are the beginnings of texts must have one length
        for rows in even_groups(image_of, [0] * len(ids) if model.prompts_apart else lengths):
            part = None
            if prompts is not None:
                longest = max(lengths[row] for row in rows)
                part = TokenBatch(*(x[rows, :longest] for x in (prompts.input_ids, prompts.mask)))
            own = generator if isinstance(generator, Generator | None) else [generator[row] for row in rows]
            tokens, places = images_of_rows(image_tokens, [image_of[row] for row in rows])
            may_follow = [allowed[row] for row in rows] if isinstance(allowed, Sequence) else allowed
            decoded = self._generate(model, tokens, places, part, beginning, may_follow, cached, own)
            for place, row in enumerate(rows):
                ids[row], log_probs[row] = decoded.ids[place], decoded.log_probs[place]
                of_tokens[row] = decoded.token_log_probs[place]
        return Decoded(ids, log_probs, of_tokens)

    def _generate(
        self,
        model: Writer,
        image_tokens: Tensor,
        image_of: Sequence[int],
        prompts: TokenBatch | None,
        beginning: Sequence[int],
        allowed: AllowedNext | Sequence[AllowedNext | None] | None,
        cached: bool,
        generator: RandomSource,
    ) -> Decoded:
        """Generate texts after prompts of one length."""
        count, beams = len(image_of), self.num_beams
        if prompts is not None:
            prompts = TokenBatch(*(x.repeat_interleave(beams, 0) for x in (prompts.input_ids, prompts.mask)))
        state = model.start_writing(image_tokens, [i for i in image_of for _ in range(beams)], prompts, cached)
        first = state.first_ids[::beams]
        if len(beginning):
            first = torch.cat([first, torch.tensor([list(beginning)] * count)], 1)
        rules = self.rules(model, first.shape[1], allowed)
        return self.search(WriterLogits(self, model, state), count, rules, first, generator)

    def search(
        self, next_logits: NextLogits, count: int, rules: DecodingRules, first: Tensor, generator: RandomSource = None
    ) -> Decoded:
        """Search or draw ``count`` texts behind the ids ``first (count, P)``, as the head's settings say."""
        if self.top_p is not None:
            return nucleus_search(next_logits, count, rules, self.top_p, self.temperature, first, generator)
        if self.num_beams == 1:
            return greedy_search(next_logits, count, rules, first)
        return beam_search(next_logits, count, rules, self.num_beams, self.length_penalty, first)

    @staticmethod
    def as_texts(model: Writer, decoded: Decoded) -> list[Written]:
        """What was generated as texts, with the mean log-probability of their tokens, the end included."""
        return [
            Written(model.tokenizer.decode(ids), float(log_prob) / (len(ids) + 1))
            for ids, log_prob in zip(decoded.ids, decoded.log_probs, strict=True)
        ]

    def rules(
        self, model: Writer, first: int, allowed: AllowedNext | Sequence[AllowedNext | None] | None = None
    ) -> DecodingRules:
        """Make the rules of generation after ``first`` given ids, the start token included.

        Raises:
            ValueError: ``max_length`` does not fit into the model's longest texts.
        """
        tokenizer, longest = model.tokenizer, model.max_text_len - first - 1
        if longest < 1:
            raise ValueError(
                f'what a {self.noun} follows has {first} tokens with the start, which leaves none for a word where '
                f'texts of the model have at most {model.max_text_len}; shorten the prompt or raise max_text_len'
            )
        if self.max_length is not None and self.max_length > longest:
            raise ValueError(
                f'max_length of the {self.noun} head is {self.max_length}, but texts of the model have at most '
                f'{longest} tokens between what they follow and the end; lower it or raise max_text_len'
            )
        return DecodingRules(
            start_id=tokenizer.start_token_id,
            end_id=tokenizer.end_token_id,
            max_length=longest if self.max_length is None else self.max_length,
            min_length=self.min_length,
            # outputs of a padded head beyond the vocabulary are not tokens
            banned=tokenizer.special_ids - {tokenizer.end_token_id} | {*range(tokenizer.vocab_size, self.vocab_size)},
            allowed=allowed,
        )
