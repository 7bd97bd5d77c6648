"""The list of answers of heads that answer questions: reading, comparison with the training data's, and soft targets.

Shape legend: ``B`` questions, ``K`` answers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from florence_mm.language.answers import read_answers
from florence_mm.models.tokenizers.protocol import TextTokenizer


class KnownAnswers:
    """Mixin of heads with a list of answers.

    Attributes:
        answers (list[str] | None): the K answers that the config names, in the order of their labels.
        known_answers (list[str] | None): these, or else those of the data set that the weights were trained on.
        num_answers (int | None): K.
    """

    #: names of the head's two arguments for the number of answers and for the answers
    answer_arguments = ('num_answers', 'answers')

    def take_answers(self, answers: Sequence[str] | str | None, num_answers: int | None = None) -> None:
        """Take the answers, a list or a file with one answer per line, or only their number, from the config.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: they differ in number.
        """
        if isinstance(answers, str):
            answers = read_answers(answers)
        if None not in (num_answers, answers) and len(answers) != num_answers:
            raise ValueError(
                f'num_answers is {num_answers} and there are {len(answers)} answers; leave one of them out'
            )
        self.answers = None if answers is None else list(answers)
        self.known_answers = self.answers
        self._ids: list[list[int]] | None = None
        self.num_answers = num_answers if answers is None else len(answers)

    def use_dataset_meta(self, dataset_meta: Mapping[str, Any]) -> None:
        """Take over the answers from the metainfo of the data set that the weights were trained on.

        Args:
            dataset_meta: the metainfo; ``answers``, if present, are in the order of their labels.

        Raises:
            ValueError: the head has other answers, or another number of answers.
        """
        trained = dataset_meta.get('answers')
        if self.answers and trained and list(trained) != self.answers:
            raise ValueError(
                "the answers of the config's VQA head are not those that the checkpoint was trained on; use the config "
                'and the file of answers that it was trained with'
            )
        if trained and self.num_answers not in (None, len(trained)):
            raise ValueError(
                f'the checkpoint was trained on {len(trained)} answers and the VQA head has {self.num_answers}; use '
                'the config that it was trained with'
            )
        self.known_answers = self.answers or (list(trained) if trained else None)

    def soft_targets(self, samples: Sequence[Any]) -> Tensor:
        """Collect soft scores ``(B, K)``, from ``gt_score (K,)`` or ``answer_labels`` and ``answer_scores (k,)``.

        Raises:
            ValueError: a sample has no scores, or scores for answers that the head does not have.
        """
        target = torch.zeros(len(samples), self.num_answers)
        places, labels, scores = [], [], []  # of the samples with labels
        for place, sample in enumerate(samples):
            if 'answer_labels' in sample:
                places.append(place)
                labels.append(torch.as_tensor(sample.answer_labels, dtype=torch.int64).cpu())
                scores.append(torch.as_tensor(sample.answer_scores, dtype=target.dtype).cpu())
                if len(labels[-1]) != len(scores[-1]):
                    raise ValueError(
                        f'{name_of(place, sample)} has {len(labels[-1])} answer_labels and {len(scores[-1])} '
                        'answer_scores; expected as many, so give each label its score'
                    )
            elif 'gt_score' not in sample:
                raise ValueError(
                    f'{name_of(place, sample)} has neither answer_labels nor gt_score, which training needs; give the '
                    'data set the annotations and the answers'
                )
            elif sample.gt_score.shape != target[place].shape:
                raise ValueError(
                    f'{name_of(place, sample)} has gt_score of shape {tuple(sample.gt_score.shape)}, but the VQA head '
                    f'has {self.num_answers} answers; give data set and head the same answers'
                )
            else:
                target[place].copy_(sample.gt_score)
        if labels:
            rows = torch.tensor(places).repeat_interleave(torch.tensor([len(own) for own in labels]))
            columns = torch.cat(labels)
            outside = ((columns < 0) | (columns >= self.num_answers)).nonzero()
            if len(outside):
                wrong = int(outside[0])
                place = int(rows[wrong])
                raise ValueError(
                    f'{name_of(place, samples[place])} has the answer label {int(columns[wrong])}, but the VQA '
                    f'head has {self.num_answers} answers (0 to {self.num_answers - 1}); give data set and head the '
                    'same answers'
                )
            target[rows, columns] = torch.cat(scores)
        return target

    def answer_ids(self, tokenizer: TextTokenizer, max_length: int) -> list[list[int]]:
        """The K answers of the config as ids, without start and end, for heads that write them.

        Raises:
            ValueError: one has more than ``max_length`` tokens, or special ones such as the unknown one, or two are
                the same.
        """
        if self._ids is None:
            seen: dict[tuple[int, ...], str] = {}
            tokens = tokenizer(self.answers, max(len(answer.encode()) for answer in self.answers) + 3)
            for answer, row, real in zip(self.answers, tokens.input_ids.tolist(), tokens.mask.tolist(), strict=True):
                ids = tuple(row[1 : sum(real) - 1])
                if not ids or set(ids) & tokenizer.special_ids:
                    raise ValueError(
                        f'the answer {answer!r} of the answer head has no tokens, or some that the vocabulary lacks; '
                        'leave it out'
                    )
                if len(ids) > max_length:
                    raise ValueError(
                        f'the answer {answer!r} has {len(ids)} tokens and max_length of the answer head is '
                        f'{max_length}; raise it or leave the answer out'
                    )
                if ids in seen:
                    raise ValueError(
                        f'the answers {seen[ids]!r} and {answer!r} of the answer head are the same tokens; leave one '
                        'of them out'
                    )
                seen[ids] = answer
            self._ids = [list(ids) for ids in seen]
        return self._ids


def name_of(place: int, sample: Any) -> str:
    """Name a sample in a message."""
    return f'sample {place} of the batch' + (f' (question_id {sample.question_id})' if 'question_id' in sample else '')
