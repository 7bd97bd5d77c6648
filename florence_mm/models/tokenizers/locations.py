"""A tokenizer with location tokens: marks of tasks as tokens behind the vocabulary of any other tokenizer.

Shape legend: ``B`` texts, ``T`` tokens of the longest text, ``V`` ids of the other tokenizer.
"""

from collections.abc import Sequence

from torch import Tensor

from florence_mm.language.marks import MARK, MARKS_AFTER, MARKS_BEFORE, POLYGON, Piece, location_mark
from florence_mm.registry import TASK_UTILS

from .protocol import CutCounter, TextTokenizer, TokenBatch, check_text_list, pad_ids

#: More than any text has, so that the other tokenizer cuts none.
_NO_LIMIT = 1 << 30


@TASK_UTILS.register_module()
class LocationTokenizer(CutCounter):
    """Tokenizer of Florence-2 (arXiv 2311.06242): another tokenizer with the marks of tasks behind its vocabulary.

    The V ids of the other tokenizer are followed by ``<od>``, ``</od>``, ``<ocr>`` and ``</ocr>``, the locations
    ``<loc_0>`` … and the other marks (:data:`florence_mm.language.marks.MARKS_AFTER`). With BART's 50265 ids and 1000
    locations ``<loc_0>`` is 50269 and there are 51289 ids, as in the public checkpoints. Marks are content: ``decode``
    writes them, and they are not among the special ids.

    Args:
        tokenizer: the other tokenizer, or its config.
        num_bins: number of locations.

    Attributes:
        location_ids (range): ids of the locations.
        text_ids (range): ids of the other tokenizer, its special tokens included.
        num_truncated (int): number of truncated texts so far; the first ones log a warning.

    Raises:
        TypeError: the other tokenizer lacks what :class:`~florence_mm.models.tokenizers.protocol.TextTokenizer` has.
        ValueError: there are fewer than 2 locations.

    >>> tokenizer = LocationTokenizer(dict(type='MaskedCLIPTokenizer', vocab_size=4096), num_bins=64)
    >>> ids = tokenizer(['dog<loc_0><loc_63>'], max_length=8).input_ids
    >>> ids.tolist(), tokenizer.location_ids
    ([[4094, 1929, 4101, 4164, 4095]], range(4101, 4165))
    >>> tokenizer.decode(ids[0])
    'dog<loc_0><loc_63>'
    """

    def __init__(self, tokenizer: dict | TextTokenizer, num_bins: int = 1000) -> None:
        if num_bins < 2:
            raise ValueError(f'num_bins is {num_bins}; give at least 2 locations')
        base = TASK_UTILS.build(tokenizer) if isinstance(tokenizer, dict) else tokenizer
        if not isinstance(base, TextTokenizer):
            raise TypeError(
                f'{type(base).__name__} is no tokenizer of fusion models, which LocationTokenizer adds locations to; '
                'give one such as MaskedCLIPTokenizer'
            )
        self.base, self.num_bins = base, num_bins
        size = base.vocab_size
        self.text_ids = range(size)
        self.location_ids = range(size + len(MARKS_BEFORE), size + len(MARKS_BEFORE) + num_bins)
        self._marks = [*MARKS_BEFORE, *map(location_mark, range(num_bins)), *MARKS_AFTER]
        self._mark_ids = {mark: size + place for place, mark in enumerate(self._marks)}
        self.vocab_size = size + len(self._marks)
        self.start_token_id, self.end_token_id = base.start_token_id, base.end_token_id
        self.pad_token_id, self.mask_token_id = base.pad_token_id, base.mask_token_id
        self.special_ids = base.special_ids

    def mark_id(self, mark: str) -> int:
        """Id of a mark, such as ``<sep>`` or ``<loc_7>``.

        Raises:
            ValueError: the vocabulary lacks it.
        """
        if mark not in self._mark_ids:
            raise ValueError(f'{mark} is not in the vocabulary of {self.num_bins} locations; give another mark')
        return self._mark_ids[mark]

    def bin_of(self, token_id: int) -> int | None:
        """Number of a location; None if a token is none."""
        return token_id - self.location_ids.start if token_id in self.location_ids else None

    def __call__(self, texts: Sequence[str], max_length: int) -> TokenBatch:
        """Tokenize texts.

        Args:
            texts: B texts. One that is too long keeps its first tokens and the end token. If there is a mark among
                these, it is cut before a region that is not whole: after the last location or mark that is followed by
                a text or ``<poly>``, or else after the last four locations in a row.
            max_length: most tokens of a text, start and end included.

        Raises:
            TypeError: ``texts`` is one string, or contains other objects than strings.
            ValueError: there are no texts, or ``max_length`` is below 3.
        """
        check_text_list(texts, max_length)
        room = max_length - 2
        rows = self._rows(texts)
        self.count_cut(sum(len(row) > room for row in rows), len(rows), max_length)
        kept = (row if len(row) <= room else row[: self._whole(row, room)] for row in rows)
        return pad_ids([[self.start_token_id, *row, self.end_token_id] for row in kept], self.pad_token_id)

    def word_starts(self, input_ids: Tensor) -> Tensor:
        """Return ``(B, T)`` bool, True where a token begins a word, and for marks and special tokens."""
        # a mark separates words as a special token does
        return self.base.word_starts(input_ids.where(input_ids < len(self.text_ids), self.start_token_id))

    def decode(self, input_ids: Sequence[int] | Tensor) -> str:
        """Convert ids to text with marks, without special tokens."""
        return ''.join(piece.text for piece, _ in self.pieces(input_ids)).strip()

    def pieces(self, input_ids: Sequence[int] | Tensor) -> list[tuple[Piece, range]]:
        """Convert ids to texts and marks, each with the places of its tokens; special tokens are left out."""
        ids = input_ids.tolist() if isinstance(input_ids, Tensor) else [int(i) for i in input_ids]
        pieces, begun = [], 0
        for place, token in enumerate([*ids, len(self.text_ids)]):  # a mark at the end ends the last text
            if token in self.text_ids:
                continue
            text = self.base.decode(ids[begun:place])
            if text:
                pieces.append((Piece('text', text), range(begun, place)))
            if place < len(ids):
                mark, number = self._mark(token), self.bin_of(token)
                piece = Piece('mark', mark) if number is None else Piece('location', mark, number)
                pieces.append((piece, range(place, place + 1)))
            begun = place + 1
        return pieces

    def _mark(self, token: int) -> str:
        place = token - len(self.text_ids)
        if not 0 <= place < len(self._marks):
            raise ValueError(f'the id {token} is outside the vocabulary of {self.vocab_size} ids; decode ids of it')
        return self._marks[place]

    def _rows(self, texts: Sequence[str]) -> list[list[int]]:
        """Convert texts to ids without start and end; the other tokenizer gets all pieces at once."""
        rows: list[list[int | None]] = []
        pieces: list[str] = []
        for text in texts:
            row, end = [], 0
            for match in MARK.finditer(text):
                known = self._mark_ids.get(match[0])
                if known is None:  # a location beyond the last one is a text
                    continue
                if match.start() > end:
                    pieces.append(text[end : match.start()])
                    row.append(None)
                row.append(known)
                end = match.end()
            if end < len(text):
                pieces.append(text[end:])
                row.append(None)
            rows.append(row)
        if not pieces:
            return rows
        batch = self.base(pieces, _NO_LIMIT)
        lengths = batch.mask.sum(1).tolist()
        ids = iter([row[1 : length - 1] for row, length in zip(batch.input_ids.tolist(), lengths, strict=True)])
        return [[token for part in row for token in (next(ids) if part is None else [part])] for row in rows]

    def _whole(self, row: Sequence[int], room: int) -> int:
        """Number of tokens that a row of more than ``room`` keeps."""
        size, opening = len(self.text_ids), self._mark_ids[POLYGON]
        if all(token < size for token in row[:room]):
            return room
        for place in range(room, 0, -1):
            if row[place - 1] >= size and row[place - 1] != opening and (row[place] < size or row[place] == opening):
                return place
        locations = next((place for place, token in enumerate(row) if token in self.location_ids), room)
        return room - (room - locations) % 4 if locations < room else room
