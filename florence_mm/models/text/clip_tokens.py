"""The text tower of CLIP and UniCL as a source of token features, for fusion models.

The tower's weights load as they are: the mask token, which CLIP does not know, is one row beside its vocabulary.

Shape legend: ``B`` texts, ``T`` tokens of the longest text, ``C`` channels, ``V`` ids of the tower.
"""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from florence_mm.registry import MODELS, TASK_UTILS

from .clip_text import CLIPTextTower
from .token_layout import TokenLayout
from .tokenizer import CLIPTokenizer
from .tokens import CutCounter, TokenBatch, check_texts, pad_ids

MASK = '<mask>'


@MODELS.register_module()
class CLIPTokenEncoder(BaseModule):
    """A feature for each token.

    Args:
        tower: a :class:`CLIPTextTower` (or its config).
        init_cfg: see mmengine.

    Attributes:
        embed_dims (int): C.
        context_length (int): longest text in tokens.
        vocab_size (int): V + 1, the mask token included.
    """

    def __init__(self, tower: dict | CLIPTextTower, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.tower = MODELS.build({'type': 'CLIPTextTower', **tower}) if isinstance(tower, dict) else tower
        self.embed_dims = self.tower.embed_dims
        self.context_length = self.tower.context_length
        self.vocab_size = self.tower.vocab_size + 1
        self.mask_embedding = nn.Parameter(torch.empty(self.embed_dims))
        nn.init.normal_(self.mask_embedding, std=0.02)

    def forward(self, input_ids: Tensor, mask: Tensor, causal: bool = False) -> Tensor:
        """Encode texts.

        Args:
            input_ids: ``(B, T)`` int64, best on the CPU. V stands for the mask token.
            mask: ``(B, T)`` bool, True where a token is real; padding behind the tokens.
            causal: each token sees itself and those before it; a tower that was built causal is so anyway.

        Returns:
            ``(B, T, C)``, zeros where no token is.

        Raises:
            ValueError: more tokens than the tower has positions.
        """
        if input_ids.shape[1] > self.context_length:
            raise ValueError(
                f'texts have {input_ids.shape[1]} tokens and the text tower takes {self.context_length}; lower '
                'max_text_len of the model or raise context_length of the tower'
            )
        layout = TokenLayout.of(mask, causal or self.tower.causal, self.mask_embedding.device)
        input_ids = input_ids.to(self.mask_embedding.device, non_blocking=True)
        masked = input_ids == self.tower.vocab_size  # (B, T)
        x = self.tower.token_embedding(input_ids.masked_fill(masked, 0))  # (B, T, C)
        # always through the mask's row, so that it has a gradient, if of zeros, on every process
        x = torch.where(masked[..., None], self.mask_embedding.to(x.dtype), x)
        return layout.pad(self.tower.ln_final(self.tower.encode(x, layout)))


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
        check_texts(texts, max_length)
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
