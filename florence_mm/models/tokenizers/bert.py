"""BERT's WordPiece tokenizer, by transformers, which is imported when a tokenizer is built."""

import string
from collections.abc import Sequence
from typing import Literal

from florence_mm.registry import TASK_UTILS

from .protocol import TokenBatch, check_text_list
from .transformers_files import folder_or_name, unusable
from .transformers_tokenizer import TransformersTextTokenizer

_SPECIAL = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]')
_MASK = '<mask>'  # as texts for FusionMLMHead write it, whatever the vocabulary calls it


@TASK_UTILS.register_module()
class BertTextTokenizer(TransformersTextTokenizer):
    """BERT's WordPiece tokenizer, by transformers; ``[CLS]`` is the start token and ``[SEP]`` the end token.

    ``<mask>`` in a text is the mask token, as for the other tokenizers.

    Args:
        pretrained: a folder with ``vocab.txt`` or ``tokenizer.json``, or a model name on the Hugging Face hub, such as
            ``bert-base-uncased`` (30,522 ids); None: no files, and each lower-case letter, digit and punctuation mark
            of ASCII is a token (109 ids).
        extra_tokens: special tokens that are appended to the vocabulary unless it has them, such as BLIP's
            ``('[DEC]', '[ENC]')``, which become 30522 and 30523.
        keep: which of its tokens a too long text keeps: ``'start'``, or ``'end'``, as in GIT.

    Attributes:
        extra_token_ids (dict[str, int]): id of each of ``extra_tokens``.
        num_truncated (int): number of truncated texts so far; the first ones log a warning.

    Raises:
        FileNotFoundError: ``pretrained`` looks like a folder that does not exist.
        ValueError: ``pretrained`` has no tokenizer, or one without BERT's special tokens; an extra token is a word of
            the vocabulary or no token; ``keep`` is neither of the two.

    >>> from florence_mm.models.tokenizers import BertTextTokenizer
    >>> tokenizer = BertTextTokenizer(extra_tokens=('[DEC]', '[ENC]'))
    >>> tokenizer.decode(tokenizer(['Two dogs'], max_length=10).input_ids[0]), tokenizer.extra_token_ids
    ('two dogs', {'[DEC]': 109, '[ENC]': 110})
    """

    def __init__(
        self,
        pretrained: str | None = None,
        extra_tokens: Sequence[str] = (),
        keep: Literal['start', 'end'] = 'start',
    ) -> None:
        from transformers import AddedToken, BertTokenizer

        if keep not in ('start', 'end'):
            raise ValueError(f"keep of BertTextTokenizer is {keep!r}; give 'start' or 'end', what a long text keeps")
        extra = [] if isinstance(extra_tokens, str) else list(extra_tokens)
        right = all(isinstance(token, str) and token.strip() == token != '' for token in extra)
        if isinstance(extra_tokens, str) or not right or len(set(extra)) < len(extra):
            raise ValueError(
                f'extra_tokens of BertTextTokenizer is {extra_tokens!r}; give a list of different tokens without '
                "spaces around them, such as ['[DEC]', '[ENC]']"
            )
        if pretrained is None:
            letters = string.ascii_lowercase + string.digits
            tokens = [*_SPECIAL, *letters, *string.punctuation, *(f'##{letter}' for letter in letters)]
            tokenizer = BertTokenizer(vocab={token: i for i, token in enumerate(tokens)})
        else:
            source = folder_or_name('tokenizer', pretrained)
            try:
                tokenizer = BertTokenizer.from_pretrained(**source)
            except (OSError, ValueError) as error:
                raise unusable('tokenizer', pretrained, error) from None
        known = tokenizer.get_vocab()
        words = [token for token in extra if token in known and known[token] not in tokenizer.added_tokens_decoder]
        if words:
            raise ValueError(
                f'extra_tokens of BertTextTokenizer names {words[0]!r}, which is a word of the vocabulary; give tokens '
                "that no text contains, such as '[DEC]'"
            )
        # before its size is read
        tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in extra])
        super().__init__(tokenizer, 'cls', 'sep', pretrained, 'BERT', 'vocab.txt', keep)
        self.extra_token_ids = {token: tokenizer.convert_tokens_to_ids(token) for token in extra}
        self.special_ids |= frozenset(self.extra_token_ids.values())

    def __call__(self, texts: Sequence[str], max_length: int) -> TokenBatch:
        """Tokenize texts, see :class:`TransformersTextTokenizer`; ``<mask>`` is the mask token."""
        check_text_list(texts, max_length)
        mask = str(self._tokenizer.mask_token)
        return super().__call__([text.replace(_MASK, mask) for text in texts], max_length)

    def begins_word(self, token: str) -> bool:
        """Whether a token begins a word: WordPiece writes '##' before what goes on."""
        return not token.startswith('##')
