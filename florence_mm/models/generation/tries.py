"""Tries of token sequences, which restrict generation to a list of texts."""

import functools
from collections.abc import Collection, Sequence


class TokenTrie:
    """Trie of token sequences; a function from the beginning of a sequence to the ids that may follow it.

    It is a value of ``DecodingRules.allowed``: every generated text is then one of the sequences.

    Args:
        sequences: ids of the texts, without start and end tokens; equal ones are one.
        end_id: end token, which may follow a whole sequence.

    Attributes:
        longest (int): number of tokens of the longest sequence.
        start (dict): the root, from which :meth:`follow` goes on; a node is a dict of the nodes after it by id.

    Raises:
        ValueError: there are no sequences, or one contains the end token.

    >>> trie = TokenTrie([[5, 6], [5], [7]], end_id=2)
    >>> sorted(trie([])), sorted(trie([5])), sorted(trie([5, 6]))
    ([5, 7], [2, 6], [2])
    """

    def __init__(self, sequences: Sequence[Sequence[int]], end_id: int) -> None:
        if not len(sequences):
            raise ValueError('there are no texts to choose from; give at least one')
        self.start: dict[int, dict] = {}
        self.longest = max(map(len, sequences))
        for sequence in sequences:
            if end_id in sequence:
                raise ValueError(
                    f'the ids {list(sequence)} contain the end token {end_id}; give texts without start and end'
                )
            node = self.start
            for token in sequence:
                node = node.setdefault(token, {})
            node[end_id] = {}

    def follow(self, state: dict, token: int) -> dict:
        """Return the node after one more token; an empty one if no sequence goes on so."""
        return state.get(token, {})

    def following(self, state: dict) -> Collection[int]:
        """Return the ids that may follow a node."""
        return state.keys()

    def __call__(self, written: Sequence[int]) -> Collection[int]:
        """Return the ids that may follow ``written``; none if no sequence begins so."""
        return self.following(functools.reduce(self.follow, written, self.start))
