"""RoBERTa (arXiv 1907.11692), the text encoder of Florence's METER (arXiv 2111.11432, section 2.5).

The network and the tokenizer are transformers', which is imported when one of them is built and not before.

Shape legend: ``B`` texts, ``T`` tokens of the longest text, ``C`` channels.
"""

import socket
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor

from florence_mm.registry import MODELS, TASK_UTILS

from .tokens import CutCounter, TokenBatch, check_texts, pad_ids


def _folder_or_name(what: str, pretrained: str) -> dict[str, Any]:
    """Arguments of ``from_pretrained``: a folder is read without asking the hub.

    Raises:
        FileNotFoundError: it looks like a folder, but is none.
    """
    if Path(pretrained).is_dir():
        return {'pretrained_model_name_or_path': str(pretrained), 'local_files_only': True}
    if pretrained.startswith(('.', '/', '~')) or pretrained.count('/') > 1 or pretrained.endswith('/'):
        raise FileNotFoundError(
            f'the folder {pretrained} of the {what} does not exist; give a folder that transformers saved, or the name '
            'of a model on the Hugging Face hub'
        )
    return {'pretrained_model_name_or_path': pretrained, 'local_files_only': not _hub_answers()}


def _hub_answers() -> bool:
    """Whether the hub can be reached; without it transformers would try for minutes what its cache may hold."""
    from huggingface_hub.constants import ENDPOINT

    if urllib.request.getproxies():
        return True  # only a request could tell
    url = urllib.parse.urlsplit(ENDPOINT)
    try:
        socket.create_connection((url.hostname, url.port or 443), timeout=5).close()
    except OSError:
        return False
    return True


def _unusable(what: str, pretrained: str, error: Exception) -> ValueError:
    reason = str(error).strip().splitlines()[0].rstrip('.') if str(error).strip() else type(error).__name__
    return ValueError(
        f'no {what} could be read from {pretrained!r} ({reason}); give a folder that transformers saved, or a name on '
        'the Hugging Face hub with a connection to it'
    )


@MODELS.register_module()
class RobertaTextEncoder(BaseModule):
    """A feature for each token, by transformers' ``RobertaModel`` without its pooler.

    Args:
        pretrained: a folder that transformers saved, or a name on the Hugging Face hub (``'roberta-base'``).
        config: arguments of transformers' ``RobertaConfig``, for random weights; with ``pretrained`` they replace
            what is saved there (dropout, say).
        with_cp: recompute each layer in the backward pass instead of keeping its activations.
        init_cfg: see mmengine; ``florence_mm.Pretrained`` reads RoBERTa's state dicts, with
            ``prefix='text_encoder.'``.

    Attributes:
        embed_dims (int): C.
        context_length (int): longest text in tokens.
        vocab_size (int): number of ids.

    Raises:
        FileNotFoundError: ``pretrained`` looks like a folder, but is none.
        ValueError: neither argument, an unknown key in ``config``, or nothing usable under ``pretrained``.
    """

    def __init__(
        self,
        pretrained: str | None = None,
        config: Mapping[str, Any] | None = None,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if pretrained is None and config is None:
            raise ValueError(
                'RobertaTextEncoder got neither pretrained nor config; give a folder or a name on the hub, or '
                'config=dict(...) for random weights (an empty one is RoBERTa-base)'
            )
        from transformers import RobertaConfig, RobertaModel

        config = dict(config or {})
        # what RoBERTa's releases say, and RobertaConfig's defaults do not
        released = {'max_position_embeddings': 514, 'type_vocab_size': 1, 'layer_norm_eps': 1e-5}
        known = RobertaConfig().to_dict()
        for key in config:
            if key not in known:
                raise ValueError(f'config of RobertaTextEncoder has {key!r}, which is no argument of RobertaConfig')
        if pretrained is None:
            self.model = RobertaModel(RobertaConfig(**released | config), add_pooling_layer=False)
        else:
            source = _folder_or_name('text encoder', pretrained)
            try:
                self.model = RobertaModel.from_pretrained(**source, **config, add_pooling_layer=False)
            except (OSError, ValueError) as error:
                raise _unusable('RoBERTa', pretrained, error) from None
        if with_cp:
            self.model.gradient_checkpointing_enable({'use_reentrant': False})
        config = self.model.config
        self.embed_dims = config.hidden_size
        self.vocab_size = config.vocab_size
        self.pad_token_id = config.pad_token_id
        # positions are counted from the padding's id on
        self.context_length = config.max_position_embeddings - config.pad_token_id - 1

    def forward(self, input_ids: Tensor, mask: Tensor, causal: bool = False) -> Tensor:
        """Encode texts.

        Args:
            input_ids: ``(B, T)`` int64.
            mask: ``(B, T)`` bool, True where a token is real; padding behind the tokens.
            causal: each token sees itself and those before it.

        Returns:
            ``(B, T, C)``; what stands where no token is has no meaning.

        Raises:
            ValueError: more tokens than the model has positions.
        """
        if input_ids.shape[1] > self.context_length:
            raise ValueError(
                f'texts have {input_ids.shape[1]} tokens and RoBERTa takes {self.context_length}; lower max_text_len '
                'of the model'
            )
        device = self.model.embeddings.word_embeddings.weight.device
        # RoBERTa counts positions over ids other than the padding's
        input_ids = input_ids.masked_fill(~mask, self.pad_token_id).to(device, non_blocking=True)
        if causal:
            # as padding lies behind the tokens, looking back hides it too: one mask serves all texts
            steps = torch.arange(input_ids.shape[1], device=device)
            dtype = self.model.dtype
            attention_mask = torch.zeros(1, 1, len(steps), len(steps), dtype=dtype, device=device)
            attention_mask = attention_mask.masked_fill(steps > steps[:, None], torch.finfo(dtype).min)
        else:
            attention_mask = None if bool(mask.all()) else mask.to(device, non_blocking=True)
        return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


@TASK_UTILS.register_module()
class RobertaTextTokenizer:
    """RoBERTa's byte-level tokens, by transformers' tokenizer.

    Args:
        pretrained: a folder with ``vocab.json`` and ``merges.txt`` or ``tokenizer.json``, or a name on the Hugging
            Face hub; None: no merges, so that each byte is a token (261 ids), which needs no file.

    Attributes:
        num_truncated (int): texts cut so far; the first call that cuts logs a warning.

    Raises:
        FileNotFoundError: ``pretrained`` looks like a folder, but is none.
        ValueError: no tokenizer there, or one without the tokens of RoBERTa.
    """

    def __init__(self, pretrained: str | None = None) -> None:
        from transformers import RobertaTokenizer

        if pretrained is None:
            from tokenizers.pre_tokenizers import ByteLevel

            tokens = ['<s>', '<pad>', '</s>', '<unk>', '<mask>', *sorted(ByteLevel.alphabet())]
            self._tokenizer = RobertaTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[])
        else:
            source = _folder_or_name('tokenizer', pretrained)
            try:
                self._tokenizer = RobertaTokenizer.from_pretrained(**source)
            except (OSError, ValueError) as error:
                raise _unusable('tokenizer', pretrained, error) from None
        names = ('bos', 'eos', 'pad', 'mask')
        ids = [getattr(self._tokenizer, f'{name}_token_id') for name in names]
        unknown = self._tokenizer.unk_token_id
        lacking = [name for name, i in zip(names, ids, strict=True) if i is None or i == unknown]
        if lacking:
            raise ValueError(
                f"the tokenizer in {pretrained!r} has no {', '.join(lacking)} token; give a tokenizer of RoBERTa's kind"
            )
        self.start_token_id, self.end_token_id, self.pad_token_id, self.mask_token_id = ids
        self.vocab_size = len(self._tokenizer)
        self.special_ids = frozenset(self._tokenizer.all_special_ids)
        if self.vocab_size <= len(self.special_ids):
            # transformers makes an empty one where it finds no file
            raise ValueError(
                f'{pretrained!r} holds no vocabulary; a tokenizer needs vocab.json and merges.txt, or tokenizer.json'
            )
        self._cuts = CutCounter()

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
        check_texts(texts, max_length)
        rows = self._tokenizer(list(texts), add_special_tokens=False)['input_ids']
        cut = sum(len(row) > max_length - 2 for row in rows)
        self._cuts.add(cut, len(rows), max_length)
        rows = [[self.start_token_id, *row[: max_length - 2], self.end_token_id] for row in rows]
        return pad_ids(rows, self.pad_token_id)

    def word_starts(self, input_ids: Tensor) -> Tensor:
        """``(B, T)`` bool: whether a token begins a word (its first byte is a space); special tokens do."""
        special = torch.isin(input_ids, torch.tensor(sorted(self.special_ids)))  # (B, T)
        tokens = self._tokenizer.convert_ids_to_tokens(input_ids.flatten().tolist())
        # 'Ġ' is how byte-level vocabularies write a space
        starts = torch.tensor([token.startswith('Ġ') for token in tokens]).view(input_ids.shape) | special
        starts[:, 0] = True
        starts[:, 1:] |= special[:, :-1]  # the first word of a text has no space before it
        return starts

    def decode(self, input_ids: Sequence[int] | Tensor) -> str:
        """The text of ids, special tokens left out."""
        return self._tokenizer.decode([int(i) for i in input_ids], skip_special_tokens=True).strip()
