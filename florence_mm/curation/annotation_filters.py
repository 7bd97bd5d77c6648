"""Filters of annotations: each drops for one reason, and says which."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from florence_mm.language.labels import normalize_text
from florence_mm.utils.boxes import box_iou

from . import annotation_reasons as reasons
from .annotation_items import Item
from .annotation_options import FilterOptions
from .annotation_parsing import Parse, Parser, complexity_of, head_lemma
from .annotation_words import ABSTRACT_NOUNS, PRONOUNS

_ARTICLES = ('a ', 'an ', 'the ')


def filter_items(pictures: Sequence[Sequence[Item]], options: FilterOptions, parser: Parser | None) -> list[list[Item]]:
    """Filter the annotations of pictures; what has a reason already keeps it.

    Filters come in the order of :data:`.annotation_reasons.REASONS`; overlaps are looked for among what the others
    keep. The phrases of a dropped text stay, as they are right or wrong on their own.

    Args:
        pictures: items of each picture.
        options: see :class:`.annotation_options.FilterOptions`.
        parser: for the filters of texts, and the head of a phrase; None: there is none.

    Returns:
        the same items, in the same order, some with a reason.
    """
    parses = _parses(pictures, options, parser)
    words = frozenset(map(normalize_text, (*PRONOUNS, *ABSTRACT_NOUNS, *options.words))) if options.blacklist else ()
    kept = []
    for items in pictures:
        found = [item.dropped(_reason(item, options, words, parses.get(item.text))) for item in items]
        kept.append(drop_overlaps(found, options.nms, options.nms_any))
    return kept


def _parses(pictures: Sequence[Sequence[Item]], options: FilterOptions, parser: Parser | None) -> dict[str, Parse]:
    """Parse the texts that filters ask about, equal ones once."""
    if parser is None:
        return {}
    kinds = (('region', 'phrase') if options.blacklist else ()) + (('text',) if options.needing_parser() else ())
    asked = (item.text for items in pictures for item in items if item.kind in kinds and item.drop is None)
    texts = list(dict.fromkeys(text for text in asked if text))
    return dict(zip(texts, parser(texts), strict=True)) if texts else {}


def _reason(item: Item, options: FilterOptions, words: frozenset[str] | tuple, parse: Parse | None) -> str | None:
    if item.kind == 'text':
        reason = None if parse is None else _too_plain(parse, options)
        least = options.min_text_score
    else:
        reason = reasons.BLACKLISTED if is_blacklisted(item.text, words, parse) else None
        least = options.min_score
    if reason is None and item.score is not None and item.score < least:
        reason = reasons.LOW_SCORE
    return reason


def is_blacklisted(text: str, words: frozenset[str] | tuple, parse: Parse | None = None) -> bool:
    """Whether a phrase says nothing: it is a word of the list after its article, or its head is one.

    Args:
        text: the phrase.
        words: the list, normalised.
        parse: of the phrase; None: only the whole phrase counts.

    >>> is_blacklisted('The Background', frozenset(['background'])), is_blacklisted('a dog', frozenset(['background']))
    (True, False)
    """
    if not words:
        return False
    phrase = normalize_text(text)
    article = next((one for one in _ARTICLES if phrase.startswith(one)), '')
    if phrase.removeprefix(article) in words:
        return True
    return parse is not None and head_lemma(parse) in words


def _too_plain(parse: Parse, options: FilterOptions) -> str | None:
    found = complexity_of(parse)
    objects = found.objects + found.names
    if options.max_objects is not None and objects > options.max_objects:
        return reasons.TOO_MANY_OBJECTS
    if options.min_objects is not None and objects < options.min_objects:
        return reasons.TOO_FEW_OBJECTS
    if options.min_object_degree is not None and found.object_degree < options.min_object_degree:
        return reasons.SIMPLE_OBJECTS
    if options.min_action_degree is not None and found.action_degree < options.min_action_degree:
        return reasons.SIMPLE_ACTIONS
    return None


def drop_overlaps(items: Sequence[Item], same: float | None, any_text: float | None) -> list[Item]:
    """Drop regions on which one with a higher score lies, of equal scores the earlier; unknown scores are the highest.

    Regions that are asked about (of tasks that take a region) are compared with equal answers alone.

    Args:
        items: of one picture.
        same: intersection over union from which on two regions of one text are one; None: they never are.
        any_text: the same for two regions of one task and caption.
    """
    found = list(items)
    boxed = [index for index, item in enumerate(found) if item.drop is None and item.box is not None]
    order = sorted(boxed, key=lambda index: -(2.0 if found[index].score is None else found[index].score))
    kept: list[int] = []
    for index in order:
        item = found[index]
        rivals = [(other, found[other]) for other in kept if found[other].place == item.place]
        limits = [(same if other.key == item.key else None, any_text) for _, other in rivals]
        if rivals and any(limit is not None for pair in limits for limit in pair):
            overlaps = box_iou(np.array([item.box]), np.array([other.box for _, other in rivals]))[0]
            least = [min((limit for limit in pair if limit is not None), default=2.0) for pair in limits]
            if any(overlap >= limit for overlap, limit in zip(overlaps.tolist(), least, strict=True)):
                found[index] = replace(item, drop=reasons.OVERLAPPED)
                continue
        kept.append(index)
    return found
