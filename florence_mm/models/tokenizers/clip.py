"""CLIP's byte-pair tokenizer, with the vocabulary of open_clip; and a variant with a mask token for fusion models.

Ids equal those of CLIP's published tokenizer: text is fixed (ftfy), HTML entities are resolved, white space is
collapsed, text is lower-cased and split by CLIP's pattern; the bytes of each piece are merged by byte-pair encoding
(``tokenizers``, Rust), with a cache of results.

Shape legend: ``B`` texts, ``T`` tokens of the longest text, ``V`` ids of CLIP's tokenizer.
"""

import functools
import gzip
import html
import importlib.util
import itertools
from collections.abc import Sequence
from pathlib import Path

import ftfy
import regex
import torch
from tokenizers.models import BPE
from torch import Tensor

from florence_mm.registry import TASK_UTILS

from .protocol import CutCounter, TokenBatch, check_strings, check_text_list, pad_ids

MASK = '<mask>'

_START, _END = '<start_of_text>', '<end_of_text>'
_WORD_END = '</w>'
_PIECES = regex.compile(
    rf"{_START}|{_END}|'s|'t|'re|'ve|'m|'ll|'d|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+", regex.IGNORECASE
)
# longest piece that is cached, so that garbage in the data cannot fill the memory
_MEMO_LENGTH = 32


@TASK_UTILS.register_module()
class CLIPTokenizer(CutCounter):
    """CLIP's tokenizer: converts texts to ids of start token, byte pairs and end token, padded with zeros.

    Args:
        context_length: length of the output, start and end included; 77 in CLIP, 76 in the Florence paper (2.3).
        vocab_file: a merges file in CLIP's format (plain or .gz); None: that of the installed open_clip.
        vocab_size: number of ids: 512 for bytes, the first ``vocab_size - 514`` merges of the file, start and end,
            which have the last two ids. 49408 in CLIP; fewer suit small models, but ids are then not CLIP's.

    Attributes:
        num_truncated (int): number of truncated texts so far; the first ones log a warning.

    Raises:
        FileNotFoundError: the vocabulary file does not exist.
        ValueError: the file has too few merges, or an argument is out of range.

    >>> tokenizer = CLIPTokenizer(context_length=7)
    >>> tokenizer(['a dog', 'Two dogs on a beach'])
    tensor([[49406,   320,  1929, 49407,     0,     0,     0],
            [49406,  1237,  3255,   525,   320,  2117, 49407]])
    >>> tokenizer.decode(tokenizer.encode('Two  DOGS!'))
    'two dogs !'
    """

    def __init__(self, context_length: int = 77, vocab_file: str | Path | None = None, vocab_size: int = 49408) -> None:
        if context_length < 3:
            raise ValueError(f'context_length is {context_length}; give at least 3 (start, one token, end)')
        self.context_length = context_length
        self.vocab_file = str(vocab_file or find_vocabulary())
        self.vocab_size = vocab_size
        self._vocabulary = _load_vocabulary(self.vocab_file, vocab_size)

    # worker processes read the vocabulary again from its path
    def __getstate__(self) -> dict:
        return {k: v for k, v in vars(self).items() if k != '_vocabulary'}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state, _vocabulary=_load_vocabulary(state['vocab_file'], state['vocab_size']))

    @property
    def start_id(self) -> int:
        """Id of the start token, ``vocab_size - 2``."""
        return self.vocab_size - 2

    @property
    def end_id(self) -> int:
        """Id of the end token, ``vocab_size - 1``: the largest, so that argmax finds it."""
        return self.vocab_size - 1

    def encode(self, text: str) -> list[int]:
        """Convert a text to ids, without start, end, truncation and padding."""
        ids, memo = [], self._vocabulary.memo
        for piece in _PIECES.findall(_clean(text)):
            known = memo.get(piece)
            ids.extend(self._vocabulary.encode(piece) if known is None else known)
        return ids

    def ends_word(self, token_id: int) -> bool:
        """Whether a token is the last one of its word."""
        return self._vocabulary.bpe.id_to_token(token_id).endswith(_WORD_END)

    def decode(self, input_ids: Sequence[int]) -> str:
        """Convert ids without start and end to text, in lower case with single spaces after words.

        Bytes that are not UTF-8 become replacement characters.
        """
        joined = ''.join(self._vocabulary.bpe.id_to_token(i) for i in input_ids)
        words = (bytes(map(self._vocabulary.char_bytes.get, word)) for word in joined.split(_WORD_END))
        return b' '.join(words).decode('utf-8', errors='replace').strip()

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Tokenize a list of texts.

        Returns:
            ``(len(texts), context_length)`` int64. A text that is too long keeps its first tokens and the end token.

        Raises:
            TypeError: ``texts`` is one string, or contains other objects than strings.
        """
        check_strings(texts)
        room = self.context_length - 2
        rows, cut = [], 0
        for text in texts:
            ids = self.encode(text)
            cut += len(ids) > room
            ids = [self.start_id, *ids[:room], self.end_id]
            rows.append(ids + [0] * (self.context_length - len(ids)))
        self.count_cut(cut, len(texts), self.context_length)
        return torch.tensor(rows, dtype=torch.int64).view(len(rows), self.context_length)


def find_vocabulary() -> Path:
    """Find the merges file of the installed open_clip without importing it.

    Raises:
        FileNotFoundError: open_clip is not installed.
    """
    package = importlib.util.find_spec('open_clip')
    path = Path(package.submodule_search_locations[0] if package else '', 'bpe_simple_vocab_16e6.txt.gz')
    if not path.is_file():
        raise FileNotFoundError(
            f"CLIP's vocabulary {path.name} was not found; install it with 'pip install open_clip_torch' "
            'or name a local copy as vocab_file'
        )
    return path


class _Vocabulary:
    """Vocabulary that converts pieces of text to ids, with a cache; shared by tokenizers of one file and size."""

    def __init__(self, path: str, size: int) -> None:
        if not Path(path).is_file():
            raise FileNotFoundError(f'vocabulary file {path} does not exist; give a merges file in the format of CLIP')
        opener = gzip.open if path.endswith('.gz') else Path.open
        with opener(Path(path), 'rt', encoding='utf-8') as file:
            # the first line is the version
            lines = itertools.islice(file, 1, max(size - 513, 1))
            merges = [*map(tuple, map(str.split, lines))]
        if size < 514 or len(merges) < size - 514 or {*map(len, merges)} - {2}:
            raise ValueError(
                f'{path} gives {len(merges)} merges and vocab_size {size} needs {size - 514} of two symbols each; '
                'give a merges file in the format of CLIP or another vocab_size (514 or more)'
            )
        # each byte is written as a visible character: as itself, or as one from 256 on if it is not visible
        visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
        hidden = [byte for byte in range(256) if byte not in set(visible)]
        self.byte_chars = {b: chr(b) for b in visible} | {b: chr(256 + i) for i, b in enumerate(hidden)}
        self.char_bytes = {char: byte for byte, char in self.byte_chars.items()}
        single = list(self.byte_chars.values())
        tokens = [*single, *(c + _WORD_END for c in single), *map(''.join, merges)]
        self.bpe = BPE({t: i for i, t in enumerate(tokens)}, merges, end_of_word_suffix=_WORD_END)
        self.memo = {_START: [size - 2], _END: [size - 1]}

    def encode(self, piece: str) -> list[int]:
        ids = [token.id for token in self.bpe.tokenize(''.join(self.byte_chars[b] for b in piece.encode()))]
        if len(piece) <= _MEMO_LENGTH and len(self.memo) < 1 << 20:
            self.memo[piece] = ids
        return ids


_load_vocabulary = functools.cache(_Vocabulary)


def _clean(text: str) -> str:
    # ftfy and html do not change printable ASCII without entities
    if not (text.isascii() and text.isprintable() and '&' not in text):
        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return ' '.join(text.split()).lower()


@TASK_UTILS.register_module()
class MaskedCLIPTokenizer(CutCounter):
    """CLIP's tokenizer with a mask token, whose id follows CLIP's last; in texts it is written ``<mask>``.

    Args:
        vocab_file: a merges file, see :class:`CLIPTokenizer`.
        vocab_size: V, the ids of :class:`CLIPTokenizer`; this tokenizer has one more.

    Attributes:
        num_truncated (int): number of truncated texts so far; the first ones log a warning.

    Raises:
        FileNotFoundError: the vocabulary file does not exist.
        ValueError: the file has too few merges.

    >>> tokenizer = MaskedCLIPTokenizer()
    >>> tokenizer(['a <mask> on a beach'], max_length=8).input_ids
    tensor([[49406,   320, 49408,   525,   320,  2117, 49407]])
    """

    pad_token_id = 0

    def __init__(self, vocab_file: str | None = None, vocab_size: int = 49408) -> None:
        self._clip = CLIPTokenizer(vocab_file=vocab_file, vocab_size=vocab_size)
        self.vocab_size = vocab_size + 1
        self.start_token_id, self.end_token_id = self._clip.start_id, self._clip.end_id
        self.mask_token_id = vocab_size
        self.special_ids = frozenset((self.start_token_id, self.end_token_id, self.mask_token_id))

    def __call__(self, texts: Sequence[str], max_length: int) -> TokenBatch:
        """Tokenize texts.

        Args:
            texts: B texts; one that is too long keeps its first tokens and the end token.
            max_length: most tokens of a text, start and end included.

        Raises:
            TypeError: ``texts`` is one string, or contains other objects than strings.
            ValueError: there are no texts, or ``max_length`` is below 3.
        """
        check_text_list(texts, max_length)
        rows, cut = [], 0
        for text in texts:
            ids: list[int] = []
            for number, piece in enumerate(text.split(MASK)):
                ids += [self.mask_token_id] * (number > 0) + self._clip.encode(piece)
            cut += len(ids) > max_length - 2
            rows.append([self.start_token_id, *ids[: max_length - 2], self.end_token_id])
        self.count_cut(cut, len(texts), max_length)
        return pad_ids(rows, self.pad_token_id)

    def word_starts(self, input_ids: Tensor) -> Tensor:
        """Return ``(B, T)`` bool, True where a token begins a word and for special tokens; padding counts as its id."""
        ends = torch.tensor(
            [[token in self.special_ids or self._clip.ends_word(token) for token in row] for row in input_ids.tolist()]
        ).view(input_ids.shape)
        special = torch.isin(input_ids, torch.tensor(sorted(self.special_ids)))
        starts = special.clone()
        starts[:, 0] = True
        starts[:, 1:] |= ends[:, :-1]
        return starts

    def decode(self, input_ids: Sequence[int] | Tensor) -> str:
        """Convert ids to text without special tokens, in lower case with single spaces after words."""
        return self._clip.decode([int(i) for i in input_ids if int(i) not in self.special_ids])
