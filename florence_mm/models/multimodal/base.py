"""Base class of vision-language models: tokenizer, heads, batches, and inference by the heads.

Shape legend: ``U`` images, ``B`` samples, ``S`` image tokens, ``C`` hidden size, ``P`` image-text pairs.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from florence_mm.models.base import FlorenceModel, build_part
from florence_mm.models.generation.nucleus import RandomSource
from florence_mm.models.protocol import WholeBatchLoss
from florence_mm.models.tokenizers.protocol import TextTokenizer, TokenBatch
from florence_mm.registry import TASK_UTILS

from .batch import FusionBatch
from .head_building import METHODS, build_heads
from .protocol import Answered, Fused, Solved, TaskQuestion, Written
from .teaching import teach_after_prompts

_PAIRS_AT_ONCE = 64  # image-text pairs that are fused together


class VisionLanguageModel(FlorenceModel):
    """Base class of a model family, which implements methods of :mod:`~florence_mm.models.multimodal.protocol`.

    The constructor of a subclass calls this one, builds its parts, and calls :meth:`add_heads` last.

    Args:
        tokenizer: a :class:`~florence_mm.models.tokenizers.protocol.TextTokenizer` or its config.
        hidden_size: C.
        max_text_len: longest text in tokens, start and end included.
        data_preprocessor: see :class:`~florence_mm.models.base.FlorenceModel`.
        init_cfg: see mmengine.

    Attributes:
        needs_pictures (bool): every sample must have an image; families for which it is False also train on texts.
        prompts_apart (bool): prompts are read apart from the texts that follow them, and may differ in length.
        gives_logits (bool): the states of a writer are logits already, C is the number of its words, and heads that
            write have no layers of their own.
    """

    needs_pictures = True
    prompts_apart = False
    gives_logits = False

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
        self.image_dims = hidden_size
        self.max_text_len = max_text_len

    def add_heads(self, heads: Mapping[str, dict | nn.Module] | None, init_std: float = 0.02) -> None:
        """Build the heads.

        Args:
            heads: heads (or their configs) by name. A head that takes ``hidden_size``, ``pooled_size``,
                ``image_dims``, ``vocab_size`` or ``init_std`` gets them from the model, unless its config has them.
            init_std: standard deviation of the initial weights of heads.

        Raises:
            ValueError: a head is no config, the model lacks methods that a head needs, a head has fewer outputs than
                the tokenizer ids, or two heads do the same, such as answering.
        """
        self.heads = build_heads(self, heads or {}, init_std)

    def init_weights(self) -> None:
        """Initialise, or load what ``init_cfg`` names; heads that count training steps begin anew."""
        super().init_weights()
        for head in self.heads.values():
            if hasattr(head, 'restart'):
                head.restart()

    def whole_batch_advice(self) -> str | None:
        """Advice of the first head whose loss compares the samples of a batch, see ``WholeBatchLoss``."""
        advice = (head.whole_batch_advice() for head in self.heads.values() if isinstance(head, WholeBatchLoss))
        return next((text for text in advice if text), None)

    # --- one batch ----------------------------------------------------------------------------------------------------

    def make_batch(
        self,
        inputs: Tensor | None,
        samples: Sequence[Any],
        image_of: Sequence[int] | None = None,
        image_tokens: Tensor | None = None,
    ) -> FusionBatch:
        """Make the batch that heads get, see :class:`~florence_mm.models.multimodal.batch.FusionBatch`."""
        return FusionBatch(self, inputs, samples, image_of, image_tokens)

    def tensor(self, inputs: Tensor, data_samples: Sequence[Any] | None = None) -> Tensor | Fused:
        """Encode one preprocessed batch, and fuse it if texts are given.

        Args:
            inputs: ``(B, 3, H, W)``.
            data_samples: None, or one per image, with ``text``.

        Returns:
            Image tokens ``(B, S, C)``; with samples the fused pairs.
        """
        return self.encode_image(inputs) if data_samples is None else self.make_batch(inputs, data_samples).fused

    def loss(self, inputs: Tensor, data_samples: Sequence[Any]) -> dict[str, Tensor]:
        """Compute the losses of all heads, which mmengine sums, and values for the log.

        Args:
            inputs: ``(B, 3, H, W)``, preprocessed. Equal images are encoded once.
            data_samples: B samples with the fields that the heads need.

        Returns:
            ``loss_itm``, ``loss_mlm``, ``loss_vqa`` and so on, and ``acc_*``.

        Raises:
            ValueError: there are no heads or no samples, or a sample lacks a field.
        """
        kind = type(self).__name__
        if not len(self.heads):
            raise ValueError(f'{kind} has no heads and nothing to train; name heads in its config')
        if not data_samples:
            raise ValueError(f'{kind} got images without data_samples and cannot train on them')
        batch = self.make_batch(inputs, data_samples)
        losses: dict[str, Tensor] = {}
        for head in self.heads_of_step():
            losses.update(head.loss(batch))
        return losses

    def heads_of_step(self) -> list[nn.Module]:
        """Return the heads that are trained in one step: here all."""
        return list(self.heads.values())

    @torch.no_grad()
    def predict(self, inputs: Tensor, data_samples: Sequence[Any]) -> list:
        """Predict with all heads.

        Args:
            inputs: ``(B, 3, H, W)``, preprocessed. Equal images are encoded once.
            data_samples: B samples.

        Returns:
            The samples with the fields that the heads set.
        """
        batch = self.make_batch(inputs, data_samples)
        for head in self.heads.values():
            head.predict(batch)
        return batch.samples

    # --- texts --------------------------------------------------------------------------------------------------------

    def tokenize(self, texts: Sequence[str]) -> TokenBatch:
        """Convert texts to ids, truncated to ``max_text_len``."""
        return self.tokenizer(texts, self.max_text_len)

    def tokenize_prompts(self, prompts: Sequence[str]) -> TokenBatch:
        """Convert prompts to ids; here they are as long as texts may be."""
        return self.tokenize(prompts)

    def encode_text(self, texts: Sequence[str]) -> tuple[TokenBatch, Tensor]:
        """Convert B texts to ids, and encode them to ``(B, T, C)``."""
        tokens = self.tokenize(texts)
        return tokens, self.encode_tokens(tokens)

    def first_ids(self, rows: int, prompts: TokenBatch | None) -> Tensor:
        """Return the ids given at the start, ``(rows, P)``: the prompts without end token, or the start token."""
        if prompts is None:
            return torch.full((rows, 1), self.tokenizer.start_token_id)
        return prompts.input_ids[:, :-1]

    def teach(
        self, image_tokens: Tensor, image_of: Sequence[int], prompts: TokenBatch | None, texts: TokenBatch
    ) -> Tensor:
        """Compute the hidden states ``(B, T - 1, C)`` that predict whole texts, see the protocol's ``Writer.teach``.

        Here a prompt is the beginning of its text; a family that encodes prompts separately has a method of its own.
        """
        return teach_after_prompts(self, image_tokens, image_of, prompts, texts)

    # --- what is asked ------------------------------------------------------------------------------------------------

    def find_head(self, method: str) -> nn.Module:
        """Return the first head that has one of the methods of :data:`~.head_building.METHODS`, such as ``'answer'``.

        Raises:
            ValueError: no head has it.
        """
        for head in self.heads.values():
            if hasattr(head, method):
                return head
        does, example = METHODS[method]
        raise ValueError(
            f'the model has no head that {does}, it has {", ".join(self.heads) or "none"}; name one in its config, '
            f'such as {example}'
        )

    def require(self, answers: bool = False, matches: bool = False, writes: bool = False, solves: bool = False) -> None:
        """Check that heads of the model can answer questions, match sentences, write texts or solve tasks.

        Raises:
            ValueError: no head has the method.
        """
        for method, wanted in zip(METHODS, (answers, matches, writes, solves), strict=False):
            if wanted:
                self.find_head(method)

    def has_heads(self, answers: bool = False, matches: bool = False) -> bool:
        """Whether heads of the model can score a list of answers and match sentences, as requested."""
        asked = [method for method, wanted in (('answer_scores', answers), ('match_logit', matches)) if wanted]
        return all(any(hasattr(head, method) for head in self.heads.values()) for method in asked)

    def score_answers(self, fused: Fused) -> Tensor:
        """Compute the independent probabilities ``(B, K)`` of the answers from fused pairs."""
        return self.find_head('answer').answer_scores(fused)

    def set_answers(self, samples: Sequence[Any], scores: Tensor) -> None:
        """Set what :meth:`predict` sets of answers, from their probabilities ``(B, K)``."""
        self.find_head('answer').set_scores(samples, scores)

    def score_matches(self, fused: Fused) -> Tensor:
        """Compute the log-odds ``(B,)`` that text and image match from fused pairs."""
        return self.find_head('match_logit').match_logit(fused)

    def use_dataset_meta(self, dataset_meta: Mapping[str, Any]) -> None:
        """Pass the metainfo of the data set that the weights were trained on, such as the answers, to the heads.

        Raises:
            ValueError: it does not fit a head.
        """
        for head in self.heads.values():
            if hasattr(head, 'use_dataset_meta'):
                head.use_dataset_meta(dataset_meta)

    def answer_names(self) -> list[str]:
        """The answers that a head chooses from, in the order of their labels; empty if no head does."""
        choosers = [head for head in self.heads.values() if hasattr(head, 'answer_names')]
        return choosers[0].answer_names() if choosers else []

    @torch.no_grad()
    def answer(
        self, image_tokens: Tensor, questions: Sequence[str], pairs: Sequence[tuple[int, int]], top: int = 1
    ) -> list[Answered]:
        """Answer questions about images.

        Args:
            image_tokens: ``(U, S, C)`` of :meth:`encode_image`.
            questions: the questions.
            pairs: P pairs (index of an image, index of a question).
            top: most answers per pair.

        Raises:
            ValueError: the model has no head that answers, or ``top`` is below 1.
        """
        if top < 1:
            raise ValueError(f'top is {top}; ask for at least 1 answer')
        head = self.find_head('answer')
        answered = [head.answer(batch, top) for batch in self._batches(image_tokens, questions, pairs)]
        return [one for part in answered for one in part]

    @torch.no_grad()
    def match(
        self,
        image_tokens: Tensor,
        sentences: Sequence[str],
        pairs: Sequence[tuple[int, int]],
        at_once: int = _PAIRS_AT_ONCE,
    ) -> Tensor:
        """Compute match scores of image-sentence pairs.

        Args:
            image_tokens: ``(U, S, C)`` of :meth:`encode_image`.
            sentences: the sentences.
            pairs: P pairs (index of an image, index of a sentence).
            at_once: pairs that are fused together.

        Returns:
            ``(P,)``, on the CPU: log-odds that image and sentence match. They are not converted to probabilities, which
            would all be 1 in fp32 for good pairs.

        Raises:
            ValueError: the model has no head that matches, or ``at_once`` is below 1.
        """
        head = self.find_head('match_logit')
        scores = [head.match_logit(b.fused).cpu() for b in self._batches(image_tokens, sentences, pairs, at_once)]
        return torch.cat(scores) if scores else torch.zeros(0)

    @torch.no_grad()
    def write(
        self, image_tokens: Tensor, prompts: Sequence[str] | None = None, generator: RandomSource = None
    ) -> list[Written]:
        """Generate a text for each image.

        Args:
            image_tokens: ``(U, S, C)`` of :meth:`encode_image`.
            prompts: U texts before the generated ones; None: the head's prompt, if any.
            generator: random numbers for a head that draws texts: a CPU generator, or one per image; None: torch's.

        Raises:
            ValueError: the model has no head that writes.
        """
        return self.find_head('write').write(self, image_tokens, prompts, generator)

    @torch.no_grad()
    def solve(
        self, image_tokens: Tensor, questions: Sequence[TaskQuestion], generator: RandomSource = None
    ) -> list[Solved]:
        """Solve tasks.

        Args:
            image_tokens: ``(U, S, C)`` of :meth:`encode_image`.
            questions: tasks with the indices of their images, and with the text or region that they take.
            generator: random numbers for a head that draws texts: a CPU generator, or one per question.

        Raises:
            ValueError: the model has no head that solves tasks, a task is unknown, or lacks what it takes.
        """
        return self.find_head('solve').solve(self, image_tokens, questions, generator)

    def draw_texts(self, top_p: float, temperature: float = 1.0) -> None:
        """Let :meth:`write` draw texts by nucleus sampling from now on, whatever the config says."""
        self.find_head('write').draw_texts(top_p, temperature)

    def _batches(
        self,
        image_tokens: Tensor,
        texts: Sequence[str],
        pairs: Sequence[tuple[int, int]],
        at_once: int = _PAIRS_AT_ONCE,
    ) -> Iterator[FusionBatch]:
        """Yield batches of ``at_once`` pairs of an encoded image and a text."""
        from mmpretrain.structures import DataSample

        if isinstance(texts, str):  # its letters would be asked
            raise TypeError(f'the model takes a list of texts and got one text, {texts!r}; put it into a list')
        if at_once < 1:
            raise ValueError(f'at_once is {at_once}; fuse at least 1 pair at a time')
        for start in range(0, len(pairs), at_once):
            part = pairs[start : start + at_once]
            samples = [DataSample(text=texts[text]) for _, text in part]
            yield self.make_batch(None, samples, [image for image, _ in part], image_tokens)
