"""Reasons for which annotations are not kept, beside those of pairs (:mod:`florence_mm.curation.reasons`)."""

from .reasons import (
    BLANK_TEXT,
    BOMB,
    INVALID_TEXT,
    LOW_SCORE,
    NO_IMAGE,
    SCORE_NOT_FINITE,
    UNDECODABLE,
)

#: The region is outside the picture, empty, or no region at all.
BAD_BOX = 'bad_box'
#: The words say nothing by themselves: a pronoun, an abstract noun.
BLACKLISTED = 'blacklisted'
#: The text names more or fewer objects than the limits.
TOO_MANY_OBJECTS = 'too_many_objects'
TOO_FEW_OBJECTS = 'too_few_objects'
#: Too few words of the text's parse belong to one object, or to one action.
SIMPLE_OBJECTS = 'simple_objects'
SIMPLE_ACTIONS = 'simple_actions'
#: A region with a higher score lies on it.
OVERLAPPED = 'overlapped'
#: The model says another thing of the place, or finds nothing there, so that the score fell below the least.
CONTRADICTED = 'contradicted'
#: Another annotation says the same, and has taken it up.
MERGED = 'merged'
#: Another text is nearer to the region.
FARTHER_TEXT = 'farther_text'
#: The model's own find has a lower score than what is added.
NOT_ADDED = 'not_added'

#: All reasons, in the order of a report.
REASONS = (
    *(NO_IMAGE, BOMB, UNDECODABLE, INVALID_TEXT, BLANK_TEXT, SCORE_NOT_FINITE, BAD_BOX),
    *(BLACKLISTED, TOO_MANY_OBJECTS, TOO_FEW_OBJECTS, SIMPLE_OBJECTS, SIMPLE_ACTIONS),
    *(FARTHER_TEXT, MERGED, CONTRADICTED, NOT_ADDED, LOW_SCORE, OVERLAPPED),
)
