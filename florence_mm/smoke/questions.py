"""Generated data for visual question answering."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from florence_mm.models.multimodal.protocol import ChoosesAnswers
from florence_mm.registry import MODELS

from .pictures import write_pictures
from .stand_ins import add_keys, register_smoke_data

_ANSWERS = ['yes', 'no', '2', 'red']
_QUESTIONS = ('is there a square?', 'is there a cat?', 'how many colours are there?', 'what colour is the square?')
_TYPES = ('yes/no', 'yes/no', 'number', 'other')


@register_smoke_data('VQADataset')
def questions(dataset: dict, folder: Path, count: int) -> dict:
    """Generate files of VQAv2 with one question per image, and a vocabulary of as many answers as the model's head has.

    A data set without annotations gets none. The key that :func:`set_smoke_answers` added to the config is removed.
    """
    dataset = dict(dataset)
    answers = dataset.pop('smoke_answers', _ANSWERS)
    asked, annotations = [], []
    for number, file in enumerate(write_pictures(folder / 'images', count)):
        ids = {'image_id': int(Path(file).stem), 'question_id': number}
        right, other = answers[number % len(answers)], answers[(number + 1) % len(answers)]
        said = [right] * 7 + [other] * 2 + ['outside the vocabulary']
        asked.append({**ids, 'question': _QUESTIONS[number % len(_QUESTIONS)]})
        annotations.append(
            {
                **ids,
                'question_type': 'smoke',
                'answer_type': _TYPES[number % len(_TYPES)],
                'multiple_choice_answer': right,
                'answers': [{'answer': text, 'answer_id': i} for i, text in enumerate(said, 1)],
            }
        )
    (folder / 'questions.json').write_text(json.dumps({'questions': asked}))
    (folder / 'annotations.json').write_text(json.dumps({'annotations': annotations}))
    (folder / 'answers.txt').write_text(''.join(f'{answer}\n' for answer in answers))
    files = {'question_file': 'questions.json', 'ann_file': 'annotations.json', 'answer_file': 'answers.txt'}
    kept = {key: name for key, name in files.items() if dataset.get(key)}
    dataset.pop('image_slice', None)
    return {**dataset, **kept, 'data_root': str(folder), 'data_prefix': 'images', 'img_pattern': '{:d}.png'}


def set_smoke_answers(dataset: Any, model: Any) -> Any:
    """Add the answers of the model's head to the config of a VQA data set, also inside wrappers.

    A head that classifies answers names in ``answer_arguments`` its arguments for their number and for the answers. If
    its config has only the number, that many answers are invented; if it names a file of answers, which need not exist,
    the answers replace it.
    """
    for part, number, names in _answer_heads(model):
        answers = part.get(names)
        if not answers or isinstance(answers, str):
            count = part.get(number) or len(_ANSWERS)
            answers = [*_ANSWERS, *(f'answer {i}' for i in range(len(_ANSWERS), count))][:count]
        if isinstance(part.get(names), str):
            part[names] = answers
        return add_keys(dataset, 'VQADataset', {'smoke_answers': list(answers)})
    return dataset


def _answer_heads(node: Any) -> Iterator[tuple[dict, str, str]]:
    """Yield the configs of heads that classify answers, with the names of the two arguments."""
    if isinstance(node, Mapping):
        type_ = node.get('type')
        kind = MODELS.get(type_) if isinstance(type_, str) else type_
        if isinstance(kind, ChoosesAnswers):
            yield node, *kind.answer_arguments
    inner = node.values() if isinstance(node, Mapping) else node if isinstance(node, (list, tuple)) else ()
    for part in inner:
        yield from _answer_heads(part)
