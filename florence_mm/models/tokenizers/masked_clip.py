"""CLIP's vocabulary with a mask token, for fusion models.

Shape legend: ``B`` texts, ``T`` tokens of the longest text, ``V`` ids of CLIP.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from florence_mm.registry import TASK_UTILS

from .clip import CLIPTokenizer
from .protocol import CutCounter, TokenBatch, check_text_list, pad_ids

MASK = '<mask>'


@TASK_UTILS.register_module()
class MaskedCLIPTokenizer:
    """CLIP's tokens, and a mask token with the id after the last; the text ``<mask>`` stands for it.

    Args:
        vocab_file: see :class:`CLIPTokenizer`.
        vocab_size: V of :class:`CLIPTokenizer`; this tokenizer has one id more.

    Attributes:
        num_truncated (int): texts cut so far; the first call that cuts logs a warning.

    Raises:
        FileNotFoundError: there is no vocabulary file.
        ValueError: the file holds too few merges.

    >>> tokenizer = MaskedCLIPTokenizer()
    >>> tokenizer(['a <mask> on a beach'], max_length=8).input_ids
    tensor([[49406,   320, 49408,   525,   320,  2117, 49407]])
    """

    pad_token_id = 0

    def __init__(self, vocab_file: str | None = None, vocab_size: int = 49408) -> None:
        self._clip = CLIPTokenizer(vocab_file=vocab_file, vocab_size=vocab_size)
        self._cuts = CutCounter()
        self.vocab_size = vocab_size + 1
        self.start_token_id, self.end_token_id = self._clip.start_id, self._clip.end_id
        self.mask_token_id = vocab_size
        self.special_ids = frozenset((self.start_token_id, self.end_token_id, self.mask_token_id))

    @property
    def num_truncated(self) -> int:
        """Texts cut so far."""
        return self._cuts.num_truncated

    def __call__(self, texts: Sequence[str], max_length: int) -> TokenBatch:
        """Tokenize.

        Args:
            texts: B texts; one that is too long keeps its first tokens and the end.
            max_length: most tokens of a text, start and end included.

        Raises:
            TypeError: ``texts`` is one string, or holds something else than strings.
            ValueError: no texts, or ``max_length`` below 3.
        """
        check_text_list(texts, max_length)
        rows, cut = [], 0
        for text in texts:
            ids: list[int] = []
            for number, piece in enumerate(text.split(MASK)):
                ids += [self.mask_token_id] * (number > 0) + self._clip.encode(piece)
            cut += len(ids) > max_length - 2
            rows.append([self.start_token_id, *ids[: max_length - 2], self.end_token_id])
        self._cuts.add(cut, len(texts), max_length)
        return pad_ids(rows, self.pad_token_id)

    def word_starts(self, input_ids: Tensor) -> Tensor:
        """``(B, T)`` bool: whether a token begins a word; special tokens do, and padding as its id says."""
        ends = torch.tensor(
            [[token in self.special_ids or self._clip.ends_word(token) for token in row] for row in input_ids.tolist()]
        ).view(input_ids.shape)
        special = torch.isin(input_ids, torch.tensor(sorted(self.special_ids)))
        starts = special.clone()
        starts[:, 0] = True
        starts[:, 1:] |= ends[:, :-1]
        return starts

    def decode(self, input_ids: Sequence[int] | Tensor) -> str:
        """The text of ids, special tokens left out; CLIP keeps no case, and no white space but between words."""
        return self._clip.decode([int(i) for i in input_ids if int(i) not in self.special_ids])
