"""Reasons for which pairs are dropped, each with the stage that drops for it."""

#: A header in the tar is damaged, so that the members between it and the next whole header are lost.
DAMAGED_TAR = 'damaged_tar'
#: The tar ends within a member.
TRUNCATED_TAR = 'truncated_tar'
#: The downloader's count (img2dataset's ``_stats.json``) says that the shard had more pairs than are in it.
MISSING = 'missing'
NO_IMAGE = 'no_image'
NO_TEXT = 'no_text'
#: The text is not UTF-8, or its JSON cannot be parsed, or is no string.
INVALID_TEXT = 'invalid_text'
#: There is nothing to read in the text (:func:`florence_mm.language.labels.is_blank`).
BLANK_TEXT = 'blank_text'
UNDECODABLE = 'undecodable'
#: The header promises more pixels than are decoded.
BOMB = 'bomb'
TOO_SMALL = 'too_small'
#: The picture is longer than it is wide, or wider than long, by more than the limit.
ASPECT = 'aspect'
#: The model finds picture and text unlike.
LOW_SCORE = 'low_score'
#: The model gives NaN or infinity.
SCORE_NOT_FINITE = 'score_not_finite'
NEAR_DUPLICATE = 'near_duplicate'
#: It nearly duplicates an item of a set that models are evaluated on.
EVALUATION_DUPLICATE = 'evaluation_duplicate'
#: Its query, or its text, has more pairs than the limit, and others of them are kept.
UNBALANCED = 'unbalanced'

STAGE_A = (
    DAMAGED_TAR,
    TRUNCATED_TAR,
    MISSING,
    NO_IMAGE,
    NO_TEXT,
    INVALID_TEXT,
    BLANK_TEXT,
    UNDECODABLE,
    BOMB,
    TOO_SMALL,
    ASPECT,
    SCORE_NOT_FINITE,
)
#: Of pictures whose header was read and no more: they have a size and no hash.
NOT_HASHED = frozenset((UNDECODABLE, BOMB, TOO_SMALL, ASPECT))
STAGE_B = (LOW_SCORE, NEAR_DUPLICATE, EVALUATION_DUPLICATE, UNBALANCED)
#: All reasons, in the order of a report.
REASONS = (*STAGE_A, *STAGE_B)
