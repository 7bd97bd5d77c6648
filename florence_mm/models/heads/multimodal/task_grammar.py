"""Tokens that may follow in the answer to a task, so that what is written always parses.

Shape legend: ``V`` vocabulary.
"""

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from florence_mm.language.marks import POLYGON, POLYGON_END, SEPARATOR
from florence_mm.language.task_list import find_task
from florence_mm.models.generation import TokenTrie
from florence_mm.models.generation.allowed import Following
from florence_mm.models.tokenizers.locations import LocationTokenizer


class GrammarState(NamedTuple):
    """How far an answer is written.

    Attributes:
        phase: ``'start'`` of the answer, in a ``'text'``, in a ``'box'``, ``'quad'`` or ``'outline'``, or after one:
            ``'after box'``, ``'after quad'``, ``'after outline'``.
        count: locations of the box or quadrilateral, or of the part of the outline, so far.
        x0, y0: first locations of the box.
        closed: the outline is one of several, between ``<poly>`` and ``</poly>``.
        node: of the tree of texts, if there is one.
    """

    phase: str = 'start'
    count: int = 0
    x0: int = 0
    y0: int = 0
    closed: bool = False
    node: Mapping[int, dict] | None = None


class TaskGrammar:
    """What may follow in the answer to a task: a function for ``DecodingRules.allowed``, or of a state, token by token.

    Boxes have four locations and end where they begin or behind; quadrilaterals have eight; a part of an outline has at
    least three points; a text has something to read, and there is one before each labelled region.

    Args:
        task: name or public mark.
        tokenizer: the tokenizer of the model.
        texts: every text of the answer is one of these, such as class names, or the phrases of a caption; None: any.

    Attributes:
        start (GrammarState): state before the first token.

    Raises:
        ValueError: the task is unknown or writes no texts, there are no texts, or one has no tokens.

    >>> tokenizer = LocationTokenizer(dict(type='MaskedCLIPTokenizer', vocab_size=4096), num_bins=64)
    >>> grammar = TaskGrammar('region_proposal', tokenizer)
    >>> grammar([tokenizer.mark_id('<loc_9>')]) == tokenizer.location_ids  # inside a box there are locations alone
    True
    """

    start = GrammarState()

    def __init__(self, task: str, tokenizer: LocationTokenizer, texts: Sequence[str] | None = None) -> None:
        self.task = find_task(task)
        self.locations = tokenizer.location_ids
        self._tokens = _tokens_of(tokenizer)
        self._end = tokenizer.end_token_id
        self._marks = {tokenizer.mark_id(mark): mark for mark in (SEPARATOR, POLYGON, POLYGON_END)}
        self._trie = None if texts is None else self._trie_of(texts, tokenizer)

    def _trie_of(self, texts: Sequence[str], tokenizer: LocationTokenizer) -> TokenTrie:
        if self.task.answers in ('boxes', 'polygons'):
            raise ValueError(f'{self.task.name} writes no texts and got {len(texts)} to choose from; leave them out')
        if not texts:
            raise ValueError(f'{self.task.name} got no texts to choose from; give at least one, or None for any')
        ids = tokenizer(texts, 1 << 30)
        rows = [row[mask].tolist()[1:-1] for row, mask in zip(ids.input_ids, ids.mask, strict=True)]
        for text, row in zip(texts, rows, strict=True):
            if not row or max(row) >= self._tokens.size:
                raise ValueError(f'the text {text!r} is empty or has a mark in it; give words')
        return TokenTrie(rows, self._end)

    # --- going on -----------------------------------------------------------------------------------------------------

    def follow(self, state: GrammarState, token: int) -> GrammarState:
        """Return the state after one more token."""
        if token in self.locations:
            return self._follow_location(state, token - self.locations.start)
        mark = self._marks.get(token)
        if mark is None:
            node = None
            if self._trie is not None:
                before = state.node if state.phase == 'text' and state.node is not None else self._trie.start
                node = self._trie.follow(before, token)
            return GrammarState('text', node=node)
        if mark == SEPARATOR:
            return GrammarState('outline', closed=state.closed)
        return GrammarState('outline', closed=True) if mark == POLYGON else GrammarState('after outline')

    def _follow_location(self, state: GrammarState, number: int) -> GrammarState:
        if state.phase == 'outline' or self.task.answers == 'polygons':
            return GrammarState('outline', state.count + 1, closed=state.closed)
        if self.task.answers == 'labelled_quads':
            count = state.count + 1
            return GrammarState('quad', count) if count < 8 else GrammarState('after quad')
        if state.phase != 'box':
            return GrammarState('box', 1, number)
        if state.count == 3:
            return GrammarState('after box')
        return GrammarState('box', state.count + 1, state.x0, number if state.count == 1 else state.y0)

    def following(self, state: GrammarState) -> Following:
        """Return the ids that may follow in a state."""
        phase, tokens, answers = state.phase, self._tokens, self.task.answers
        if phase == 'text':
            return self._after_text(state.node)
        if phase == 'box':
            lowest = (0, 0, state.x0, state.y0)[state.count]
            return range(self.locations.start + lowest, self.locations.stop)
        if phase == 'quad' or phase == 'outline' and (state.count < 6 or state.count % 2):
            return self.locations
        if phase == 'outline':
            return tokens('locations', SEPARATOR, POLYGON_END if state.closed else 'end')
        # between regions
        kinds = ['end'] if answers != 'text' else []
        if answers == 'boxes' or phase == 'after box' or answers == 'polygons' and phase == 'start':
            kinds.append('locations')
        if answers == 'polygons' or phase == 'after outline':
            kinds.append(POLYGON)
        if answers in ('boxes', 'polygons'):
            return tokens(*kinds)
        if self._trie is None:
            return tokens('begin', *kinds)
        return _with(tokens(*kinds), self._trie.start)

    def _after_text(self, node: Mapping[int, dict] | None) -> Following:
        answers = self.task.answers
        kinds = ['end'] if answers == 'text' else ['locations']
        if answers == 'labelled_shapes':
            kinds.append(POLYGON)
        if node is None:
            return self._tokens('text', *kinds)
        longer = node.keys() - {self._end}
        return _with(self._tokens(*kinds), longer) if self._end in node else longer

    def __call__(self, written: Sequence[int]) -> Following:
        """Return the ids that may follow ``written``."""
        return self.following(functools.reduce(self.follow, written, self.start))


class _Tokens:
    """Masks ``(V,)`` of kinds of tokens: ``'text'``, ``'begin'`` of one, ``'locations'``, ``'end'``, and marks."""

    def __init__(self, tokenizer: LocationTokenizer) -> None:
        self.size = len(tokenizer.text_ids)
        ordinary = [token for token in tokenizer.text_ids if token not in tokenizer.special_ids]
        # a token of white space alone begins no text
        self._ids: dict[str, Collection[int]] = {
            'text': ordinary,
            'begin': [token for token in ordinary if tokenizer.base.decode([token]).strip()],
            'locations': tokenizer.location_ids,
            'end': [tokenizer.end_token_id],
            **{mark: [tokenizer.mark_id(mark)] for mark in (SEPARATOR, POLYGON, POLYGON_END)},
        }
        self._vocab_size = tokenizer.vocab_size
        self._masks: dict[tuple[str, ...], Tensor] = {}

    def __call__(self, *kinds: str) -> Tensor:
        """Return the mask of some kinds, the same object each time."""
        mask = self._masks.get(kinds)
        if mask is None:
            mask = torch.zeros(self._vocab_size, dtype=torch.bool)
            for kind in kinds:
                mask[list(self._ids[kind])] = True
            self._masks[kinds] = mask
        return mask


@functools.lru_cache(maxsize=4)
def _tokens_of(tokenizer: LocationTokenizer) -> _Tokens:
    return _Tokens(tokenizer)


def _with(mask: Tensor, ids: Collection[int]) -> Tensor:
    """A mask ``(V,)`` with some more ids."""
    mask = mask.clone()
    mask[list(ids)] = True
    return mask
