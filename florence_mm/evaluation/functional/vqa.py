"""Official accuracy of visual question answering."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence

from florence_mm.language.answers import clean_answer, normalize_answer
from florence_mm.utils.words import counted

# annotators who must agree for an accuracy of 1
FULL_AGREEMENT = 3


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Accuracy of an answer: the mean over annotators of ``min(n / 3, 1)``, where ``n`` of the others gave that answer.

    As in the public evaluation code of VQA (github.com/GT-Vision-Lab/VQA), answers are normalised
    (:func:`florence_mm.language.answers.normalize_answer`) only if the annotators did not all write the same. If they
    did, the prediction must equal it up to spaces at the ends. With ten annotators of whom 1, 2, 3 or 4 agree the
    accuracy is 0.3, 0.6, 0.9 or 1.

    Args:
        prediction (str): The predicted answer.
        answers (Sequence[str]): The answer of each annotator.

    Returns:
        float: From 0 to 1.

    Raises:
        ValueError: there are fewer than two annotators.

    >>> answers = ['two', 'two', '2', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine']
    >>> round(vqa_accuracy('2', answers), 2), round(vqa_accuracy('3', answers), 2)
    (0.9, 0.3)
    """
    if len(answers) < 2:
        raise ValueError(
            f'{counted(len(answers), "answer")} of annotators; the official accuracy needs at least two, so repeat the '
            'answer of a single one four times'
        )
    prediction, answers = clean_answer(prediction), [clean_answer(answer) for answer in answers]
    if len(set(answers)) > 1:
        prediction, answers = normalize_answer(prediction), [normalize_answer(answer) for answer in answers]
    agreeing = sum(answer == prediction for answer in answers)
    # in `agreeing` of the sets the annotator left out agreed, so that one fewer of the others does
    with_one = min((agreeing - 1) / FULL_AGREEMENT, 1) if agreeing else 0.0
    without = min(agreeing / FULL_AGREEMENT, 1)
    return (agreeing * with_one + (len(answers) - agreeing) * without) / len(answers)


def best_constant_answers(
    keys: Iterable[Hashable], answers: Iterable[Sequence[str]]
) -> dict[Hashable, tuple[str, float]]:
    """Find the one answer that is best for all questions with the same key, and its mean accuracy.

    With the question's text as key this is an upper bound for models without the image, as it is fitted to the scored
    questions themselves.

    Args:
        keys (Iterable[Hashable]): A key per question, such as its text or type.
        answers (Iterable[Sequence[str]]): The annotators' answers to each question.

    Returns:
        dict: For each key the normalised answer and its accuracy from 0 to 1; ties go to the alphabetically first.
    """
    totals: dict[Hashable, Counter[str]] = defaultdict(Counter)
    numbers: Counter[Hashable] = Counter()
    for key, given in zip(keys, answers, strict=True):
        numbers[key] += 1
        for answer in sorted({normalize_answer(text) for text in given}):
            totals[key][answer] += vqa_accuracy(answer, given)
    best = {key: min(scores.items(), key=lambda item: (-item[1], item[0])) for key, scores in totals.items()}
    return {key: (answer, total / numbers[key]) for key, (answer, total) in best.items()}
