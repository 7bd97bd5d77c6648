"""Reading files in the format of VQAv2, and making answer vocabularies."""

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from florence_mm.errors import DataError, shown
from florence_mm.language.answers import normalize_answer
from florence_mm.language.labels import is_blank
from florence_mm.utils.json_files import read_json, require_list
from florence_mm.utils.numbers import is_whole

# gives 3,129 answers on the training and validation questions of VQAv2, as in METER and its predecessors
MIN_OCCURRENCES = 9


def read_vqa_list(path: str | Path, key: str) -> list[dict]:
    """Read the list ``questions`` or ``annotations`` of a file in the format of VQAv2.

    Args:
        path (str | Path): The JSON file.
        key (str): 'questions' or 'annotations'; of each annotator's answer only the text is kept.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: the file is not JSON, has no such list, or an entry is not an object.
    """
    path = Path(path)
    content = read_json(path, missing=f'give the file of {key}, or correct the path', object_hook=_compact)
    entries = require_list(content, key, path, 'a file in the format of VQAv2')
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise DataError(f'{path}: {key}[{number}] is a {type(entry).__name__}; expected an object')
    return entries


def _compact(item: dict) -> Any:
    # only the text of an annotator's answer is used; the ten objects of each question would take gigabytes
    if 'answer' not in item or 'answers' in item:
        return item
    return sys.intern(item['answer']) if isinstance(item['answer'], str) else item


def index_by_question(path: str | Path, key: str, entries: Iterable[dict]) -> dict[int, dict]:
    """Index entries by their ``question_id``.

    Args:
        path: file of the entries, for messages.
        key: name of their list, for messages.
        entries: questions or annotations.

    Raises:
        DataError: an entry has no integer ``question_id``, or two have the same.
    """
    indexed: dict[int, dict] = {}
    for number, entry in enumerate(entries):
        id_ = entry.get('question_id')
        if not is_whole(id_):
            raise DataError(f'{path}: {key}[{number}] has question_id {shown(id_)}; expected a whole number')
        if id_ in indexed:
            raise DataError(f'{path}: the question_id {id_} occurs twice; give each question its own id')
        indexed[id_] = entry
    return indexed


def annotator_answers(annotation: Mapping[str, Any]) -> list[str]:
    """Return the answers of all annotators of a question.

    Raises:
        ValueError: there is no list of answers, or one is not text; the message is only the reason, without file.

    >>> annotator_answers({'answers': [{'answer': 'two', 'answer_id': 1}, {'answer': '2', 'answer_id': 2}]})
    ['two', '2']
    """
    answers = annotation.get('answers')
    if not isinstance(answers, list) or not answers:
        raise ValueError(f'the list `answers` is {"empty" if answers == [] else "missing"}')
    texts = [item.get('answer') if isinstance(item, Mapping) else item for item in answers]
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f'answers[{number}] has no text, but {shown(text)}')
    return texts


def read_annotations(paths: Iterable[str | Path]) -> list[dict]:
    """Read and join the annotations of several files in the format of VQAv2.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: a file or annotation is unusable, or the same annotation is in two files.
    """
    first: dict[int, list[tuple[str | Path, dict]]] = {}
    for path in paths:
        for id_, annotation in index_by_question(path, 'annotations', read_vqa_list(path, 'annotations')).items():
            try:
                annotator_answers(annotation)
                _main_answer(annotation)
            except ValueError as error:
                raise DataError(f'{path}, question {id_}: {error}; write or copy the file again') from None
            # files of other data sets may use the same ids
            for other, its in first.setdefault(id_, []):
                if its == annotation:
                    raise DataError(f'{path}: the annotation of question {id_} is also in {other}; give each file once')
            first[id_].append((path, annotation))
    return [annotation for same_id in first.values() for _, annotation in same_id]


def _main_answer(annotation: Mapping[str, Any]) -> str:
    answer = annotation.get('multiple_choice_answer')
    if not isinstance(answer, str):
        raise ValueError(f'multiple_choice_answer is {shown(answer)}, expected a text')
    if any('\ud800' <= char <= '\udfff' for char in answer):
        raise ValueError(f'multiple_choice_answer is {shown(answer)}, which is not valid UTF-8')
    return answer


def answer_vocabulary(
    annotations: Iterable[Mapping[str, Any]], min_count: int = MIN_OCCURRENCES, order: str = 'frequency'
) -> list[str]:
    """Make the answer vocabulary: the answers that are the main answer of at least ``min_count`` questions.

    The main answer is ``multiple_choice_answer``, normalised by
    :func:`florence_mm.language.answers.normalize_answer`; one with nothing to read is left out.

    Args:
        annotations (Iterable[Mapping]): Annotations in the format of VQAv2.
        min_count (int): Least number of questions.
        order (str): ``'frequency'``, falling, then alphabetical; or ``'appearance'``, that of the first question with
            the answer, as in METER's code (``METER/meter/utils/write_vqa.py``), whose weights need it.

    Raises:
        ValueError: an annotation has no ``multiple_choice_answer``, no answer is frequent enough, or ``min_count`` is
            below 1.

    >>> most = ['Yes', 'no', 'yes.', 'Two', '2', 'yes', 'a dog']
    >>> answer_vocabulary([{'multiple_choice_answer': answer} for answer in most], min_count=2)
    ['yes', '2']
    >>> answer_vocabulary([{'multiple_choice_answer': answer} for answer in ('no', 'cat', 'cat')], 1, 'appearance')
    ['no', 'cat']
    """
    if not is_whole(min_count) or min_count < 1:
        raise ValueError(f'min_count={min_count!r} must be a whole number from 1: of how many questions an answer is')
    counts: Counter[str] = Counter()
    for annotation in annotations:
        try:
            counts[normalize_answer(_main_answer(annotation))] += 1
        except ValueError as error:
            raise ValueError(f'the annotation of question {annotation.get("question_id")}: {error}') from None
    kept = [answer for answer, count in counts.items() if count >= min_count and not is_blank(answer)]
    if not kept:
        raise ValueError(f'no answer is the main answer of {min_count} questions; give a lower min_count (--min-count)')
    return kept if order == 'appearance' else sorted(kept, key=lambda answer: (-counts[answer], answer))
