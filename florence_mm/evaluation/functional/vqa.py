"""The official accuracy of answers to questions about images."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence

from florence_mm.language.answers import clean_answer, normalize_answer

# so many of the other annotators make an answer fully right
FULL_AGREEMENT = 3


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """How right an answer is: the mean over all annotators of ``min(n / 3, 1)``, ``n`` of the others agreeing.

    As the public evaluation code of VQA does it (github.com/GT-Vision-Lab/VQA), answers are normalised
    (:func:`florence_mm.language.answers.normalize_answer`) only where the annotators did not all write the same; where
    they did, spaces at the ends apart, the prediction must be what they wrote. Of ten annotators 1, 2, 3 and 4 who
    agree give 0.3, 0.6, 0.9 and 1.

    Args:
        prediction (str): The answer.
        answers (Sequence[str]): One of each annotator.

    Returns:
        float: From 0 to 1.

    Raises:
        ValueError: there are fewer than two annotators, so that none is left without one of them.

    >>> answers = ['two', 'two', '2', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine']
    >>> round(vqa_accuracy('2', answers), 2), round(vqa_accuracy('3', answers), 2)
    (0.9, 0.3)
    """
    if len(answers) < 2:
        raise ValueError(f'{len(answers)} answers of annotators; the official accuracy needs at least two')
    prediction, answers = clean_answer(prediction), [clean_answer(answer) for answer in answers]
    if len(set(answers)) > 1:
        prediction, answers = normalize_answer(prediction), [normalize_answer(answer) for answer in answers]
    agreeing = sum(answer == prediction for answer in answers)
    # who is left out agreed in `agreeing` of the sets, and then one fewer of the others does
    with_one = min((agreeing - 1) / FULL_AGREEMENT, 1) if agreeing else 0.0
    without = min(agreeing / FULL_AGREEMENT, 1)
    return (agreeing * with_one + (len(answers) - agreeing) * without) / len(answers)


def best_constant_answers(
    keys: Iterable[Hashable], answers: Iterable[Sequence[str]]
) -> dict[Hashable, tuple[str, float]]:
    """The answer that is best for all questions with the same key, and its mean accuracy.

    With the question's text as key this is as much as can be had from questions alone, of the very questions that are
    scored: no model without images does better on them.

    Args:
        keys (Iterable[Hashable]): One of each question: its text, its type.
        answers (Iterable[Sequence[str]]): Those of the annotators of each question.

    Returns:
        dict: For each key the answer, normalised, and its accuracy from 0 to 1; of equally good ones the first by
        alphabet.
    """
    totals: dict[Hashable, Counter[str]] = defaultdict(Counter)
    numbers: Counter[Hashable] = Counter()
    for key, given in zip(keys, answers, strict=True):
        numbers[key] += 1
        for answer in sorted({normalize_answer(text) for text in given}):
            totals[key][answer] += vqa_accuracy(answer, given)
    best = {key: min(scores.items(), key=lambda item: (-item[1], item[0])) for key, scores in totals.items()}
    return {key: (answer, total / numbers[key]) for key, (answer, total) in best.items()}
