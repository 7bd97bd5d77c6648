"""Tokenizers of language models, by transformers, which is imported when a tokenizer is built."""

from florence_mm.registry import TASK_UTILS

from .roberta import tokenizer_of_bytes
from .transformers_files import folder_or_name, unusable
from .transformers_tokenizer import TransformersTextTokenizer

#: What vocabularies write before a token that begins a word: of bytes, and of SentencePiece.
_BEGINNINGS = ('Ġ', '▁')


@TASK_UTILS.register_module()
class LanguageModelTokenizer(TransformersTextTokenizer):
    """Tokenizer of a language model, any of transformers'.

    A text begins with the model's start token, or with that of padding if it has none, with which the decoder of T5
    starts. ``<mask>`` is appended to vocabularies without mask token, as other tokenizers have one.

    Args:
        pretrained: a folder that transformers saved, or a model name on the Hugging Face hub, such as
            ``facebook/opt-2.7b``; None: no files, and each byte is a token (261 ids).
        end: text that ends a text, of one token, as the line break after which BLIP-2 with OPT stops; None: the model's
            end token.

    Attributes:
        num_truncated (int): number of truncated texts so far; the first ones log a warning.

    Raises:
        FileNotFoundError: ``pretrained`` looks like a folder that does not exist.
        ValueError: ``pretrained`` has no tokenizer, or one without start and end, or ``end`` is not one token.

    >>> from florence_mm.models.tokenizers import LanguageModelTokenizer
    >>> tokenizer = LanguageModelTokenizer(end='\\n')
    >>> ids = tokenizer(['two dogs'], max_length=10).input_ids[0]
    >>> tokenizer.decode(ids[:-1]), int(ids[-1]) == tokenizer.end_token_id
    ('two dogs', True)
    """

    def __init__(self, pretrained: str | None = None, end: str | None = None) -> None:
        if pretrained is None:
            tokenizer = tokenizer_of_bytes()
        else:
            from transformers import AutoTokenizer

            source = folder_or_name('tokenizer', pretrained)
            try:
                tokenizer = AutoTokenizer.from_pretrained(**source)
            except (OSError, ValueError) as error:
                raise unusable('tokenizer', pretrained, error) from None
        if tokenizer.mask_token is None:
            tokenizer.add_special_tokens({'mask_token': '<mask>'})
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        start = 'pad' if tokenizer.bos_token is None else 'bos'
        super().__init__(tokenizer, start, 'eos', pretrained, 'a language model', 'tokenizer.json')
        if end is not None:
            ids = tokenizer(end, add_special_tokens=False)['input_ids']
            if len(ids) != 1:
                raise ValueError(
                    f'end of LanguageModelTokenizer is {end!r}, which is {len(ids)} tokens; give a text of one token, '
                    "such as '\\n', or leave it out for the end token of the model"
                )
            self.end_token_id = ids[0]
        self.special_ids |= {self.start_token_id, self.end_token_id, self.mask_token_id}

    def begins_word(self, token: str) -> bool:
        """Whether a token begins a word."""
        return token.startswith(_BEGINNINGS)
