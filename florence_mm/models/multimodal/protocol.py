"""What a model over images and texts can do, in words that heads, inferencers and tools rely on.

A *reader* turns images and texts into tokens of one width; a *fuser* also lets them read each other; a *writer* also
writes texts about images. What is asked of a whole model is to *answer* questions, to *match* sentences with images
and to *write*; :class:`~florence_mm.models.multimodal.base.VisionLanguageModel` has its heads do that. A family is one
file with the methods that it has; nothing else knows its class.

Shape legend: ``U`` images, ``B`` texts, ``T`` tokens of a text, ``S`` image tokens, ``C`` hidden size, ``P`` pairs
of an image and a text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from florence_mm.models.generation.state import WriterState
from florence_mm.models.tokenizers.protocol import TokenBatch


@dataclass(frozen=True)
class CrossWeights:
    """Cross-attention of one pair of layers; each row sums to 1, rows of padding to 0.

    Attributes:
        text_to_image: ``(B, H, text tokens, image tokens)``, H heads.
        image_to_text: ``(B, H, image tokens, text tokens)``.
    """

    text_to_image: Tensor
    image_to_text: Tensor


@dataclass(frozen=True)
class Fused:
    """Fused tokens of a batch.

    Attributes:
        text: ``(B, T, C)``, zeros where no token is.
        image: ``(B, S, C)``.
        pooled: ``(B, pooled_size)``, the pair as one vector, which classifying heads read.
        attention: cross-attention by number of layer, where asked for.
    """

    text: Tensor
    image: Tensor
    pooled: Tensor
    attention: Mapping[int, CrossWeights] = field(default_factory=dict)


@dataclass(frozen=True)
class Answered:
    """What a model says to a question.

    Attributes:
        answers: the likeliest first.
        scores: of each answer, a probability of its own: they need not add up to 1.
    """

    answers: list[str]
    scores: list[float]


@dataclass(frozen=True)
class Written:
    """A text that a model wrote.

    Attributes:
        text: without what it follows.
        score: mean log-probability of its tokens, the end included.
    """

    text: str
    score: float


@dataclass(frozen=True)
class TextAttention:
    """Where a model looks in an image for each token of a text.

    Attributes:
        input_ids: ``(T,)`` of the text.
        weights: ``(layers, heads, T, h, w)``; those of a token sum to 1 over the ``h x w`` image tokens.
    """

    input_ids: Tensor
    weights: Tensor


@runtime_checkable
class Reader(Protocol):
    """Reads images and texts.

    It also has the attributes ``tokenizer``, a :class:`~florence_mm.models.tokenizers.protocol.TextTokenizer`,
    ``hidden_size``, C, and ``max_text_len``, the longest text in tokens, start and end included. They are not
    declared: ``isinstance`` would not see one that is a module of torch.
    """

    def encode_image(self, inputs: Tensor) -> Tensor:
        """Images ``(U, 3, H, W)``, preprocessed, to tokens ``(U, S, C)``."""

    def encode_tokens(self, tokens: TokenBatch) -> Tensor:
        """Ids ``(B, T)`` to tokens ``(B, T, C)``."""


@runtime_checkable
class Fuser(Reader, Protocol):
    """Lets texts and images read each other; also has ``pooled_size``, the width of :attr:`Fused.pooled`."""

    def fuse(self, text_tokens: Tensor, text_mask: Tensor | None, image_tokens: Tensor) -> Fused:
        """Text tokens ``(B, T, C)`` with mask ``(B, T)``, True where real, and image tokens ``(B, S, C)``."""


@runtime_checkable
class Writer(Reader, Protocol):
    """Writes texts about images."""

    def start_writing(
        self,
        image_tokens: Tensor,
        image_of: Sequence[int],
        prompts: TokenBatch | None = None,
        cached: bool = False,
    ) -> WriterState:
        """Where B texts stand before their first word.

        Args:
            image_tokens: ``(U, S, C)``.
            image_of: for each of the B texts which of the U images it is about.
            prompts: B texts of equal length that come before it, such as questions; with start and end tokens, as the
                tokenizer gives them. None: none.
            cached: keep keys and values of the tokens that :meth:`write_on` gets, so that it needs no token twice.
        """

    def write_on(self, tokens: TokenBatch, state: WriterState) -> Tensor:
        """Hidden states ``(B, n, C)`` of the next n tokens of each text, each of which sees those before it.

        Args:
            tokens: the tokens after those that ``state`` holds; without a cache all, from ``state.first_ids`` on, then
                with padding behind the texts where they differ in length.
            state: of :meth:`start_writing`; with a cache it holds these tokens too afterwards.
        """


@runtime_checkable
class Attending(Protocol):
    """Can say where it looks."""

    def attend(self, inputs: Tensor, text: str, layers: Sequence[int] | None = None) -> TextAttention:
        """Attention from each token of a text to the image ``(1, 3, H, W)``; None: of all layers."""


@runtime_checkable
class VisionLanguage(Protocol):
    """What inferencers, tools and re-ranking ask of a whole model."""

    def require(self, answers: bool = False, matches: bool = False, writes: bool = False) -> None:
        """Raise ValueError where the model cannot do what will be asked of it."""

    def learn_data(self, dataset_meta: Mapping[str, Any]) -> None:
        """Take over what is needed of the data that the weights were trained on, such as the answers."""

    def answer_names(self) -> list[str]:
        """The answers that the model chooses among; empty where it does not choose."""

    def encode_image(self, inputs: Tensor) -> Tensor:
        """Images ``(U, 3, H, W)``, preprocessed, to tokens ``(U, S, C)``, which the following take."""

    def answer(
        self, image_tokens: Tensor, questions: Sequence[str], pairs: Sequence[tuple[int, int]], top: int = 1
    ) -> list[Answered]:
        """For each of the P pairs (place of an image, place of a question) at most ``top`` answers."""

    def match(
        self, image_tokens: Tensor, sentences: Sequence[str], pairs: Sequence[tuple[int, int]], at_once: int = 64
    ) -> Tensor:
        """``(P,)`` on the CPU, for each pair (image, sentence) the logarithm of the odds of a match."""

    def write(self, image_tokens: Tensor, prompts: Sequence[str] | None = None) -> list[Written]:
        """A text about each image."""


@runtime_checkable
class Reranker(Protocol):
    """Two steps of retrieval: features of all images and texts, match scores of the best candidates."""

    def match_pictures(
        self, data: dict[str, Any], texts: Sequence[str], pairs: Sequence[tuple[int, int]], pairs_at_once: int = 64
    ) -> Tensor:
        """``(P,)`` match scores, logarithms of odds, of pairs (image of the batch ``data``, text)."""

    def similarity_scale(self) -> float:
        """What cosines of the features are multiplied by to be logits."""
