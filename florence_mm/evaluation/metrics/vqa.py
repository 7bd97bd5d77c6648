"""Metric of visual question answering: official accuracy, and the file for the test server."""

import json
import logging
import sys
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from florence_mm.evaluation.functional.vqa import best_constant_answers, vqa_accuracy
from florence_mm.registry import METRICS
from florence_mm.utils.files import write_atomic


@METRICS.register_module()
class VQAAccuracy(BaseMetric):
    """Official VQA accuracy, leave-one-out over annotators (arXiv 1612.00837, its public code); from 0 to 1.

    Reads ``question_id`` and ``pred_answer`` (or ``pred_label (1,)``, an index into the data set's
    ``metainfo['answers']``) of each sample, and ``answers``, ``answer_type`` and ``question_type`` of annotated
    questions. Results: ``vqa/accuracy``; ``vqa/yes_no``, ``vqa/number`` and ``vqa/other``, if there are such questions;
    ``vqa/num_without_answers``, the number of questions without annotation, if any, which do not count; and
    ``vqa/num_skipped`` if the data set skipped questions. The accuracy per question type is logged.

    Args:
        outfile (str | None): Write all answers to this file in the format of the test server, ``[{"question_id": ...,
            "answer": ...}, ...]`` in the order of the ids.
        per_question_type (bool): Also return ``vqa/type_TYPE``, with underscores for spaces.
        question_only (bool): Also return ``vqa/question_only``, the accuracy of the best answer to each question text,
            fitted to the scored annotations: an upper bound for models without the image. Needs ``text``.
        table_rows (int): Most question types in the logged table, those with the lowest accuracy; 0 logs none.
        collect_device, prefix, collect_dir: see :class:`mmengine.evaluator.BaseMetric`.

    Raises:
        ValueError: a sample lacks a field, a label is outside the vocabulary, two questions have the same
            ``question_id``, or not every sample of the data set was answered.
    """

    default_prefix = 'vqa'

    def __init__(
        self,
        outfile: str | None = None,
        per_question_type: bool = False,
        question_only: bool = False,
        table_rows: int = 20,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        if outfile is not None and not outfile.endswith('.json'):
            raise ValueError(f'outfile={outfile!r} of VQAAccuracy must end in .json')
        self.outfile = outfile
        self.per_question_type = per_question_type
        self.question_only = question_only
        self.table_rows = table_rows
        self._size = 0

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Store the answer of each sample and its accuracy."""
        for sample in data_samples:
            source = sample.get('source', 'a sample')
            if 'question_id' not in sample:
                raise ValueError(f'{source} has no `question_id`, which VQAAccuracy needs; pack with PackVQA')
            answer = self._answer(sample, source)
            accuracy = self._accuracy(answer, sample, source) if 'answers' in sample else None
            types = (sample.get('answer_type'), sample.get('question_type'))
            asked = self._asked(sample, source) if self.question_only and accuracy is not None else None
            self.results.append((int(sample['question_id']), answer, accuracy, *types, asked, sample.get('source')))

    @staticmethod
    def _accuracy(answer: str, sample: dict, source: str) -> float:
        try:
            return vqa_accuracy(answer, sample['answers'])
        except ValueError as error:
            raise ValueError(f'{source}: {error}') from None

    @staticmethod
    def _asked(sample: dict, source: str) -> tuple[str, list[str]]:
        if 'text' not in sample:
            raise ValueError(f'{source} has no `text`, which question_only=True needs; pack with PackVQA')
        return sample['text'], list(sample['answers'])

    def _answer(self, sample: dict, source: str) -> str:
        if 'pred_answer' in sample:
            return sample['pred_answer']
        if 'pred_label' not in sample:
            raise ValueError(f'{source} has no `pred_answer`, which VQAAccuracy needs; evaluate a model that answers')
        answers = (self.dataset_meta or {}).get('answers')
        if answers is None:
            raise ValueError(
                f'{source} has the label of an answer, but the data set has no answers; give it `answer_file`'
            )
        label, scores = int(sample['pred_label']), sample.get('pred_scores')
        number = label + 1 if scores is None else len(scores)
        if not 0 <= label < len(answers) or scores is not None and number != len(answers):
            raise ValueError(
                f'{source} has an answer out of {number}, but the data set has {len(answers)}; give the model and '
                'the data set the same answers'
            )
        return answers[label]

    def evaluate(self, size: int) -> dict[str, float]:
        """Compute the scores over a data set of ``size`` samples; see :class:`mmengine.evaluator.BaseMetric`."""
        self._size = size
        # mmengine would cut the results to `size`, but not every sampler puts its padding last
        return super().evaluate(sys.maxsize)

    def _questions(self, results: list) -> list:
        """One result per question, ordered by id: a sampler that pads the last batch repeats some questions."""
        by_id: dict[int, tuple] = {}
        for result in results:
            first = by_id.setdefault(result[0], result)
            if first[-1] != result[-1]:
                raise ValueError(
                    f'{first[-1]} and {result[-1]} have one question_id, by which VQAAccuracy tells questions; '
                    'evaluate the two data sets apart, or give the questions ids of their own'
                )
        if len(by_id) != self._size:
            raise ValueError(
                f'VQAAccuracy got answers to {len(by_id)} different question_ids from a data set of {self._size} '
                'samples; give each question its own id, and test with a sampler that leaves none out'
            )
        return [by_id[id_] for id_ in sorted(by_id)]

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the scores over all samples."""
        results = self._questions(results)
        if self.outfile is not None:
            written = [{'question_id': id_, 'answer': answer} for id_, answer, *_ in results]
            write_atomic(self.outfile, json.dumps(written))
            self._log(f'wrote {len(written)} answers to {self.outfile}')
        by_answer: dict[str, list[float]] = defaultdict(list)
        by_question: dict[str, list[float]] = defaultdict(list)
        everything = []
        asked = []
        for _, _, accuracy, answer_type, question_type, text_and_answers, _ in results:
            if accuracy is None:
                continue
            everything.append(accuracy)
            asked.append(text_and_answers)
            if answer_type is not None:
                by_answer[answer_type].append(accuracy)
            if question_type is not None:
                by_question[question_type].append(accuracy)
        scores: dict[str, float] = {}
        if everything:
            scores['accuracy'] = _mean(everything)
            if self.question_only:
                texts, given = zip(*asked, strict=True)
                best = best_constant_answers(texts, given)
                scores['question_only'] = _mean([best[text][1] for text in texts])
        scores.update({name.replace('/', '_'): _mean(by_answer[name]) for name in sorted(by_answer)})
        if self.per_question_type:
            scores.update({f'type_{"_".join(name.split())}': _mean(by_question[name]) for name in sorted(by_question)})
        if len(everything) < len(results):
            scores['num_without_answers'] = len(results) - len(everything)
        if (self.dataset_meta or {}).get('num_skipped'):
            scores['num_skipped'] = self.dataset_meta['num_skipped']
        if self.table_rows and by_question:
            self._log(f'accuracy by type of question\n{type_table(by_question, self.table_rows)}')
        return scores

    @staticmethod
    def _log(message: str) -> None:
        print_log(message, logger='current', level=logging.INFO)


def type_table(accuracies: dict[str, list[float]], limit: int) -> str:
    """Format a table of type, questions and accuracy, of all types or the ``limit`` with the lowest accuracy."""
    rows = sorted((_mean(values), name, len(values)) for name, values in accuracies.items())[:limit]
    width = max(len('type'), *(len(name) for _, name, _ in rows))
    lines = [f'{"type":<{width}}  questions  accuracy']
    lines += [f'{name:<{width}}  {count:9d}  {accuracy:8.4f}' for accuracy, name, count in rows]
    if len(rows) < len(accuracies):
        lines.append(f'the lowest {len(rows)} of {len(accuracies)} types')
    return '\n'.join(lines)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
