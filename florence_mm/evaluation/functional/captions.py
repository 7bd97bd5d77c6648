"""BLEU, ROUGE-L and CIDEr-D of captions, without Java.

Scores equal those of the COCO caption evaluation (github.com/tylin/coco-caption) on the same words. That splits words
with a Java program; :func:`caption_words` agrees with it on plain English captions, but not on every text.

Shape legend: ``N`` images; words are ``list[str]``.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence

MAX_ORDER = 4  # longest n-grams
CIDER_SIGMA = 6.0
ROUGE_BETA = 1.2

# words with inner punctuation (half-eaten, 5:30, a/c), and $, %, #, &; other punctuation is dropped
_WORD = re.compile(r"[^\W_]+(?:[-.,:'/&@][^\W_]+)*|[$%#&]")
# endings that are separate words in the Penn Treebank
_ENDING = re.compile(r"(?<=\w)(n't|'(?:s|re|ve|ll|d|m))$")

Words = Sequence[str]


def caption_words(text: str) -> list[str]:
    """Split a caption into words: lower case, without punctuation, endings such as 's and n't separate.

    >>> caption_words("A dog's ball, isn't it?")
    ['a', 'dog', "'s", 'ball', 'is', "n't", 'it']
    """
    words = []
    for word in _WORD.findall(text.lower().replace('\u2019', "'")):
        start, ending, _ = _ENDING.split(word) if _ENDING.search(word) else (word, '', '')
        words += [start, ending] if ending else [start]
    return words


def ngram_counts(words: Words, max_order: int = MAX_ORDER) -> list[Counter[tuple[str, ...]]]:
    """Count the n-grams of each order from 1 to ``max_order``."""
    return [
        Counter(tuple(words[i : i + order]) for i in range(len(words) - order + 1)) for order in range(1, max_order + 1)
    ]


def corpus_bleu(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> list[float]:
    """Compute BLEU-1 to BLEU-4 over all captions (Papineni et al., ACL 2002).

    The brevity penalty uses the reference of the nearest length, of two equally near ones the shorter.

    Args:
        candidates (Sequence[Words]): ``N`` captions.
        references (Sequence[Sequence[Words]]): Reference captions of each, at least one.

    Returns:
        list[float]: Four scores from 0 to 1; 0 if no n-gram matches.

    Raises:
        ValueError: lengths differ, or a caption has no reference.
    """
    _check(candidates, references)
    right, guessed = [0] * MAX_ORDER, [0] * MAX_ORDER
    length = reference_length = 0
    for candidate, wanted in zip(candidates, references, strict=True):
        length += len(candidate)
        reference_length += min((abs(len(words) - len(candidate)), len(words)) for words in wanted)[1]
        most: list[Counter] = [Counter() for _ in range(MAX_ORDER)]
        for words in wanted:
            # the largest count of any reference
            most = [a | b for a, b in zip(most, ngram_counts(words), strict=True)]
        for order, (found, allowed) in enumerate(zip(ngram_counts(candidate), most, strict=True)):
            right[order] += (found & allowed).total()
            guessed[order] += found.total()
    brevity = min(1.0, math.exp(1 - reference_length / length)) if length else 0.0
    scores, product = [], 1.0
    for order in range(MAX_ORDER):
        product *= right[order] / guessed[order] if guessed[order] else 0.0
        scores.append(brevity * product ** (1 / (order + 1)))
    return scores


def rouge_l(candidate: Words, references: Sequence[Words]) -> float:
    """Compute ROUGE-L of one caption (Lin, 2004): the F-measure of the longest common subsequence, with beta 1.2.

    Precision and recall are each the maximum over the references, as in the COCO evaluation.
    """
    if not candidate or not any(references):
        return 0.0
    common = [_common_length(candidate, words) for words in references]
    precision = max(common) / len(candidate)
    recall = max(length / len(words) for length, words in zip(common, references, strict=True) if words)
    if not precision or not recall:
        return 0.0
    square = ROUGE_BETA**2
    return (1 + square) * precision * recall / (recall + square * precision)


def _common_length(first: Words, second: Words) -> int:
    """Length of the longest common subsequence."""
    lengths = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for place, other in enumerate(second, 1):
            above = lengths[place]
            lengths[place] = diagonal + 1 if word == other else max(above, lengths[place - 1])
            diagonal = above
    return lengths[-1]


def cider_d(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> list[float]:
    """Compute CIDEr-D of each caption (arXiv 1411.5726, section 5): similarity of tf-idf weighted n-grams.

    The idf weights come from the references given here, so scores of different sets of images are not comparable. With
    one image every weight is 0, and so is the score.

    Args:
        candidates (Sequence[Words]): ``N`` captions.
        references (Sequence[Sequence[Words]]): Reference captions of each, at least one.

    Returns:
        list[float]: ``N`` scores from 0 to 10; the score of the set is their mean.

    Raises:
        ValueError: lengths differ, or a caption has no reference.
    """
    _check(candidates, references)
    counts = [[ngram_counts(words) for words in wanted] for wanted in references]
    image_counts: Counter[tuple[str, ...]] = Counter()
    for wanted in counts:
        image_counts.update({ngram for orders in wanted for order in orders for ngram in order})
    log_number = math.log(max(len(references), 1))

    def weigh(orders: Sequence[Counter]) -> list[dict[tuple[str, ...], float]]:
        return [
            {ngram: count * (log_number - math.log(max(image_counts[ngram], 1))) for ngram, count in order.items()}
            for order in orders
        ]

    scores = []
    for candidate, wanted, orders in zip(candidates, references, counts, strict=True):
        mine = weigh(ngram_counts(candidate))
        pairs = zip(wanted, orders, strict=True)
        total = sum(_cider_pair(mine, weigh(theirs), candidate, words) for words, theirs in pairs)
        scores.append(10 * total / len(wanted))
    return scores


def _cider_pair(found: list[dict], wanted: list[dict], candidate: Words, reference: Words) -> float:
    """CIDEr-D of one pair: mean cosine of weighted n-gram vectors (candidate clipped), with a length penalty."""
    # the public code measures length in bigrams
    gap = max(len(candidate) - 1, 0) - max(len(reference) - 1, 0)
    total = 0.0
    for mine, theirs in zip(found, wanted, strict=True):
        product = sum(min(value, theirs[ngram]) * theirs[ngram] for ngram, value in mine.items() if ngram in theirs)
        norms = math.hypot(*mine.values()) * math.hypot(*theirs.values())
        total += product / norms if norms else 0.0
    return total / len(found) * math.exp(-(gap**2) / (2 * CIDER_SIGMA**2))


def _check(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> None:
    if len(candidates) != len(references):
        raise ValueError(f'{len(candidates)} captions, but references of {len(references)} images')
    for number, wanted in enumerate(references):
        if not wanted:
            raise ValueError(f'image {number} has no reference caption; give at least one')
