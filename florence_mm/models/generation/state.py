"""Where the writing of a batch of texts stands.

Shape legend: ``B`` rows (texts, or beams of texts), ``P`` tokens that a text follows, ``C`` hidden size.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .cache import CacheStack


@dataclass
class WriterState:
    """What a model needs to go on with texts.

    Attributes:
        image_of: for each of the B rows, which image it is about.
        first_ids: ``(B, P)`` ids that the texts follow, which are handed over before the first token that is written:
            the start token, or a prompt where the model reads it as the beginning of its text.
        memory: what the model keeps of images (and of prompts that it reads apart); its own business.
        caches: keys and values of the tokens handed over so far; none: the model is given all tokens each time.
    """

    image_of: list[int]
    first_ids: Tensor
    memory: Any = None
    caches: Sequence[CacheStack] = field(default_factory=tuple)

    @property
    def length(self) -> int:
        """Tokens that need not be handed over again."""
        return self.caches[0].length if self.caches else 0

    def select(self, rows: Tensor) -> None:
        """Let row i go on from what row ``rows[i]`` holds; both are about one image.

        Args:
            rows: ``(B,)`` int64, on the CPU.

        Raises:
            ValueError: a row would change its image.
        """
        if [self.image_of[row] for row in rows.tolist()] != self.image_of:
            raise ValueError('a text cannot go on from a text about another image; select rows within an image')
        for cache in self.caches:
            cache.select(rows)
