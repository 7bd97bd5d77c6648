"""Embedded vision-language task: questions and captions about the scenes of digits.

Questions are asked only if the answer is unambiguous (:mod:`.scene_facts`), and chosen so that no answer to a kind of
question is much more frequent than the others: without the image one can only guess. Ten simulated annotators answer
each. Some err, with a plausible wrong answer: one more, the second largest, the next colour. They err more in
*contested* questions, so that several answers get a score, as in VQAv2. Numbers are written as words or numerals.

Files are those of VQAv2 (questions and annotations) and of COCO (captions). ``image_id`` is the number in the image's
file name. Training and test have different images of different digits, as the scenes have.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path

import numpy as np

from florence_mm.formats.vqa import answer_vocabulary
from florence_mm.language.answers import normalize_answer
from florence_mm.language.prompts import get_class_names

from .generated import write_generated
from .scene_captions import make_captions
from .scene_facts import COLOURS, Scene, read_scenes, scene_files, with_article

RECORD = 'questions.json'
# increased when files of the same options change
VERSION = 1
SPLITS = ('train', 'test')
NUM_ANNOTATORS = 10
# how often an annotator errs in a question that is not contested, and in one that is
ERROR_RATE, CONTESTED_RATE = 0.05, 0.35
# how often an annotator writes a number up to nine as a word
WORD_RATE = 0.3
# relative frequency of each kind of question, and the type of its answers in VQAv2
KINDS: dict[str, tuple[float, str]] = {
    'how many': (1.0, 'number'),
    'which is leftmost': (1.0, 'number'),
    'which is largest': (1.0, 'number'),
    'is there a': (2.0, 'yes/no'),
    'what colour is the': (1.5, 'other'),
    'what is the sum': (0.5, 'number'),
}


@dataclass(frozen=True)
class QuestionOptions:
    """Options of :func:`write_questions`.

    Attributes:
        per_picture (float): Mean number of questions per image, if the answers to all kinds were equally frequent.
        contested (float): Fraction of the questions that annotators disagree about.
        seed (int): Another seed gives other questions, answers and captions.

    Raises:
        ValueError: a number is out of range.
    """

    per_picture: float = 7.0
    contested: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.per_picture > 0:
            raise ValueError(f'per_picture={self.per_picture} of the questions must be positive')
        if not 0 <= self.contested <= 1:
            raise ValueError(f'contested={self.contested} of the questions must be a fraction, from 0 to 1')
        if self.seed < 0:
            raise ValueError(f'seed={self.seed} of the questions must be at least 0')


@dataclass(frozen=True)
class Question:
    """A question about a scene.

    Attributes:
        image_id (int): The scene.
        kind (str): A key of :data:`KINDS`.
        text (str): The question.
        answer (str): The correct answer, normalised.
        near (tuple[str, ...]): Plausible wrong answers of annotators who err.
    """

    image_id: int
    kind: str
    text: str
    answer: str
    near: tuple[str, ...]

    @property
    def group(self) -> tuple[str, ...]:
        """The group that is balanced within a kind: the answer, and for yes/no questions also the digit."""
        return (self.answer, self.text) if self.kind == 'is there a' else (self.answer,)


def possible_questions(scene: Scene) -> Iterator[Question]:
    """Yield every question that has an unambiguous answer in a scene."""

    def ask(kind: str, text: str, answer: int | str, near: Sequence[int | str]) -> Question:
        return Question(scene.image_id, kind, text, str(answer), tuple(map(str, near)))

    names, digits = get_class_names('digits'), scene.digits
    yield ask('how many', 'how many digits are there?', len(digits), _next_to(len(digits)))
    for label, name in enumerate(names):
        there = any(digit.label == label for digit in digits)
        text = f'is there {with_article(name)}?'
        yield ask('is there a', text, *(('yes', ['no']) if there else ('no', ['yes'])))
    counts = Counter(digit.label for digit in digits)
    for digit in digits:
        if digit.colour and counts[digit.label] == 1:
            place = COLOURS.index(digit.colour)
            near = [COLOURS[place - 1], COLOURS[(place + 1) % len(COLOURS)]]
            yield ask('what colour is the', f'what colour is the {digit.name}?', digit.colour, near)
    left, right, size = scene.side_order(), scene.side_order(right=True), scene.size_order()
    for what, order in (('leftmost', left), ('largest', size)):
        if order is not None and len(order) > 1:
            # the second in order, or if it is the same digit, one that looks similar
            first, second = order[0].label, order[1].label
            near = second if second != first else _LOOK_ALIKE[first]
            yield ask(f'which is {what}', f'which digit is {what}?', first, [near])
    if len(digits) > 1 and left is not None and right is not None:
        which = 'two digits' if len(digits) == 2 else 'leftmost and the rightmost digit'
        total = left[0].label + right[0].label
        yield ask('what is the sum', f'what is the sum of the {which}?', total, _next_to(total))


# for each digit from 0 to 9 the most similar one
_LOOK_ALIKE = (6, 7, 3, 5, 9, 3, 0, 1, 3, 4)


def _next_to(number: int) -> list[int]:
    return [number - 1, number + 1] if number else [1]


def choose_questions(rng: np.random.Generator, scenes: Sequence[Scene], per_picture: float) -> list[Question]:
    """Choose questions about the scenes so that no answer to a kind is more frequent than its even share.

    There would be ``per_picture`` per scene if all answers were frequent enough; rare answers, such as large sums, are
    not replaced by others, so there are fewer. The order is that of the scenes.
    """
    groups: dict[str, dict[tuple, list[Question]]] = {kind: {} for kind in KINDS}
    for scene in scenes:
        for question in possible_questions(scene):
            groups[question.kind].setdefault(question.group, []).append(question)
    shares = sum(share for share, _ in KINDS.values())
    chosen: list[Question] = []
    for kind, (share, _) in KINDS.items():
        limit = ceil(per_picture * len(scenes) * share / shares / max(len(groups[kind]), 1))
        for group in sorted(groups[kind]):
            questions = groups[kind][group]
            chosen += [questions[i] for i in rng.permutation(len(questions))[:limit]]
    # shuffled first, so that an image's questions are in random order
    return sorted((chosen[i] for i in rng.permutation(len(chosen))), key=lambda question: question.image_id)


def draw_annotator_answers(rng: np.random.Generator, question: Question, contested: float) -> list[dict]:
    """Draw the answers of ten annotators in VQAv2's format; ``answer_confidence`` is 'maybe' for errors."""
    rate = CONTESTED_RATE if rng.random() < contested else ERROR_RATE
    names = get_class_names('digits')
    answers = []
    for number in range(NUM_ANNOTATORS):
        errs, as_word = rng.random() < rate, rng.random() < WORD_RATE
        said = question.near[rng.integers(len(question.near))] if errs else question.answer
        if as_word and said.isdecimal() and int(said) < len(names):
            said = names[int(said)]
        answers.append(
            {'answer': said, 'answer_confidence': 'maybe' if errs else 'yes', 'answer_id': number + 1},
        )
    return answers


def make_questions(scenes: Sequence[Scene], options: QuestionOptions, split: str) -> list[tuple[Question, list[dict]]]:
    """Make the questions of a split, each with the answers of its annotators."""
    rng = np.random.default_rng([options.seed, *split.encode()])
    chosen = choose_questions(rng, scenes, options.per_picture)
    return [(question, draw_annotator_answers(rng, question, options.contested)) for question in chosen]


def _question_files(asked: Sequence[tuple[Question, list[dict]]], split: str) -> tuple[dict, dict]:
    """The content of the two files of VQAv2."""
    head = {'info': {'description': f'Questions about the embedded scenes of digits, {split}'}, 'license': {}}
    head |= {'data_type': 'scenes', 'data_subtype': split}
    questions, annotations = [], []
    numbers: Counter[int] = Counter()
    for question, answers in asked:
        # the numbering of VQAv2
        question_id = 1000 * question.image_id + numbers[question.image_id]
        numbers[question.image_id] += 1
        ids = {'image_id': question.image_id, 'question_id': question_id}
        questions.append({**ids, 'question': question.text})
        # of equally frequent answers the first
        said = Counter(normalize_answer(item['answer']) for item in answers).most_common(1)[0][0]
        annotations.append(
            {
                **ids,
                'question_type': question.kind,
                'answer_type': KINDS[question.kind][1],
                'multiple_choice_answer': said,
                'answers': answers,
            }
        )
    return {**head, 'task_type': 'Open-Ended', 'questions': questions}, {**head, 'annotations': annotations}


def _caption_files(scenes: Sequence[Scene], options: QuestionOptions, split: str) -> tuple[dict, str]:
    """COCO's caption file, and our manifest."""
    images, annotations, rows = [], [], []
    rng = np.random.default_rng([options.seed, *f'{split} captions'.encode()])
    for scene in scenes:
        texts = make_captions(rng, scene)
        images.append(
            {'id': scene.image_id, 'file_name': scene.file_name, 'width': scene.width, 'height': scene.height}
        )
        annotations += [
            {'id': len(annotations) + i, 'image_id': scene.image_id, 'caption': text} for i, text in enumerate(texts)
        ]
        rows.append(json.dumps({'image': scene.file_name, 'texts': texts, 'image_id': scene.image_id}) + '\n')
    info = {'description': f'Captions of the embedded scenes of digits, {split}'}
    return {'info': info, 'licenses': [], 'images': images, 'annotations': annotations}, ''.join(rows)


def _files(scenes: dict[str, Path], options: QuestionOptions) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each file."""
    for split, path in scenes.items():
        drawn = read_scenes(path)
        questions, annotations = _question_files(make_questions(drawn, options, split), split)
        captions, manifest = _caption_files(drawn, options, split)
        yield f'{split}_questions.json', json.dumps(questions).encode()
        yield f'{split}_annotations.json', json.dumps(annotations).encode()
        yield f'{split}_captions.json', json.dumps(captions).encode()
        yield f'{split}.jsonl', manifest.encode()
        if split == 'train':
            vocabulary = answer_vocabulary(annotations['annotations'])
            yield 'answers.txt', ''.join(f'{answer}\n' for answer in vocabulary).encode()


def write_questions(scenes: str | Path, out: str | Path, options: QuestionOptions | None = None) -> tuple[int, int]:
    """Write questions, answers and captions about a folder of scenes.

    For ``train`` and ``test``: ``train_questions.json`` and ``train_annotations.json`` in VQAv2's format,
    ``train_captions.json`` in COCO's, ``train.jsonl`` with the captions for
    :class:`florence_mm.datasets.ImageTextManifest`; and ``answers.txt``, the answer vocabulary. Images are not copied.
    Correct files that exist are kept, see :func:`.generated.write_generated`.

    Args:
        scenes (str | Path): The folder that ``prepare_scenes.py`` wrote.
        out (str | Path): The folder to write to.
        options (QuestionOptions | None): None: the defaults.

    Returns:
        tuple: number of files written, and number of files in all.

    Raises:
        FileNotFoundError: there are no scenes.
        DataError: the scenes' annotations are unusable.
    """
    options = options or QuestionOptions()
    paths, digests = scene_files(scenes, SPLITS)
    wanted = {'version': VERSION, 'scenes': digests, **asdict(options)}
    total = 4 * len(SPLITS) + 1
    return write_generated(Path(out), RECORD, wanted, _files(paths, options), total, 'asking questions')
