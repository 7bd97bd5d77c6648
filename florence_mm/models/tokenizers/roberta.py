"""RoBERTa's byte-level tokenizer, by transformers, which is imported when a tokenizer is built."""

from typing import Any

from florence_mm.registry import TASK_UTILS

from .transformers_files import folder_or_name, unusable
from .transformers_tokenizer import TransformersTextTokenizer


def tokenizer_of_bytes() -> Any:
    """Make transformers' tokenizer whose tokens are RoBERTa's special ones and the single bytes."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import RobertaTokenizer

    tokens = ['<s>', '<pad>', '</s>', '<unk>', '<mask>', *sorted(ByteLevel.alphabet())]
    return RobertaTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[])


@TASK_UTILS.register_module()
class RobertaTextTokenizer(TransformersTextTokenizer):
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
            tokenizer = tokenizer_of_bytes()
        else:
            source = folder_or_name('tokenizer', pretrained)
            try:
                tokenizer = RobertaTokenizer.from_pretrained(**source)
            except (OSError, ValueError) as error:
                raise unusable('tokenizer', pretrained, error) from None
        super().__init__(tokenizer, 'bos', 'eos', pretrained, 'RoBERTa', 'vocab.json and merges.txt')
        if not tokenizer.added_tokens_decoder[tokenizer.mask_token_id].lstrip:
            # RoBERTa's mask includes the space before it; vocab.json and merges.txt alone do not tell
            mask = AddedToken(str(tokenizer.mask_token), lstrip=True, special=True, normalized=False)
            tokenizer.add_special_tokens({'mask_token': mask})

    def begins_word(self, token: str) -> bool:
        """Whether a token begins a word: byte-level vocabularies write a space as 'Ġ'."""
        return token.startswith('Ġ')
