"""Visual question answering: normalised answers as the VQA challenge compares them, soft scores, vocabularies."""

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from florence_mm.errors import DataError
from florence_mm.utils.text_files import read_lines

# from the public evaluation code of VQA (github.com/GT-Vision-Lab/VQA)
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_ARTICLES = ('a', 'an', 'the')
_NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten')
    )
} | {'none': '0'}
_CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're you've
"""
# contractions without one of their apostrophes; the public code removes that of "somebody'd" instead
_CONTRACTIONS = {
    word[:place] + word[place + 1 :]: word
    for word in _CONTRACTED.split()
    for place in (match.start() for match in re.finditer("'", word))
} | {"somebody'd": 'somebodyd'}
_COMMA_IN_NUMBER = re.compile(r'\d,\d')
_FULL_STOP = re.compile(r'\.(?!\d)')


@lru_cache(maxsize=1 << 18)
def normalize_answer(answer: str) -> str:
    """Normalise an answer as VQA's official evaluation does.

    Punctuation is removed, or replaced by a space between two letters; full stops stay only in numbers. Then: lower
    case, numbers up to ten as numerals ("none" is 0), no articles, missing apostrophes of contractions restored.

    >>> normalize_answer('The twenty-two dogs.'), normalize_answer('None'), normalize_answer('dont')
    ('twenty 2 dogs', '0', "don't")
    """
    answer = text = clean_answer(answer)
    number = _COMMA_IN_NUMBER.search(answer)
    for mark in _PUNCTUATION:
        # the public code looks at the whole answer, not at each occurrence
        apart = number or f'{mark} ' in answer or f' {mark}' in answer
        text = text.replace(mark, '' if apart else ' ')
    words = (_NUMBERS.get(word, word) for word in _FULL_STOP.sub('', text).lower().split())
    return ' '.join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def clean_answer(answer: str) -> str:
    """Strip an answer and replace line ends and tabs by spaces, as is done with all answers before comparing."""
    return answer.replace('\n', ' ').replace('\t', ' ').strip()


def soft_scores(answers: Sequence[str]) -> dict[str, float]:
    """Soft target score of each normalised answer to a question: 0.3 per annotator who gave it, at most 1.

    These are the training targets of METER and its predecessors (``METER/meter/utils/write_vqa.py``). With ten
    annotators they equal the official accuracy: the mean, over all sets of nine, of ``min(agreeing / 3, 1)``.

    Args:
        answers (Sequence[str]): The answer of each annotator.

    Returns:
        dict[str, float]: Normalised answer to score, in the order of first occurrence.

    >>> soft_scores(['Two', '2', 'two', 'three'] + ['many'] * 6)
    {'2': 0.9, '3': 0.3, 'many': 1.0}
    """
    return {answer: soft_score(count) for answer, count in Counter(map(normalize_answer, answers)).items()}


def soft_score(count: int) -> float:
    """Soft score of an answer that ``count`` annotators gave."""
    # not 0.3 * count, which is 0.8999999999999999 for 3
    return min(3 * count, 10) / 10


def read_answers(path: str | Path) -> list[str]:
    """Read an answer vocabulary, one answer per line, as ``tools/dataset_converters/build_answers.py`` writes it.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: the file is empty or not UTF-8, or two lines are the same answer after normalisation.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f'there is no vocabulary of answers {str(path)!r}; make it with tools/dataset_converters/build_answers.py'
        )
    answers = read_lines(path, 'one answer a line')
    label_answers(answers, str(path))
    return answers


def label_answers(answers: Sequence[str], where: str) -> dict[str, int]:
    """Map each normalised answer of a vocabulary to its label (its position).

    Args:
        answers: the vocabulary.
        where: its file, for messages.

    Raises:
        DataError: two answers are the same after normalisation.
    """
    labels: dict[str, int] = {}
    for label, answer in enumerate(answers):
        first = labels.setdefault(normalize_answer(answer), label)
        if first != label:
            raise DataError(f'{where}: {answer!r} is the same answer as {answers[first]!r} after normalisation')
    return labels
