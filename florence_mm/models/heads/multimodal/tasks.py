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

from florence_mm.language.tasks import TASKS, TaskFormat, find_task
from florence_mm.models.generation import RandomSource
from florence_mm.models.multimodal.batch import FusionBatch
from florence_mm.models.multimodal.protocol import Solved, TaskQuestion, TeachesStart, Writer, Written
from florence_mm.models.tokenizers.locations import LocationTokenizer
from florence_mm.models.tokenizers.protocol import TokenBatch
from florence_mm.registry import MODELS

from .reduction import mean_over_processes
from .task_answers import read_answer
from .task_grammar import TaskGrammar
from .writing import WritingHead

#: More than any answer has: the head cuts those that are too long itself.
_NO_LIMIT = 1 << 30


@MODELS.register_module()
class TaskHead(WritingHead):
    """Head that solves tasks by writing: a language model on the states of a writer, with prompts that say the task.

    Samples have a ``prompt``, the ``text`` that answers it and, for the log, the name of the ``task``. Only tokens of
    the answers are learned, each with the same weight, whatever its task. By default the logits are products with the
    word embeddings, plus a bias that is not learned, as in BART.

    What is written follows the format of its task (:class:`~.task_grammar.TaskGrammar`), and is read as
    :func:`~.task_answers.read_answer` says, with scores of regions. The tokenizer of the model must be a
    :class:`~florence_mm.models.tokenizers.locations.LocationTokenizer`; with another one, only tasks that are answered
    by a text are solved.

    Args:
        constrained: write only what the format of the task permits; False: anything, and what does not parse is
            returned with sentences about it.
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

    def __init__(
        self,
        constrained: bool = True,
        tied: bool = True,
        transform: bool = False,
        learned_bias: bool = False,
        **writing: Any,
    ) -> None:
        super().__init__(tied=tied, transform=transform, learned_bias=learned_bias, **writing)
        self.constrained = constrained
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
        self._check_locations(model, batch.samples)
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
        tokens = model.tokenizer(texts, _NO_LIMIT)
        if tokens.input_ids.shape[1] <= limit:
            return tokens
        cut = int((tokens.mask.sum(1) > limit).sum())
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
        """Set ``pred_text``, ``pred_target``, ``pred_faults`` and ``text_score`` of each sample.

        They are what was written, what it says (:class:`~florence_mm.language.regions.Target`, whose regions have
        scores), sentences about what did not parse, and the mean log-probability of the tokens. Equal questions about
        one image are answered once.
        """
        if not batch.samples:
            return
        self._check_locations(batch.model, batch.samples)
        names, prompts = batch.field('task'), batch.field('prompt')
        given = [sample.get('prompt_text') or None for sample in batch.samples]
        asked = list(zip(batch.image_of, names, prompts, given, strict=True))
        different = {one: number for number, one in enumerate(dict.fromkeys(asked))}
        images, *questions = zip(*different, strict=True)
        solved = self._solve(batch.model, batch.image_tokens, images, *questions)
        for sample, one in zip(batch.samples, asked, strict=True):
            found = solved[different[one]]
            for name, value in (
                ('pred_text', found.text),
                ('pred_target', found.target),
                ('pred_faults', found.faults),
                ('text_score', found.score),
            ):
                sample.set_field(value, name)

    def solve(
        self,
        model: Writer,
        image_tokens: Tensor,
        questions: Sequence[TaskQuestion],
        generator: RandomSource = None,
    ) -> list[Solved]:
        """Solve tasks.

        Args:
            model: the model with this head.
            image_tokens: ``(U, S, C)``.
            questions: the tasks, with what is given with them.
            generator: with ``top_p``, the source of random numbers: one CPU generator, or one for each question.

        Raises:
            ValueError: a task is unknown, what it takes is missing or something else is given.
        """
        if not questions:
            return []
        written = self._format(model)
        prompts = [written.prompt(one.task, one.text, one.region) for one in questions]
        images, tasks = [one.image for one in questions], [one.task for one in questions]
        return self._solve(model, image_tokens, images, tasks, prompts, [one.text for one in questions], generator)

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
            prompts: U prompts; None: those of captions.
            generator: see :meth:`solve`.

        Raises:
            ValueError: the number of prompts is not that of images.
        """
        images = len(image_tokens)
        if prompts is None:
            prompts = [TASKS['caption'].sentence] * images
        if isinstance(prompts, str) or len(prompts) != images:
            raise ValueError(f'there are {images} images and {len(prompts)} prompts; give each image one')
        if not images:
            return []
        decoded = self.generate(
            model, image_tokens, range(images), model.tokenize_prompts(prompts), generator=generator
        )
        return self.as_texts(model, decoded)

    def _solve(
        self,
        model: Writer,
        image_tokens: Tensor,
        image_of: Sequence[int],
        tasks: Sequence[str],
        prompts: Sequence[str],
        given: Sequence[str | None],
        generator: RandomSource = None,
    ) -> list[Solved]:
        """Answer prompts of tasks, and read the answers."""
        tokenizer, written = model.tokenizer, self._format(model)
        allowed = None
        if isinstance(tokenizer, LocationTokenizer):
            if self.constrained:
                grammars = {task: TaskGrammar(task, tokenizer) for task in set(tasks)}
                allowed = [grammars[task] for task in tasks]
        elif wrong := next((task for task in tasks if find_task(task).answers != 'text'), None):
            raise ValueError(
                f'{wrong} is answered by regions, and {type(tokenizer).__name__} has no locations; put it into a '
                'LocationTokenizer'
            )
        asked = model.tokenize_prompts(prompts)
        decoded = self.generate(model, image_tokens, image_of, asked, allowed=allowed, generator=generator)
        solved = []
        for task, text, ids, of_tokens in zip(tasks, given, decoded.ids, decoded.token_log_probs, strict=True):
            if isinstance(tokenizer, LocationTokenizer):
                read = read_answer(task, ids, of_tokens, tokenizer, written, text)
            else:
                read = written.parse(task, tokenizer.decode(ids), text)
            score = sum(of_tokens) / len(of_tokens)
            solved.append(Solved(tokenizer.decode(ids), read.target, read.faults, score))
        return solved

    @staticmethod
    def _check_locations(model: Writer, samples: Sequence[Any]) -> None:
        """Check that places in the texts of samples mean to the model what they meant to who wrote them."""
        known = getattr(model.tokenizer, 'num_bins', None)
        other = next((s.num_bins for s in samples if 'num_bins' in s and s.num_bins != known), None)
        if known is not None and other is not None:
            raise ValueError(
                f'a sample has places of {other} locations a side and the vocabulary of the model has {known}; give '
                'PackTask and LocationTokenizer the same num_bins'
            )

    @staticmethod
    def _format(model: Writer) -> TaskFormat:
        tokenizer = model.tokenizer
        return TaskFormat(tokenizer.num_bins) if isinstance(tokenizer, LocationTokenizer) else TaskFormat()
