"""RoBERTa's byte-level tokenizer, by transformers, which is imported when a tokenizer is built.

Shape legend: ``B`` texts, ``T`` tokens of the longest text.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from florence_mm.registry import TASK_UTILS

from .protocol import CutCounter, TokenBatch, check_text_list, pad_ids
from .transformers_files import folder_or_name, unusable


@TASK_UTILS.register_module()
class RobertaTextTokenizer(CutCounter):
    """RoBERTa's byte-level tokenizer, by transformers.

    Args:
        pretrained: a folder with ``vocab.json`` and ``merges.txt`` or ``tokenizer.json``, or a model name on the
            Hugging Face hub; None: no files and no merges, so that each byte is a token (261 ids).

    Attributes:
        num_truncated (int): number of truncated texts so far; the first ones log a warning.

    Raises:
        FileNotFoundError: ``pretrained`` looks like a folder that does not exist.
        ValueError: ``pretrained`` has no tokenizer, or one without RoBERTa's special tokens.
    """

    def __init__(self, pretrained: str | None = None) -> None:
        from transformers import AddedToken, RobertaTokenizer

        if pretrained is None:
            from tokenizers.pre_tokenizers import ByteLevel

            tokens = ['<s>', '<pad>', '</s>', '<unk>', '<mask>', *sorted(ByteLevel.alphabet())]
            self._tokenizer = RobertaTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[])
        else:
            source = folder_or_name('tokenizer', pretrained)
            try:
                self._tokenizer = RobertaTokenizer.from_pretrained(**source)
            except (OSError, ValueError) as error:
                raise unusable('tokenizer', pretrained, error) from None
        names = ('bos', 'eos', 'pad', 'mask')
        ids = [getattr(self._tokenizer, f'{name}_token_id') for name in names]
        unknown = self._tokenizer.unk_token_id
        lacking = [name for name, i in zip(names, ids, strict=True) if i is None or i == unknown]
        if lacking:
            raise ValueError(
                f"the tokenizer in {pretrained!r} has no {', '.join(lacking)} token; give a tokenizer of RoBERTa's kind"
            )
        if not self._tokenizer.added_tokens_decoder[self._tokenizer.mask_token_id].lstrip:
            # RoBERTa's mask includes the space before it; vocab.json and merges.txt alone do not tell
            mask = AddedToken(str(self._tokenizer.mask_token), lstrip=True, special=True, normalized=False)
            self._tokenizer.add_special_tokens({'mask_token': mask})
        self.start_token_id, self.end_token_id, self.pad_token_id, self.mask_token_id = ids
        self.vocab_size = len(self._tokenizer)
        self.special_ids = frozenset(self._tokenizer.all_special_ids)
        if self.vocab_size <= len(self.special_ids):
            # transformers makes an empty tokenizer if it finds no files
            raise ValueError(
                f'{pretrained!r} holds no vocabulary; a tokenizer needs vocab.json and merges.txt, or tokenizer.json'
            )

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
        rows = self._tokenizer(list(texts), add_special_tokens=False)['input_ids']
        cut = sum(len(row) > max_length - 2 for row in rows)
        self.count_cut(cut, len(rows), max_length)
        rows = [[self.start_token_id, *row[: max_length - 2], self.end_token_id] for row in rows]
        return pad_ids(rows, self.pad_token_id)

    def word_starts(self, input_ids: Tensor) -> Tensor:
        """Return ``(B, T)`` bool, True where a token begins a word (with a space) and for special tokens."""
        special = torch.isin(input_ids, torch.tensor(sorted(self.special_ids)))  # (B, T)
        tokens = self._tokenizer.convert_ids_to_tokens(input_ids.flatten().tolist())
        # byte-level vocabularies write a space as 'Ġ'
        starts = torch.tensor([token.startswith('Ġ') for token in tokens]).view(input_ids.shape) | special
        starts[:, 0] = True
        starts[:, 1:] |= special[:, :-1]  # the first word of a text has no space before it
        return starts

    def decode(self, input_ids: Sequence[int] | Tensor) -> str:
        """Convert ids to text, without special tokens."""
        return self._tokenizer.decode([int(i) for i in input_ids], skip_special_tokens=True).strip()
