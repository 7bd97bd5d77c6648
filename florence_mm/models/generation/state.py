"""State of the generation of a batch of texts.

Shape legend: ``B`` rows (texts, or beams of texts), ``P`` tokens given at the start.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .cache import CacheStack


@dataclass
class WriterState:
    """Images, given ids and caches with which a model continues a batch of texts.

    Attributes:
        image_of: index of the image of each of the B rows.
        first_ids: ``(B, P)`` ids given at the start, which the model gets before the first generated token: the start
            token, or a prompt if the model reads it as the beginning of the text.
        memory: encoded images (and prompts that the model encodes separately), in any form; only the model reads it.
        caches: keys and values of the tokens that the model got so far; empty: it gets all tokens at each step.
    """

    image_of: list[int]
    first_ids: Tensor
    memory: Any = None
    caches: Sequence[CacheStack] = field(default_factory=tuple)

    @classmethod
    def start(
        cls, image_of: Sequence[int | None], first_ids: Tensor, memory: Any, cached: bool, stacks: int = 1
    ) -> 'WriterState':
        """Start the generation of B rows.

        Args:
            image_of, first_ids, memory: see the attributes.
            cached: cache keys and values.
            stacks: stacks of layers that have a cache.
        """
        return cls(list(image_of), first_ids, memory, tuple(CacheStack() for _ in range(stacks)) if cached else ())

    @property
    def cache(self) -> CacheStack | None:
        """The cache of a model with one stack of layers; None: it gets all tokens at each step."""
        return self.caches[0] if self.caches else None

    @property
    def length(self) -> int:
        """Number of cached tokens, which the model need not get again."""
        return self.caches[0].length if self.caches else 0

    def select(self, rows: Tensor) -> None:
        """Replace row i by row ``rows[i]``, which must have the same image.

        Args:
            rows: ``(B,)`` int64, on the CPU.

        Raises:
            ValueError: a row would get another image.
        """
        if [self.image_of[row] for row in rows.tolist()] != self.image_of:
            raise ValueError('a text cannot go on from a text about another image; select rows within an image')
        for cache in self.caches:
            cache.select(rows)
