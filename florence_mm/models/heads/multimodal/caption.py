"""Captioning head: generates texts from left to right, conditioned on the image.

The model must be a :class:`~florence_mm.models.multimodal.protocol.Writer`: each token sees the image and the tokens
before it, so that one pass gives the loss of a whole caption. In generation, keys and values of earlier tokens are
cached, and the image is encoded once.

Shape legend: ``B`` captions, ``U`` different images among them, ``T`` tokens with start and end, ``S`` image tokens,
``N`` predicted tokens, ``C`` hidden size, ``V`` vocabulary.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Generator, Tensor

from florence_mm.models.generation import Decoded, RandomSource
from florence_mm.models.multimodal.batch import FusionBatch
from florence_mm.models.multimodal.protocol import Writer, Written
from florence_mm.models.tokenizers.protocol import TokenBatch, pad_ids
from florence_mm.registry import MODELS

from .cuts import cut_texts, draw_cuts
from .reduction import mean_over_processes
from .writing import WritingHead


@MODELS.register_module()
class FusionCaptionHead(WritingHead):
    """Captioning head: a language model on the hidden states of a writer, with the layers of :class:`FusionMLMHead`.

    A METER trained only on captions has parameters without gradient (the poolers, and the cross-attention of image
    tokens to texts); for distributed training its config needs ``find_unused_parameters=True``.

    Args:
        prompt: text that every caption begins with, such as "a picture of"; it is neither learned nor part of the
            prediction.
        random_prefix: train as a prefix language model (SimVLM, arXiv 2108.10904): each text is cut at a random place,
            anew in every step, and what is before the cut is a prompt, which is read and not learned. ``'half'``: from
            behind its first token to its middle, as BLIP-2 trains on T5 (https://github.com/salesforce/LAVIS/issues/139;
            its public code has no such step).
        complete: share of each sample's text, in whole tokens from its beginning, that prediction is given and
            completes; 0: captions are written from their beginning.
        writing: how captions are searched or drawn, label smoothing and the layers: ``num_beams``, ``length_penalty``,
            ``max_length``, ``min_length``, ``top_p``, ``temperature``, ``label_smoothing``, ``smoothing_over`` and the
            others of :class:`~florence_mm.models.heads.multimodal.writing.WritingHead`.

    Raises:
        ValueError: an argument is out of range, or two exclude each other.
    """

    noun = 'caption'

    def __init__(
        self, prompt: str = '', random_prefix: bool | Literal['half'] = False, complete: float = 0.0, **writing: Any
    ) -> None:
        super().__init__(**writing)
        self.prompt = prompt.strip()
        if self.prompt and (random_prefix or complete):
            raise ValueError(
                f'the caption head got the prompt {self.prompt!r} and random_prefix={random_prefix}, '
                f'complete={complete}, by which the beginning of each text is its prompt; leave one of them out'
            )
        if random_prefix not in (True, False, 'half'):
            raise ValueError(f"random_prefix of the caption head is {random_prefix!r}; give True, False or 'half'")
        if not 0 <= complete < 1:
            raise ValueError(f'complete of the caption head is {complete}; give a share from 0 to below 1')
        self.random_prefix = random_prefix
        self.complete = complete

    def take_model(self, model: Writer) -> None:
        """Check that the prompt and the lengths of captions fit the model.

        Raises:
            ValueError: they do not.
        """
        self.rules(model, 1 + len(self._beginning(model)))

    # --- training -----------------------------------------------------------------------------------------------------

    def loss(self, batch: FusionBatch) -> dict[str, Tensor]:
        """Compute the cross-entropy of each token given those before it, a mean over all processes' tokens."""
        model = batch.model
        tokens = self._prompted(model, batch.texts) if self.prompt else batch.tokens
        prompts = None
        if self.random_prefix:
            prompts, tokens = cut_texts(tokens, draw_cuts(tokens.mask, half=self.random_prefix == 'half'), model.tokenizer.pad_token_id)
        hidden = model.teach(batch.image_tokens, batch.image_of, prompts, tokens)  # (B, T - 1, C)
        learned = tokens.mask[:, 1:].clone()
        if self.prompt:
            learned[:, : len(self._beginning(model))] = False
        places = learned.flatten().nonzero().squeeze(1)  # (N,)
        target = tokens.input_ids[:, 1:].flatten()[places].to(hidden.device, non_blocking=True)  # (N,)
        # (B, T - 1, C) -> (B (T - 1), C) -> (N, C) -> (N, V)
        logits = self(hidden.flatten(0, 1).index_select(0, places.to(hidden.device, non_blocking=True)))
        return {
            'loss_caption': mean_over_processes(self.token_losses(logits, target).sum(), len(target)),
            'acc_caption': (logits.argmax(1) == target).float().mean(),
        }

    def _prompted(self, model: Writer, texts: Sequence[str]) -> TokenBatch:
        """Tokenize texts behind the prompt, which they have too where a too long text keeps its end alone."""
        tokens, beginning = model.tokenize([f'{self.prompt} {text}' for text in texts]), self._beginning(model)
        size = len(beginning)
        cut = (tokens.input_ids[:, 1 : size + 1] != torch.tensor(beginning)).any(1).tolist()
        if not any(cut):
            return tokens
        rows = [
            row[:length] for row, length in zip(tokens.input_ids.tolist(), tokens.mask.sum(1).tolist(), strict=True)
        ]
        for place in (place for place, is_cut in enumerate(cut) if is_cut):
            start, *rest = model.tokenizer([texts[place]], model.max_text_len - size).input_ids[0].tolist()
            rows[place] = [start, *beginning, *rest]
        return pad_ids(rows, model.tokenizer.pad_token_id)

    def _beginning(self, model: Writer) -> list[int]:
        """The prompt as ids, without start and end."""
        return model.tokenize([self.prompt]).input_ids[0, 1:-1].tolist() if self.prompt else []

    # --- prediction ---------------------------------------------------------------------------------------------------

    def predict(self, batch: FusionBatch) -> None:
        """Set ``pred_caption`` and ``caption_score``, its mean log-probability per token, of each sample.

        What is completed is whole in ``pred_caption``; the score is that of the tokens which were written.
        """
        if self.complete or None in batch.image_of:
            written = self._completed(batch)
        else:
            of_images = self.write(batch.model, batch.image_tokens)
            written = [of_images[image] for image in batch.image_of]
        for sample, caption in zip(batch.samples, written, strict=True):
            sample.set_field(caption.text, 'pred_caption')
            sample.set_field(caption.score, 'caption_score')

    def _completed(self, batch: FusionBatch) -> list[Written]:
        model = batch.model
        tokens = batch.tokens
        cuts = ((tokens.mask.sum(1) - 2) * self.complete).long()
        given, _ = cut_texts(tokens, cuts, model.tokenizer.pad_token_id)
        decoded = self.generate(model, batch.image_tokens, batch.image_of, given)
        rows = zip(given.input_ids.tolist(), cuts.tolist(), decoded.ids, decoded.log_probs.tolist(), strict=True)
        return [
            Written(model.tokenizer.decode([*prompt[1 : cut + 1], *ids]), log_prob / (len(ids) + 1))
            for prompt, cut, ids, log_prob in rows
        ]

    def write(
        self,
        model: Writer,
        image_tokens: Tensor,
        prompts: Sequence[str] | None = None,
        generator: RandomSource = None,
    ) -> list[Written]:
        """Generate a caption for each image.

        Args:
            model: the model with this head.
            image_tokens: ``(U, S, C)``.
            prompts: U texts before the captions, which the model reads as it reads prompts; None: captions begin with
                the head's prompt, if any.
            generator: with ``top_p``, the source of random numbers: one CPU generator, or one for each image, whose
                caption then does not depend on the others; None: torch's.

        Raises:
            ValueError: ``max_length`` does not fit into the model's longest texts, the number of prompts or generators
                is not that of images, or there are generators and no ``top_p``.
        """
        decoded = self.decode(model, image_tokens, prompts, generator=generator)
        return self.as_texts(model, decoded)

    @torch.no_grad()
    def decode(
        self,
        model: Writer,
        image_tokens: Tensor,
        prompts: Sequence[str] | None = None,
        cached: bool = True,
        generator: RandomSource = None,
    ) -> Decoded:
        """Generate a caption for each image, as ids.

        Args:
            model: the model with this head.
            image_tokens: ``(U, S, C)``.
            prompts: see :meth:`write`.
            cached: cache keys and values of generated tokens; without, each step computes all tokens again.
            generator: see :meth:`write`.
        """
        images = len(image_tokens)
        if not isinstance(prompts, str | None) and len(prompts) != images:
            raise ValueError(f'there are {images} images and {len(prompts)} prompts; give each image one')
        if generator is not None and self.top_p is None:
            raise ValueError('the caption head searches and draws no random numbers; give it top_p, or no generator')
        if not isinstance(generator, Generator | None) and len(generator) != images:
            raise ValueError(f'there are {images} images and {len(generator)} generators; give one, or each image one')
        if not images:
            return Decoded([], torch.zeros(0, dtype=torch.float64), [])
        tokens, beginning = (None, self._beginning(model)) if prompts is None else (model.tokenize(prompts), [])
        return self.generate(model, image_tokens, range(images), tokens, beginning, cached=cached, generator=generator)
