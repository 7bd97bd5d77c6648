"""Visual question answering data set, with the answers of several annotators."""

import logging
import os
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log
from mmengine.utils import is_abs

from florence_mm.errors import DataError, shown
from florence_mm.formats.captions import checked_caption, checked_path
from florence_mm.formats.vqa import annotator_answers, index_by_question, read_vqa_list
from florence_mm.language.answers import label_answers, normalize_answer, read_answers, soft_score
from florence_mm.registry import DATASETS
from florence_mm.utils.numbers import is_whole
from florence_mm.utils.progress import ProgressLog

from .arguments import require, require_flags, require_paths
from .base import ImageTextDataset


@DATASETS.register_module()
class VQADataset(ImageTextDataset):
    """Visual question answering data set in the format of VQAv2 (arXiv 1612.00837).

    A sample enters the pipeline with ``img_path``, ``img_id``, ``source``, ``text`` (the question) and ``question_id``;
    if annotated, with ``question_type``, ``answer_type`` and ``answers`` (of all annotators, as written); and with a
    vocabulary, with ``answer_labels (k,)`` int64 and ``answer_scores (k,)`` float32, the answers in the vocabulary and
    their soft scores (:func:`florence_mm.language.answers.soft_scores`; all other answers have score 0).
    ``metainfo['answers']`` is the vocabulary.

    ==================================  ==============================================================================
    an answer outside the vocabulary    has score 0; the fraction of answers in the vocabulary is logged
    a question without any answer in    is kept (every answer is then wrong), or left out with ``drop_unknown``; the
    the vocabulary                      number is logged
    no annotation, no list of answers,  is an error, or with ``skip_bad`` the question is skipped and counted
    no text, a missing image
    an annotation without a question    is not used; the number is logged
    a ``question_id`` that occurs       is an error
    twice, damaged JSON
    ==================================  ==============================================================================

    Args:
        question_file (str): Questions, relative to ``data_root``.
        ann_file (str): Annotations, relative to ``data_root``; empty in test mode: a test set without answers.
        answer_file (str): The vocabulary, one answer per line, relative to ``data_root``. Empty: no labels and scores,
            for models that write answers, which learn those of the annotators.
        img_pattern (str): Format string from ``image_id`` to the file name under ``data_prefix``.
        image_slice (Sequence[int | None]): Start and end of the images used, in the order of their first question:
            ``(None, -1000)`` is all but the last thousand. All questions about an image stay together.
        drop_unknown (bool): Leave out questions without any answer in the vocabulary; for training.
        exchange_pictures (bool): A control experiment for testing: ask each question about the next image, in the
            order of their first question. A model that uses the image gets much worse.
        check_files (bool): Check at the start that every image file exists.
        data_root, data_prefix, skip_bad, pipeline, test_mode, metainfo, indices, lazy_init: see
            :class:`~florence_mm.datasets.base.ImageTextDataset`.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: a file or a question is unusable.
        ValueError: arguments contradict each other.
    """

    def __init__(
        self,
        question_file: str,
        ann_file: str = '',
        answer_file: str = '',
        data_root: str = '',
        data_prefix: str | dict = '',
        img_pattern: str = '{:012d}.jpg',
        image_slice: Sequence[int | None] = (None, None),
        drop_unknown: bool = False,
        exchange_pictures: bool = False,
        check_files: bool = True,
        skip_bad: dict | None = None,
        pipeline: Sequence[dict | Callable] = (),
        test_mode: bool = False,
        metainfo: Mapping | None = None,
        indices: int | Sequence[int] | None = None,
        lazy_init: bool = False,
    ) -> None:
        require_paths(question_file=question_file, ann_file=ann_file, answer_file=answer_file, data_root=data_root)
        require('question_file', question_file, question_file != '', 'the file with the questions')
        require_flags(
            test_mode=test_mode,
            drop_unknown=drop_unknown,
            exchange_pictures=exchange_pictures,
            check_files=check_files,
        )
        if not ann_file and not test_mode:
            raise ValueError('VQADataset needs `ann_file` for training; without it set test_mode=True')
        if drop_unknown and not answer_file:
            raise ValueError('drop_unknown is about answers of a vocabulary; give `answer_file` too, or leave it out')
        if drop_unknown and test_mode:
            raise ValueError('drop_unknown is for training; a test is done on all questions, so leave it out')
        if exchange_pictures and not test_mode:
            raise ValueError('exchange_pictures is a control for tests; set test_mode=True, or leave it out')
        _require_pattern(img_pattern)
        right = isinstance(image_slice, Sequence) and not isinstance(image_slice, str) and len(image_slice) == 2
        right = right and all(end is None or is_whole(end) for end in image_slice)
        require('image_slice', image_slice, right, 'a start and an end, whole numbers or None for no limit')
        self.question_file = self._under(data_root, question_file)
        self.answer_file = self._under(data_root, answer_file)
        self.img_pattern = img_pattern
        self.image_slice = slice(*image_slice)
        self.drop_unknown = drop_unknown
        self.exchange_pictures = exchange_pictures
        self.check_files = check_files
        super().__init__(
            ann_file=ann_file,
            data_root=data_root,
            data_prefix=data_prefix,
            skip_bad=skip_bad,
            pipeline=pipeline,
            test_mode=test_mode,
            metainfo=metainfo,
            indices=indices,
            lazy_init=lazy_init,
        )

    @staticmethod
    def _under(root: str, path: str) -> str:
        root, path = os.fspath(root), os.fspath(path)
        return path if not path or not root or is_abs(path) else posixpath.join(root, path)

    @property
    def location(self) -> str:
        """The question file, for messages."""
        return self.question_file

    def iter_rows(self) -> Iterator[dict | DataError]:
        """Yield the questions in the order of their file."""
        questions = index_by_question(self.question_file, 'questions', read_vqa_list(self.question_file, 'questions'))
        annotations = None
        if self.ann_file:
            annotations = index_by_question(self.ann_file, 'annotations', read_vqa_list(self.ann_file, 'annotations'))
            self._warn(len(annotations.keys() - questions.keys()), 'annotations belong to no question and are not used')
        questions = self._sliced(questions)
        self._exchanged: dict[int | str, int | str] = {}
        if self.exchange_pictures:
            ids = (question.get('image_id') for question in questions.values())
            images = list(dict.fromkeys(id_ for id_ in ids if isinstance(id_, int | str)))
            if len(images) < 2:
                raise DataError(
                    f'{self.question_file} asks about {len(images)} images, and exchange_pictures needs two or more; '
                    'leave it out or use more images'
                )
            self._exchanged = dict(zip(images, images[1:] + images[:1], strict=True))
        self._labels: dict[str, int] | None = None
        if self.answer_file:
            vocabulary = read_answers(self.answer_file)
            self._labels = label_answers(vocabulary, self.answer_file)
            self._metainfo['answers'] = tuple(vocabulary)
        self._folders: dict[str, set[str]] = {}
        self._num_answers = self._num_in_vocabulary = self._num_without = 0
        progress = ProgressLog(f'reading the questions of {self.question_file}', len(questions))
        for number, (id_, question) in enumerate(questions.items(), 1):
            progress.update(number)
            try:
                row = self._row(question, annotations)
            except ValueError as error:
                yield DataError(f'{self.question_file}, question {id_}: {error}')
                continue
            if annotations is None or self._labels is None or len(row['labels']):
                yield row
                continue
            self._num_without += 1
            if not self.drop_unknown:
                yield row
        self._report(len(questions))

    def _sliced(self, questions: dict[int, dict]) -> dict[int, dict]:
        if self.image_slice == slice(None, None):
            return questions
        images = list(dict.fromkeys(str(question.get('image_id')) for question in questions.values()))
        kept = set(images[self.image_slice])
        return {id_: question for id_, question in questions.items() if str(question.get('image_id')) in kept}

    def _row(self, question: dict, annotations: dict[int, dict] | None) -> dict[str, Any]:
        """The row of a question; the message of a ValueError is only the reason."""
        if 'image_id' not in question:
            raise ValueError('no `image_id`; a question needs an image')
        if not (is_whole(question['image_id']) or isinstance(question['image_id'], str)):
            raise ValueError(f'image_id {shown(question["image_id"])} is neither a number nor a text')
        row = {
            'line': None,
            'text': checked_caption(question.get('question'), 'question'),
            'question_id': question['question_id'],
            'img_id': question['image_id'],
        }
        try:
            row['image'] = checked_path(self.img_pattern.format(self._exchanged.get(row['img_id'], row['img_id'])))
        except (ValueError, IndexError, KeyError, TypeError):  # TypeError: null or a list
            raise ValueError(
                f'image_id {shown(row["img_id"])} does not fit into img_pattern={self.img_pattern!r}'
            ) from None
        if self.check_files:
            self._require_file(self.image_path(row['image']))
        if annotations is None:
            return row
        annotation = annotations.get(row['question_id'])
        if annotation is None:
            raise ValueError(f'{self.ann_file} has no annotation of it; a test set without answers has no `ann_file`')
        if annotation.get('image_id', row['img_id']) != row['img_id']:
            raise ValueError(f'its annotation is of image {annotation["image_id"]}, the question of {row["img_id"]}')
        row['answers'] = annotator_answers(annotation)
        row.update({key: annotation[key] for key in ('question_type', 'answer_type') if key in annotation})
        if self._labels is not None:
            counts = Counter(map(normalize_answer, row['answers']))
            in_vocabulary = {self._labels[text]: count for text, count in counts.items() if text in self._labels}
            row['labels'], row['scores'] = list(in_vocabulary), [soft_score(n) for n in in_vocabulary.values()]
            self._num_answers += len(row['answers'])
            self._num_in_vocabulary += sum(in_vocabulary.values())
        return row

    def _require_file(self, path: str) -> None:
        if '://' in path:
            return
        folder, name = posixpath.split(path)
        if folder not in self._folders:
            # list each folder once: a check of each of a hundred thousand files takes minutes on a network drive
            listing = Path(folder).iterdir() if Path(folder).is_dir() else ()
            self._folders[folder] = {found.name for found in listing}
        if name not in self._folders[folder]:
            raise ValueError(f'the image {path} is missing; correct `data_prefix` and `img_pattern`, or add the file')

    def _report(self, number: int) -> None:
        if self._num_answers:
            part = self._num_in_vocabulary / self._num_answers
            part = f'{self._num_in_vocabulary} of {self._num_answers} answers ({part:.1%}) are in the vocabulary'
            print_log(f'{self.ann_file}: {part} of {len(self._metainfo["answers"])}', logger='current')
        what = 'left out (drop_unknown)' if self.drop_unknown else 'kept; every answer to them has score 0'
        self._warn(self._num_without, f'of {number} questions have no answer in the vocabulary and are {what}')

    def _warn(self, number: int, message: str) -> None:
        if number:
            print_log(f'{self.location}: {number} {message}', logger='current', level=logging.WARNING)

    def _to_sample(self, row: dict) -> dict:
        sample = {
            'img_path': self.image_path(row['image']),
            'source': f'{self.question_file}, question {row["question_id"]}',
        }
        keys = ('text', 'question_id', 'img_id', 'question_type', 'answer_type', 'answers')
        sample.update({key: row[key] for key in keys if key in row})
        if 'labels' in row:
            sample['answer_labels'] = np.array(row['labels'], dtype=np.int64)
            sample['answer_scores'] = np.array(row['scores'], dtype=np.float32)
        return sample


def _require_pattern(pattern: Any) -> None:
    """Check that a format string has a place for an image id, a number or a text."""
    # a width of so many digits would fill the memory
    for image_id in (1, 'a') if isinstance(pattern, str) and not re.search(r'{[^{}]*\d{4}', pattern) else ():
        try:
            if pattern.format(image_id) != pattern.format(image_id * 2):
                return
        except (ValueError, IndexError, KeyError, AttributeError):
            continue
    require('img_pattern', pattern, False, "a file name with a place for the image_id, as in '{:012d}.jpg'")
