"""Reading of what a model wrote in answer to a task, with the scores of its regions.

A region's score is the geometric mean of two probabilities: of its text, and of its locations, each the geometric mean
of the probabilities of its tokens. So long and short texts weigh the same, and so do boxes and outlines. Regions
without text have the second alone.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from florence_mm.language.regions import Region, Target
from florence_mm.language.tasks import Parsed, Place, TaskFormat
from florence_mm.models.tokenizers.locations import LocationTokenizer


def read_answer(
    task: str,
    ids: Sequence[int],
    token_log_probs: Sequence[float],
    tokenizer: LocationTokenizer,
    task_format: TaskFormat,
    given: str | None = None,
) -> Parsed:
    """Parse the ids of an answer, and score its regions.

    Args:
        task: name or public mark.
        ids: what the model wrote, without start and end token.
        token_log_probs: of these ids, and of the end token; see
            :class:`~florence_mm.models.generation.rules.Decoded`.
        tokenizer: the tokenizer of the model.
        task_format: has as many locations as the tokenizer.
        given: the text given with the task.

    Returns:
        the answer; each box is a region of its own, with its score.

    Raises:
        ValueError: the task is unknown, there are fewer log-probabilities than ids, or the numbers of locations differ.

    >>> tokenizer = LocationTokenizer(dict(type='MaskedCLIPTokenizer', vocab_size=4096), num_bins=64)
    >>> ids = tokenizer(['dog<loc_0><loc_0><loc_31><loc_63>'], 20).input_ids[0, 1:-1].tolist()
    >>> log_probs = [math.log(p) for p in (0.64, 1, 1, 0.25, 0.25, 1)]
    >>> answer = read_answer('detection', ids, log_probs, tokenizer, TaskFormat(num_bins=64))
    >>> [(region.text, round(region.score, 6)) for region in answer.target.regions]
    [('dog', 0.565685)]
    >>> round(0.64**0.5 * (0.25 * 0.25) ** (0.5 / 4), 6)
    0.565685
    """
    if len(token_log_probs) < len(ids):
        raise ValueError(f'there are {len(ids)} ids and {len(token_log_probs)} log-probabilities; give one for each')
    if tokenizer.num_bins != task_format.num_bins:
        raise ValueError(
            f'the tokenizer has {tokenizer.num_bins} locations and the format {task_format.num_bins}; give both the '
            'same num_bins'
        )
    pieces = tokenizer.pieces(ids)
    parsed = task_format.parse(task, [piece for piece, _ in pieces], given)
    log_probs = [[token_log_probs[token] for token in tokens] for _, tokens in pieces]
    regions, places = [], []
    for region, place in zip(parsed.target.regions, parsed.places, strict=True):
        for part, shape in zip(_shapes(region), place.shapes, strict=True):
            tokens = ([x for piece in pieces_of for x in log_probs[piece]] for pieces_of in (place.text, shape))
            score = math.exp(_mean([_mean(values) for values in tokens if values]))
            regions.append(replace(part, score=score))
            places.append(Place(place.text, (shape,)))
    return replace(parsed, target=Target(parsed.target.text, tuple(regions)), places=tuple(places))


def _shapes(region: Region) -> list[Region]:
    """Split a region into one per box; a quadrilateral or an outline is one."""
    return [replace(region, boxes=(box,)) for box in region.boxes] or [region]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
