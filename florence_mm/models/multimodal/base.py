"""What models over images and texts share: a tokenizer, heads, and what is asked of them.

Shape legend: ``U`` images, ``B`` samples, ``S`` image tokens, ``C`` hidden size, ``P`` pairs of an image and a text.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.model import ModuleDict
from torch import Tensor, nn

from florence_mm.config.signatures import accepted_arguments
from florence_mm.models.base import FlorenceModel, build_part
from florence_mm.models.tokenizers.protocol import TextTokenizer, TokenBatch
from florence_mm.registry import MODELS, TASK_UTILS

from .batch import FusionBatch
from .protocol import Answered, Fused, Written

_AT_ONCE = 64  # pairs of an image and a text that go through the model together


class VisionLanguageModel(FlorenceModel):
    """Base of a family: a subclass has the methods of :mod:`~florence_mm.models.multimodal.protocol` that it can serve.

    Its constructor calls this one, makes its parts, and calls :meth:`add_heads` last.

    Args:
        tokenizer: a :class:`~florence_mm.models.tokenizers.protocol.TextTokenizer` or its config.
        hidden_size: C, the width of tokens.
        max_text_len: longest text in tokens, start and end included.
        data_preprocessor: see :class:`~florence_mm.models.base.FlorenceModel`.
        init_cfg: see mmengine.
    """

    def __init__(
        self,
        tokenizer: dict | TextTokenizer,
        hidden_size: int,
        max_text_len: int,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.tokenizer = build_part(tokenizer, TASK_UTILS)
        self.hidden_size = hidden_size
        self.pooled_size = 2 * hidden_size
        self.max_text_len = max_text_len

    def add_heads(self, heads: Mapping[str, dict | nn.Module] | None, init_std: float = 0.02) -> None:
        """Build the heads.

        Args:
            heads: heads by name, or their configs. ``hidden_size``, ``pooled_size``, ``vocab_size`` and ``init_std``
                are given to those that take them and do not have them in their config.
            init_std: standard deviation of the heads' first weights.

        Raises:
            ValueError: no config of a head, or a head that needs what the model lacks or has fewer words than the
                tokenizer.
        """
        given = {
            'hidden_size': self.hidden_size,
            'pooled_size': self.pooled_size,
            'vocab_size': self.tokenizer.vocab_size,
            'init_std': init_std,
        }
        self.heads = ModuleDict({name: _build_head(name, head, given) for name, head in (heads or {}).items()})
        for name, head in self.heads.items():
            needs = getattr(head, 'needs', None)
            if needs is not None and not isinstance(self, needs):
                raise ValueError(
                    f'the head {name!r} ({type(head).__name__}) needs a {needs.__name__.lower()}, which '
                    f'{type(self).__name__} is not; give it another head'
                )
            # a larger one is padded: what lies beyond the tokenizer's ids is no target and is never written
            if getattr(head, 'vocab_size', self.tokenizer.vocab_size) < self.tokenizer.vocab_size:
                raise ValueError(
                    f'vocab_size of the head {name!r} is {head.vocab_size} and the tokenizer has '
                    f'{self.tokenizer.vocab_size} ids; the head needs as many'
                )

    # --- one batch ----------------------------------------------------------------------------------------------------

    def make_batch(
        self,
        inputs: Tensor | None,
        samples: Sequence[Any],
        image_of: Sequence[int] | None = None,
        image_tokens: Tensor | None = None,
    ) -> FusionBatch:
        """The batch that heads get, see :class:`~florence_mm.models.multimodal.batch.FusionBatch`."""
        return FusionBatch(self, inputs, samples, image_of, image_tokens)

    def tensor(self, inputs: Tensor, data_samples: Sequence[Any] | None = None) -> Tensor | Fused:
        """Tokens of one preprocessed batch.

        Args:
            inputs: ``(B, 3, H, W)``.
            data_samples: None, or one an image, with ``text``.

        Returns:
            Image tokens ``(B, S, C)``, with samples the fused pairs.
        """
        return self.encode_image(inputs) if data_samples is None else self.make_batch(inputs, data_samples).fused

    def loss(self, inputs: Tensor, data_samples: Sequence[Any]) -> dict[str, Tensor]:
        """Losses of all heads, which mmengine adds up, and what they log beside.

        Args:
            inputs: ``(B, 3, H, W)``, preprocessed. Equal images are encoded once.
            data_samples: B samples with what the heads need.

        Returns:
            ``loss_itm``, ``loss_mlm``, ``loss_vqa`` and so on, by head, with ``acc_*``.

        Raises:
            ValueError: no heads, no samples, or a sample that lacks a field.
        """
        kind = type(self).__name__
        if not len(self.heads):
            raise ValueError(f'{kind} has no heads and nothing to train; name heads in its config')
        if not data_samples:
            raise ValueError(f'{kind} got images without data_samples and cannot train on them')
        batch = self.make_batch(inputs, data_samples)
        losses: dict[str, Tensor] = {}
        for head in self.heads.values():
            losses.update(head.loss(batch))
        return losses

    @torch.no_grad()
    def predict(self, inputs: Tensor, data_samples: Sequence[Any]) -> list:
        """What every head says of each sample.

        Args:
            inputs: ``(B, 3, H, W)``, preprocessed. Equal images are encoded once.
            data_samples: B samples.

        Returns:
            The samples with the fields that the heads fill.
        """
        batch = self.make_batch(inputs, data_samples)
        for head in self.heads.values():
            head.predict(batch)
        return batch.samples

    # --- texts --------------------------------------------------------------------------------------------------------

    def tokenize(self, texts: Sequence[str]) -> TokenBatch:
        """Texts as ids, each cut to ``max_text_len``."""
        return self.tokenizer(texts, self.max_text_len)

    def encode_text(self, texts: Sequence[str]) -> tuple[TokenBatch, Tensor]:
        """B texts to their ids and tokens ``(B, T, C)``."""
        tokens = self.tokenize(texts)
        return tokens, self.encode_tokens(tokens)

    def first_ids(self, rows: int, prompts: TokenBatch | None) -> Tensor:
        """What texts follow, ``(rows, P)``: their prompts without end token, or the start token."""
        if prompts is None:
            return torch.full((rows, 1), self.tokenizer.start_token_id)
        return prompts.input_ids[:, :-1]

    # --- what is asked ------------------------------------------------------------------------------------------------

    def head_that(self, verb: str) -> nn.Module:
        """The first head that has a method of a name: ``'answer'``, ``'match_logit'`` or ``'write'``.

        Raises:
            ValueError: no head has it.
        """
        for head in self.heads.values():
            if hasattr(head, verb):
                return head
        can = {
            'answer': 'answers questions',
            'match_logit': 'matches images and sentences',
            'write': 'writes captions',
        }
        examples = {'answer': 'FusionVQAHead', 'match_logit': 'FusionITMHead', 'write': 'FusionCaptionHead'}
        raise ValueError(
            f'the model has no head that {can[verb]}, it has {", ".join(self.heads) or "none"}; name one in its '
            f'config, such as {examples[verb]}'
        )

    def require(self, answers: bool = False, matches: bool = False, writes: bool = False) -> None:
        """Raise where the model cannot do what will be asked of it.

        Raises:
            ValueError: no head can.
        """
        for verb, wanted in (('answer', answers), ('match_logit', matches), ('write', writes)):
            if wanted:
                self.head_that(verb)

    def learn_data(self, dataset_meta: Mapping[str, Any]) -> None:
        """Take over what heads need to know of the data that the weights were trained on, such as the answers.

        Raises:
            ValueError: it is not the data that a head is made for.
        """
        for head in self.heads.values():
            if hasattr(head, 'learn_data'):
                head.learn_data(dataset_meta)

    def answer_names(self) -> list[str]:
        """The answers that a head chooses among, by their labels; empty where none does."""
        choosers = [head for head in self.heads.values() if hasattr(head, 'answer_names')]
        return choosers[0].answer_names() if choosers else []

    @torch.no_grad()
    def answer(
        self, image_tokens: Tensor, questions: Sequence[str], pairs: Sequence[tuple[int, int]], top: int = 1
    ) -> list[Answered]:
        """Answer questions about images.

        Args:
            image_tokens: ``(U, S, C)`` of :meth:`encode_image`.
            questions: texts.
            pairs: P places of an image and of a question.
            top: how many answers are reported, at most.

        Raises:
            ValueError: the model has no head that answers.
        """
        head = self.head_that('answer')
        answered = [head.answer(batch, top) for batch in self._batches(image_tokens, questions, pairs)]
        return [one for part in answered for one in part]

    @torch.no_grad()
    def match(
        self, image_tokens: Tensor, sentences: Sequence[str], pairs: Sequence[tuple[int, int]], at_once: int = _AT_ONCE
    ) -> Tensor:
        """Match scores of chosen images and sentences.

        Args:
            image_tokens: ``(U, S, C)`` of :meth:`encode_image`.
            sentences: texts.
            pairs: P places of an image and of a sentence.
            at_once: pairs that are fused together.

        Returns:
            ``(P,)``, on the CPU: the logarithm of the odds that image and sentence match. Probabilities would be
            equal, 1, for all good pairs in fp32.

        Raises:
            ValueError: the model has no head that matches.
        """
        head = self.head_that('match_logit')
        scores = [head.match_logit(b.fused).cpu() for b in self._batches(image_tokens, sentences, pairs, at_once)]
        return torch.cat(scores) if scores else torch.zeros(0)

    @torch.no_grad()
    def write(self, image_tokens: Tensor, prompts: Sequence[str] | None = None) -> list[Written]:
        """Write a text about each image.

        Args:
            image_tokens: ``(U, S, C)`` of :meth:`encode_image`.
            prompts: U texts that come before them; None: the head's own, or none.

        Raises:
            ValueError: the model has no head that writes.
        """
        return self.head_that('write').write(self, image_tokens, prompts)

    def _batches(
        self,
        image_tokens: Tensor,
        texts: Sequence[str],
        pairs: Sequence[tuple[int, int]],
        at_once: int = _AT_ONCE,
    ) -> Iterator[FusionBatch]:
        """Batches of so many pairs of an image, encoded already, and a text."""
        from mmpretrain.structures import DataSample

        if isinstance(texts, str):  # its letters would be asked
            raise TypeError(f'the model takes a list of texts and got one text, {texts!r}; put it into a list')
        for start in range(0, len(pairs), at_once):
            part = pairs[start : start + at_once]
            samples = [DataSample(text=texts[text]) for _, text in part]
            yield self.make_batch(None, samples, [image for image, _ in part], image_tokens)


def _build_head(name: str, head: dict | nn.Module, given: Mapping[str, Any]) -> nn.Module:
    """Build a head's config, with those of ``given`` that its constructor takes and the config does not have."""
    if isinstance(head, nn.Module):
        return head
    if not isinstance(head, Mapping) or 'type' not in head:
        shown = dict(head) if isinstance(head, Mapping) else head
        raise ValueError(
            f'the head {name!r} is {shown!r}, which has no `type`; name one, such as FusionVQAHead, or leave it out'
        )
    kind = MODELS.get(head['type']) if isinstance(head['type'], str) else head['type']
    # a head of a user's may hand **kwargs to the head that it extends
    takes = accepted_arguments(kind) or inspect.signature(kind).parameters if kind is not None else {}
    return MODELS.build({**{key: value for key, value in given.items() if key in takes}, **head})
