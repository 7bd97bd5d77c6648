"""Visual question answering by writing: the question is a prompt, and the answer a text after it.

GIT writes freely (arXiv 2205.14100), BLIP learns the answers of all annotators and ranks a list (arXiv 2201.12086).

Shape legend: ``P`` questions, ``U`` different images among them, ``A`` answers to learn or to score, ``T`` tokens of
the longest answer with start and end, ``N`` predicted tokens, ``K`` listed answers, ``R`` answers per question whose
whole probability is computed, ``C`` hidden size, ``V`` vocabulary.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from florence_mm.language.answers import normalize_answer
from florence_mm.models.generation import TokenTrie
from florence_mm.models.multimodal.batch import FusionBatch, even_groups, images_of_rows
from florence_mm.models.multimodal.protocol import Answered, Writer
from florence_mm.models.tokenizers.protocol import TokenBatch, pad_ids
from florence_mm.ops.precision import at_least_float32
from florence_mm.registry import MODELS

from .known_answers import KnownAnswers, name_of
from .reduction import mean_over_processes
from .writing import WritingHead

_SCORED_AT_ONCE = 256  # answers


@MODELS.register_module()
class FusionWrittenAnswerHead(KnownAnswers, WritingHead):
    """Answering head that writes: a language model on a writer's states, with questions as prompts.

    In training each answer to a question is learned with its share of the question's scores as weight; the question is
    not learned. Answers are those of ``answer_labels`` and ``answer_scores`` (or ``gt_score``) with the list
    ``answers``, else the annotators' own words in ``answers`` of the sample, normalised as the evaluation does.

    In prediction the answer is written freely; or with ``restrict`` written within the list; or with ``rank`` chosen
    from the list by its probability.

    Args:
        answers: the K answers in the order of their labels, or a file with one answer per line; None: no list.
        rank: R; the R listed answers whose first token is most probable are scored as a whole, as BLIP does (128 of
            3,128 for VQAv2). None: answers are written.
        restrict: write only answers of the list.
        max_length: most tokens of an answer, without start and end. Longer ones are cut in training, and the model's
            longest text less ``max_length`` is left to the question.
        writing: how answers are searched, label smoothing and the layers: ``num_beams``, ``length_penalty`` and the
            others of :class:`~florence_mm.models.heads.multimodal.writing.WritingHead`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an argument is out of range, ``rank`` or ``restrict`` has no list, or arguments exclude each other.
    """

    noun = 'answer'

    def __init__(
        self,
        answers: Sequence[str] | str | None = None,
        rank: int | None = None,
        restrict: bool = False,
        max_length: int = 10,
        **writing: Any,
    ) -> None:
        super().__init__(max_length=max_length, **writing)
        self.take_answers(answers)
        if rank is not None and rank < 1 or max_length < 1:
            raise ValueError(
                f'rank={rank} and max_length={max_length} of the answer head must be at least 1; leave rank out to '
                'write answers'
            )
        if (rank or restrict) and not self.answers:
            raise ValueError(
                f'the answer head got {"rank" if rank else "restrict"}, which needs a list to choose from; give '
                'answers, a list or a file with one answer per line'
            )
        if rank and (restrict or self.num_beams > 1 or self.top_p is not None):
            raise ValueError(
                f'the answer head got rank={rank}, which scores the listed answers, and an option of writing '
                f'(restrict={restrict}, num_beams={self.num_beams}, top_p={self.top_p}); leave one of them out'
            )
        if restrict and self.min_length:
            raise ValueError(
                f'the answer head got restrict, whose answers are as long as in the list, and min_length='
                f'{self.min_length}; leave one of them out'
            )
        self.rank = rank
        self.restrict = restrict

    def answer_names(self) -> list[str]:
        """The answers that it chooses from; empty if it writes freely."""
        return list(self.answers) if self.rank or self.restrict else []

    def take_model(self, model: Writer) -> None:
        """Check that questions, answers and the list of answers fit the model.

        Raises:
            ValueError: no question fits beside an answer, a length is impossible, or a listed answer is too long or not
                made of tokens that can be written.
        """
        self._room(model)
        self.rules(model, 1)
        if self.rank or self.restrict:
            self.answer_ids(model.tokenizer, self.max_length)

    # --- training -----------------------------------------------------------------------------------------------------

    def loss(self, batch: FusionBatch) -> dict[str, Tensor]:
        """Compute the expected negative log-probability of an answer, a mean over all processes' questions.

        It is the weighted sum over a question's answers of the cross-entropy summed over tokens. A question without
        answers counts as none. ``acc_answer`` is the share of right tokens, each given those before it.

        Raises:
            ValueError: a sample has no answers, or labels that the list lacks.
        """
        model = batch.model
        rows, texts, shares = self._lessons(batch)
        learned = len(set(rows))
        if not rows:  # an empty answer without weight, so that all parameters have gradients in every process
            rows, texts, shares = [0], [''], [0.0]
        prompts = self._prompts(model, batch.texts)
        prompts = TokenBatch(prompts.input_ids[rows], prompts.mask[rows])
        answers = model.tokenizer(texts, self.max_length + 2)
        image_of = [batch.image_of[row] for row in rows]
        logits, target, mask = self._predictions(model, batch.image_tokens, image_of, prompts, answers)
        weights = torch.tensor(shares, dtype=torch.float64)[:, None].expand(mask.shape)[mask]  # (N,)
        losses = self.token_losses(logits, target)
        return {
            'loss_answer': mean_over_processes((losses * weights.to(losses)).sum(), learned),
            'acc_answer': (logits.argmax(1) == target).float().mean(),
        }

    def _lessons(self, batch: FusionBatch) -> tuple[list[int], list[str], list[float]]:
        """Collect A answers to learn: the place of the question, the text, and the share of the question's scores."""
        labelled = [self.answers and ('answer_labels' in s or 'gt_score' in s) for s in batch.samples]
        if any(labelled):
            scores = self.soft_targets(batch.samples)  # (P, K)
            shares = scores / scores.sum(1, keepdim=True).clamp(min=torch.finfo(scores.dtype).tiny)
            rows, labels = shares.nonzero(as_tuple=True)
            return rows.tolist(), [self.answers[label] for label in labels.tolist()], shares[rows, labels].tolist()
        rows, texts, shares = [], [], []
        for place, sample in enumerate(batch.samples):
            if 'answers' not in sample:
                raise ValueError(
                    f'{name_of(place, sample)} has no answers to learn; give the data set the annotations, and the '
                    'head the list of answers if samples have answer_labels'
                )
            counts = Counter(filter(None, map(normalize_answer, sample.answers)))
            rows += [place] * len(counts)
            texts += counts
            shares += [count / counts.total() for count in counts.values()]
        return rows, texts, shares

    def _prompts(self, model: Writer, questions: Sequence[str]) -> TokenBatch:
        """Tokenize questions to what an answer of ``max_length`` tokens leaves of the longest text."""
        return model.tokenizer(questions, self._room(model))

    def _room(self, model: Writer) -> int:
        """Most tokens of a question, start and end included."""
        room = model.max_text_len - self.max_length
        if room < 3:
            raise ValueError(
                f'max_length of the answer head is {self.max_length} where texts of the model have at most '
                f'{model.max_text_len} tokens, which leaves none for a question; lower it or raise max_text_len'
            )
        return room

    def _predictions(
        self,
        model: Writer,
        image_tokens: Tensor,
        image_of: Sequence[int],
        prompts: TokenBatch,
        answers: TokenBatch,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Predict each token of A answers from those before it.

        Returns:
            logits ``(N, V)``, the right ids ``(N,)``, and the places of both, ``(A, T - 1)`` bool on the CPU.
        """
        hidden = model.teach(image_tokens, image_of, prompts, answers)  # (A, T - 1, C)
        mask = answers.mask[:, 1:]
        places = mask.flatten().nonzero().squeeze(1)
        target = answers.input_ids[:, 1:].flatten()[places].to(hidden.device, non_blocking=True)
        hidden = hidden.flatten(0, 1).index_select(0, places.to(hidden.device, non_blocking=True))  # (N, C)
        return self(hidden), target, mask

    # --- prediction ---------------------------------------------------------------------------------------------------

    def predict(self, batch: FusionBatch) -> None:
        """Set ``pred_answer`` and ``answer_score``, its probability, of each sample."""
        for sample, answered in zip(batch.samples, self.answer(batch), strict=True):
            sample.set_field(answered.answers[0], 'pred_answer')
            sample.set_field(answered.scores[0], 'answer_score')

    @torch.no_grad()
    def answer(self, batch: FusionBatch, top: int = 1) -> list[Answered]:
        """Answer the questions of a batch, equal ones about one image once.

        Args:
            batch: the batch.
            top: most answers per question; what is written is one.

        Returns:
            of each question the answers with their probabilities, that all their tokens are written.
        """
        if not batch.samples:
            return []
        pairs = list(zip(batch.image_of, batch.texts, strict=True))
        different = {pair: number for number, pair in enumerate(dict.fromkeys(pairs))}
        prompts = self._prompts(batch.model, [question for _, question in different])
        images = [image for image, _ in different]
        answered = (self._ranked if self.rank else self._written)(batch, images, prompts, top)
        return [answered[different[pair]] for pair in pairs]

    def _written(self, batch: FusionBatch, images: Sequence[int], prompts: TokenBatch, top: int) -> list[Answered]:
        model, names, allowed = batch.model, {}, None
        if self.restrict:
            listed = self.answer_ids(model.tokenizer, self.max_length)
            names = {tuple(ids): name for ids, name in zip(listed, self.answers, strict=True)}
            allowed = TokenTrie(listed, model.tokenizer.end_token_id)
        decoded = self.generate(model, batch.image_tokens, images, prompts, allowed=allowed)
        texts = (names[tuple(ids)] if names else model.tokenizer.decode(ids) for ids in decoded.ids)
        return [Answered([text], [p]) for text, p in zip(texts, decoded.log_probs.exp().tolist(), strict=True)]

    def _ranked(self, batch: FusionBatch, images: Sequence[int], prompts: TokenBatch, top: int) -> list[Answered]:
        """Choose among the listed answers: the R of the likeliest first tokens are compared by all their tokens."""
        model, tokenizer = batch.model, batch.model.tokenizer
        ends = tokenizer.start_token_id, tokenizer.end_token_id
        listed = pad_ids(
            [[ends[0], *ids, ends[1]] for ids in self.answer_ids(tokenizer, self.max_length)], tokenizer.pad_token_id
        )
        answered: list[Answered | None] = [None] * len(images)
        at_once = max(1, _SCORED_AT_ONCE // min(self.rank, len(self.answers)))  # questions
        for group in even_groups(images, [0] * len(images)):
            per_image = images.count(images[group[0]])
            step = max(per_image, at_once // per_image * per_image)  # whole images
            for place in range(0, len(group), step):
                rows = group[place : place + step]
                tokens, places = images_of_rows(batch.image_tokens, [images[row] for row in rows])
                found = self._rank(model, tokens, places, _rows(prompts, torch.tensor(rows)), listed, top)
                for row, (labels, values) in zip(rows, found, strict=True):
                    answered[row] = Answered([self.answers[label] for label in labels], values)
        return answered

    def _rank(
        self,
        model: Writer,
        image_tokens: Tensor,
        image_of: Sequence[int],
        prompts: TokenBatch,
        listed: TokenBatch,
        top: int,
    ) -> list[tuple[list[int], list[float]]]:
        """Rank the listed answers to questions; returns the labels and probabilities of each question's best."""
        count = len(image_of)
        # a text without tokens is predicted by the state that predicts the first token of any other
        ids = torch.tensor([[model.tokenizer.start_token_id, model.tokenizer.end_token_id]] * count)
        logits, _, _ = self._predictions(model, image_tokens, image_of, prompts, TokenBatch(ids, ids >= 0))  # (P, V)
        first = at_least_float32(logits).log_softmax(1)[:, listed.input_ids[:, 1].to(logits.device)]  # (P, K)
        labels = first.sort(dim=1, descending=True, stable=True).indices[:, : self.rank].cpu()  # (P, R)
        rows = torch.arange(count).repeat_interleave(labels.shape[1])
        answers, of_rows = _rows(listed, labels.flatten()), [image_of[row] for row in rows.tolist()]
        logits, target, mask = self._predictions(model, image_tokens, of_rows, _rows(prompts, rows), answers)
        log_probs = torch.zeros(mask.shape, dtype=torch.float64)
        log_probs[mask] = -F.cross_entropy(at_least_float32(logits), target, reduction='none').double().cpu()
        scores = log_probs.sum(1).view(labels.shape).sort(dim=1, descending=True, stable=True)
        best = labels.gather(1, scores.indices)[:, :top].tolist()
        return list(zip(best, scores.values[:, :top].exp().tolist(), strict=True))


def _rows(tokens: TokenBatch, rows: Tensor) -> TokenBatch:
    """Choose rows of a batch of tokens, without columns that only have padding."""
    ids, mask = tokens.input_ids[rows], tokens.mask[rows]
    longest = int(mask.sum(1).max())
    return TokenBatch(ids[:, :longest], mask[:, :longest])
