"""Head that solves tasks by writing (Florence-2, arXiv 2311.06242): a prompt says the task, a text is its answer.

Shape legend: ``B`` samples, ``U`` different images among them, ``S`` image tokens, ``T`` tokens of the longest text,
``N`` learned tokens, ``C`` hidden size, ``V`` vocabulary.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor

from florence_mm.models.generation import RandomSource
from florence_mm.models.multimodal.batch import FusionBatch
from florence_mm.models.multimodal.protocol import TeachesStart, Writer, Written
from florence_mm.models.tokenizers.protocol import TokenBatch
from florence_mm.registry import MODELS

from .reduction import mean_over_processes
from .writing import WritingHead


@MODELS.register_module()
class TaskHead(WritingHead):
    """Head that solves tasks by writing: a language model on the states of a writer, with prompts that say the task.

    Samples have a ``prompt``, the ``text`` that answers it and, for the log, the name of the ``task``. Only tokens of
    the answers are learned, each with the same weight, whatever its task. By default the logits are products with the
    word embeddings, plus a bias that is not learned, as in BART.

    Args:
        tied: multiply with the word embeddings of the model; False: with weights of its own.
        transform: a linear layer, GELU and layer norm before.
        learned_bias: learn the bias on the logits; False: it is 0, or what a checkpoint gives.
        writing: how answers are searched, and label smoothing: ``num_beams``, ``length_penalty``, ``max_length``,
            ``label_smoothing`` and the others of :class:`~florence_mm.models.heads.multimodal.writing.WritingHead`.

    Attributes:
        num_cut (int): number of texts so far that were longer than those of the model.

    Raises:
        ValueError: an argument is out of range, or two exclude each other.
    """

    noun = 'task'

    def __init__(self, tied: bool = True, transform: bool = False, learned_bias: bool = False, **writing: Any) -> None:
        super().__init__(tied=tied, transform=transform, learned_bias=learned_bias, **writing)
        self.num_cut = 0

    # --- training -----------------------------------------------------------------------------------------------------

    def loss(self, batch: FusionBatch) -> dict[str, Tensor]:
        """Compute the cross-entropy of each token of the answers given those before it.

        An answer longer than the texts of the model is learned as far as they reach, and not that it ends there.

        Returns:
            ``loss_tasks``, a mean over all processes' tokens; ``acc_tasks``, the share of right tokens; and for the
            log the mean cross-entropy ``nll_<task>`` of each task in the batch.
        """
        model = batch.model
        prompts = model.tokenize_prompts(batch.field('prompt'))
        texts = self._targets(model, batch.texts, prompts)
        if isinstance(model, TeachesStart):
            hidden = model.teach_from_end(batch.image_tokens, batch.image_of, prompts, texts)  # (B, T, C)
            learned, ids = texts.mask, texts.input_ids
        else:
            hidden = model.teach(batch.image_tokens, batch.image_of, prompts, texts)  # (B, T - 1, C)
            learned, ids = texts.mask[:, 1:], texts.input_ids[:, 1:]
        places = learned.flatten().nonzero().squeeze(1)  # (N,)
        device = hidden.device
        target = ids.flatten()[places].to(device, non_blocking=True)  # (N,)
        logits = self(hidden.flatten(0, 1).index_select(0, places.to(device, non_blocking=True)))  # (N, V)
        losses = self.token_losses(logits, target)
        with torch.no_grad():
            right = (logits.argmax(1) == target).float().mean()
            by_task = self._by_task(losses, batch, (places // learned.shape[1]).to(device, non_blocking=True))
        return {'loss_tasks': mean_over_processes(losses.sum(), len(target)), 'acc_tasks': right, **by_task}

    def _targets(self, model: Writer, texts: Sequence[str], prompts: TokenBatch) -> TokenBatch:
        """Tokenize answers; those that are too long are cut, and have no end token."""
        # a prompt that is the beginning of its text gives away its end token, and the text its start token
        limit = model.max_text_len - (0 if model.prompts_apart else prompts.input_ids.shape[1] - 2)
        tokens = model.tokenizer(texts, limit + 1)
        if tokens.input_ids.shape[1] <= limit:
            return tokens
        cut = int(tokens.mask[:, limit].sum())
        if not self.num_cut:
            print_log(
                f'{cut} of {len(texts)} answers have more than {limit} tokens with start and end, and are learned up '
                'to there; later ones are only counted (num_cut of the head); raise max_text_len of the model',
                'current',
                logging.WARNING,
            )
        self.num_cut += cut
        return TokenBatch(tokens.input_ids[:, :limit], tokens.mask[:, :limit])

    def _by_task(self, losses: Tensor, batch: FusionBatch, rows: Tensor) -> dict[str, Tensor]:
        """Mean losses by task, of losses ``(N,)`` of tokens of the samples ``rows (N,)``."""
        names = [sample.get('task') for sample in batch.samples]
        known = sorted({name for name in names if name is not None})
        numbers = torch.tensor([known.index(name) if name is not None else len(known) for name in names])
        tasks = numbers.to(rows.device, non_blocking=True).index_select(0, rows)
        sums, counts = losses.new_zeros(2, len(known) + 1).unbind()
        sums.index_add_(0, tasks, losses)
        counts.index_add_(0, tasks, torch.ones_like(losses))
        return {f'nll_{name}': mean for name, mean in zip(known, sums / counts, strict=False)}

    # --- prediction ---------------------------------------------------------------------------------------------------

    def predict(self, batch: FusionBatch) -> None:
        """Set ``pred_text`` and ``text_score``, its mean log-probability per token, of each sample."""
        prompts = batch.model.tokenize_prompts(batch.field('prompt')) if batch.samples else None
        for sample, written in zip(
            batch.samples, self._write(batch.model, batch.image_tokens, batch.image_of, prompts), strict=True
        ):
            sample.set_field(written.text, 'pred_text')
            sample.set_field(written.score, 'text_score')

    def write(
        self,
        model: Writer,
        image_tokens: Tensor,
        prompts: Sequence[str] | None = None,
        generator: RandomSource = None,
    ) -> list[Written]:
        """Write the answer to a prompt about each image, in any format.

        Args:
            model: the model with this head.
            image_tokens: ``(U, S, C)``.
            prompts: U prompts; None: nothing is asked.
            generator: with ``top_p``, the source of random numbers.
        """
        asked = None if not prompts else model.tokenize_prompts(prompts)
        return self._write(model, image_tokens, range(len(image_tokens)), asked, generator)

    def _write(
        self,
        model: Writer,
        image_tokens: Tensor,
        image_of: Sequence[int],
        prompts: TokenBatch | None,
        generator: RandomSource = None,
    ) -> list[Written]:
        if not len(image_of):
            return []
        decoded = self.generate(model, image_tokens, image_of, prompts, generator=generator)
        return [
            Written(model.tokenizer.decode(ids), float(log_prob) / (len(ids) + 1))
            for ids, log_prob in zip(decoded.ids, decoded.log_probs, strict=True)
        ]
