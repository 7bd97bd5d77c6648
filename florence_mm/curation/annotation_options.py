"""Options of annotating: what is filtered, how predictions are merged, how often the data are refined."""

from dataclasses import dataclass

from florence_mm.errors import UsageError, shown
from florence_mm.utils.numbers import is_finite, is_whole

from .annotation_items import KINDS
from .options import require


@dataclass(frozen=True)
class FilterOptions:
    """Which annotations are kept.

    Attributes:
        min_score: least score of a region or phrase with a score.
        min_text_score: least score of a text with a score.
        nms: intersection over union from which on of two regions of one text the one with the lower score is dropped;
            None: no such filter.
        nms_any: the same for regions of one task whatever their texts.
        blacklist: drop regions and phrases whose words say nothing: pronouns, abstract nouns. With a parser the head of
            the phrase counts, without one the whole phrase after its article.
        words: further words of the blacklist.
        max_objects, min_objects: of a text, at most and at least. These and the next two need a parser.
        min_object_degree: least :attr:`.annotation_parsing.Complexity.object_degree` of a text.
        min_action_degree: the same of its actions.
    """

    min_score: float = 0.3
    min_text_score: float = 0.0
    nms: float | None = 0.7
    nms_any: float | None = None
    blacklist: bool = True
    words: tuple[str, ...] = ()
    max_objects: int | None = None
    min_objects: int | None = None
    min_object_degree: int | None = None
    min_action_degree: int | None = None

    def __post_init__(self) -> None:
        for name in ('min_score', 'min_text_score'):
            _require_fraction(f'filter.{name}', getattr(self, name))
        for name in ('nms', 'nms_any'):
            value = getattr(self, name)
            right = value is None or (is_finite(value) and 0 < value <= 1)
            require(f'filter.{name}', value, right, 'above 0 and at most 1, or None')
        require('filter.blacklist', self.blacklist, isinstance(self.blacklist, bool), 'True or False')
        words = self.words
        right = isinstance(words, (list, tuple)) and all(isinstance(word, str) and word for word in words)
        require('filter.words', words, right, 'a list of words')
        object.__setattr__(self, 'words', tuple(words))
        for name in ('max_objects', 'min_objects', 'min_object_degree', 'min_action_degree'):
            value = getattr(self, name)
            right = value is None or (is_whole(value) and value >= 0)
            require(f'filter.{name}', value, right, 'a whole number from 0, or None')

    def needing_parser(self) -> str | None:
        """Name of an option that is set and needs a parser; None if there is none."""
        names = ('max_objects', 'min_objects', 'min_object_degree', 'min_action_degree')
        return next((f'filter.{name}' for name in names if getattr(self, name) is not None), None)


@dataclass(frozen=True)
class MergeOptions:
    """How predictions are merged with old annotations (:mod:`florence_mm.curation.annotation_merging`).

    Attributes:
        iou: least intersection over union of two regions that are one.
        near: the least of two regions of one text that contradict each other about its place, if it is below ``iou``.
        prior: score of an old annotation that has none.
        add: least score of a prediction without an old annotation that is added.
        unseen: factor on the score of an old region of which the model finds nothing.
        move: average the boxes of one region by their scores; False keeps the old one.
    """

    iou: float = 0.5
    near: float = 0.1
    prior: float = 0.5
    add: float = 0.5
    unseen: float = 0.5
    move: bool = True

    def __post_init__(self) -> None:
        require('merge.iou', self.iou, is_finite(self.iou) and 0 < self.iou <= 1, 'above 0 and at most 1')
        for name in ('near', 'prior', 'add', 'unseen'):
            _require_fraction(f'merge.{name}', getattr(self, name))
        require('merge.near', self.near, self.near <= self.iou, f'at most merge.iou={self.iou}')
        require('merge.move', self.move, isinstance(self.move, bool), 'True or False')


@dataclass(frozen=True)
class RefineOptions:
    """How often data are refined.

    Attributes:
        rounds: of training, predicting, merging and filtering; 0: only annotate and filter.
        kinds: kinds of annotation that predictions are merged into; others stay as they are.
    """

    rounds: int = 0
    kinds: tuple[str, ...] = KINDS

    def __post_init__(self) -> None:
        require('refine.rounds', self.rounds, is_whole(self.rounds) and self.rounds >= 0, 'a whole number from 0')
        kinds = self.kinds
        right = isinstance(kinds, (list, tuple)) and len(kinds) > 0 and all(kind in KINDS for kind in kinds)
        require('refine.kinds', kinds, right, f'some of {", ".join(KINDS)}')
        object.__setattr__(self, 'kinds', tuple(kinds))


@dataclass(frozen=True)
class ReportOptions:
    """What a report shows.

    Attributes:
        examples: pictures drawn of what is kept, and of each reason.
        top: texts and labels of the tables, the most frequent ones.
    """

    examples: int = 8
    top: int = 20

    def __post_init__(self) -> None:
        for name in ('examples', 'top'):
            value = getattr(self, name)
            require(f'report.{name}', value, is_whole(value) and value >= 0, 'a whole number from 0')


def _require_fraction(name: str, value: float) -> None:
    if not is_finite(value) or not 0 <= value <= 1:
        raise UsageError(f'{name}={shown(value)} must be from 0 to 1')
