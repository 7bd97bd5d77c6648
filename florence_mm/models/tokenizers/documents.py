"""A tokenizer of documents with pictures: two marks as tokens behind the vocabulary of any other tokenizer.

Shape legend: ``B`` texts, ``T`` tokens of the longest text, ``V`` ids of the other tokenizer.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from florence_mm.language.documents import CHUNK_END, DOCUMENT_MARKS, IMAGE_MARK, marked_pieces
from florence_mm.registry import TASK_UTILS

from .protocol import CutCounter, TextTokenizer, TokenBatch, check_text_list, pad_ids

#: More than any text has, so that the other tokenizer cuts none.
_NO_LIMIT = 1 << 30


@TASK_UTILS.register_module()
class DocumentTokenizer(CutCounter):
    """Tokenizer of Flamingo (arXiv 2204.14198): another tokenizer with the marks of pictures behind its vocabulary.

    The V ids of the other tokenizer are followed by ``<|endofchunk|>`` and ``<image>``, as in public checkpoints.
    A text is about one picture: its start is ``<image>`` and its end ``<|endofchunk|>``. A document has marks within,
    and begins and ends with the other tokenizer's start and end, see :meth:`tokenize_documents`.

    Args:
        tokenizer: the other tokenizer, or its config; that of the language model.

    Attributes:
        image_id (int): id of ``<image>``, which is also the start.
        chunk_end_id (int): id of ``<|endofchunk|>``, which is also the end.
        document_start_id, document_end_id (int): the other tokenizer's start and end.
        text_ids (range): ids of the other tokenizer, its special tokens included.
        num_truncated (int): number of truncated texts so far; the first ones log a warning.

    Raises:
        TypeError: the other tokenizer lacks what :class:`~florence_mm.models.tokenizers.protocol.TextTokenizer` has.

    >>> tokenizer = DocumentTokenizer(dict(type='MaskedCLIPTokenizer', vocab_size=4096))
    >>> tokenizer(['dog'], max_length=8).input_ids.tolist()
    [[4098, 1929, 4097]]
    >>> tokenizer.tokenize_documents(['<image>dog<|endofchunk|>'], max_length=8).input_ids.tolist()
    [[4094, 4098, 1929, 4097, 4095]]
    """

    def __init__(self, tokenizer: dict | TextTokenizer) -> None:
        base = TASK_UTILS.build(tokenizer) if isinstance(tokenizer, dict) else tokenizer
        if not isinstance(base, TextTokenizer):
            raise TypeError(
                f'{type(base).__name__} is no tokenizer of fusion models, which DocumentTokenizer adds marks to; give '
                'one such as MaskedCLIPTokenizer'
            )
        self.base = base
        self.text_ids = range(base.vocab_size)
        self._mark_ids = {mark: base.vocab_size + place for place, mark in enumerate(DOCUMENT_MARKS)}
        self.vocab_size = base.vocab_size + len(DOCUMENT_MARKS)
        self.chunk_end_id, self.image_id = self._mark_ids[CHUNK_END], self._mark_ids[IMAGE_MARK]
        self.start_token_id, self.end_token_id = self.image_id, self.chunk_end_id
        self.document_start_id, self.document_end_id = base.start_token_id, base.end_token_id
        self.pad_token_id, self.mask_token_id = base.pad_token_id, base.mask_token_id
        self.special_ids = base.special_ids | frozenset(self._mark_ids.values())

    def __call__(self, texts: Sequence[str], max_length: int) -> TokenBatch:
        """Tokenize texts, each about one picture.

        Args:
            texts: B texts; one that is too long keeps its first tokens and the end token. A mark in a text is a token.
            max_length: most tokens of a text, start and end included.

        Raises:
            TypeError: ``texts`` is one string, or contains other objects than strings.
            ValueError: there are no texts, or ``max_length`` is below 3.
        """
        check_text_list(texts, max_length)
        rows, room = self._rows(texts), max_length - 2
        self.count_cut(sum(len(row) > room for row in rows), len(rows), max_length)
        return pad_ids([[self.start_token_id, *row[:room], self.end_token_id] for row in rows], self.pad_token_id)

    def tokenize_documents(self, documents: Sequence[str], max_length: int, ended: bool = True) -> TokenBatch:
        """Tokenize documents with marks.

        Args:
            documents: B documents, see :func:`florence_mm.language.documents.write_document`. One that is too long
                keeps its first tokens and has no end; with ``ended=False`` it keeps its last tokens.
            max_length: most tokens of a document, start and end included.
            ended: with the end; False: the beginnings of documents that go on.

        Raises:
            TypeError: ``documents`` is one string, or contains other objects than strings.
            ValueError: there are no documents, or ``max_length`` is below 3.
        """
        check_text_list(documents, max_length)
        rows, cut = [], 0
        for row in self._rows(documents):
            whole = [*row, self.document_end_id] if ended else row
            room = max_length - 1
            cut += len(whole) > room
            rows.append([self.document_start_id, *(whole[:room] if ended else whole[-room:])])
        self.count_cut(cut, len(rows), max_length)
        return pad_ids(rows, self.pad_token_id)

    def word_starts(self, input_ids: Tensor) -> Tensor:
        """Return ``(B, T)`` bool, True where a token begins a word, and for marks and special tokens."""
        # a mark separates words as a special token does
        return self.base.word_starts(input_ids.where(input_ids < len(self.text_ids), self.document_start_id))

    def decode(self, input_ids: Sequence[int] | Tensor) -> str:
        """Convert ids to text, without marks and special tokens."""
        ids = input_ids.tolist() if isinstance(input_ids, Tensor) else [int(i) for i in input_ids]
        return self.base.decode([i for i in ids if i in self.text_ids])

    def _rows(self, texts: Sequence[str]) -> list[list[int]]:
        """Convert texts to ids without start and end; the other tokenizer gets all pieces at once."""
        rows = [list(marked_pieces(text)) for text in texts]
        plain = [piece for row in rows for piece in row if piece not in self._mark_ids]
        if not plain:
            return [[self._mark_ids[piece] for piece in row] for row in rows]
        batch = self.base(plain, _NO_LIMIT)
        lengths = batch.mask.sum(1).tolist()
        ids = iter([row[1 : length - 1] for row, length in zip(batch.input_ids.tolist(), lengths, strict=True)])
        return [
            [token for piece in row for token in ([self._mark_ids[piece]] if piece in self._mark_ids else next(ids))]
            for row in rows
        ]

    def count_pictures(self, tokens: TokenBatch) -> list[int]:
        """Number of marks of pictures in each of B documents."""
        return torch.where(tokens.mask, tokens.input_ids == self.image_id, False).sum(1).tolist()
