"""Protocols of vision-language models, which heads, inferencers and tools use instead of the classes of families.

A *reader* encodes images and texts to tokens of one width; a *fuser* also fuses them; a *writer* also generates texts
about images. Inferencers ask a whole model to *answer* questions, *match* sentences with images and *write* texts;
:class:`~florence_mm.models.multimodal.base.VisionLanguageModel` implements these by its heads. A family is one file
with the methods that it supports; no other code names its class.

Shape legend: ``U`` images, ``B`` texts, ``T`` tokens of a text, ``S`` image tokens, ``C`` hidden size, ``P`` image-text
pairs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from florence_mm.language.regions import Box, Target
from florence_mm.models.generation.nucleus import RandomSource
from florence_mm.models.generation.state import WriterState
from florence_mm.models.tokenizers.protocol import TokenBatch


@dataclass(frozen=True)
class CrossWeights:
    """Cross-attention weights of the two layers of one index; each row sums to 1, rows of padding to 0.

    Attributes:
        text_to_image: ``(B, H, text tokens, image tokens)``, H heads.
        image_to_text: ``(B, H, image tokens, text tokens)``.
    """

    text_to_image: Tensor
    image_to_text: Tensor


@dataclass(frozen=True)
class Fused:
    """Fused tokens of a batch of image-text pairs.

    Attributes:
        text: ``(B, T, C)``, zeros at padding.
        image: ``(B, S, C)``; of a model with queries ``(B, Q, C)``, what they make of the image.
        pooled: ``(B, pooled_size)``, one vector per pair, the input of classification heads.
        attention: cross-attention weights by index of layer, if requested.
        parts: ``(B, S)`` bool, True for image tokens of a place or region, not a class token or padding; None: all.
    """

    text: Tensor
    image: Tensor
    pooled: Tensor
    attention: Mapping[int, CrossWeights] = field(default_factory=dict)
    parts: Tensor | None = None


@dataclass(frozen=True)
class Answered:
    """Answers of a model to a question, most probable first, and their probabilities, which need not sum to 1."""

    answers: list[str]
    scores: list[float]


@dataclass(frozen=True)
class Written:
    """A generated text without its prompt, and the mean log-probability of its tokens with the end token."""

    text: str
    score: float


@dataclass(frozen=True)
class TaskQuestion:
    """A task that a model is asked to solve.

    Attributes:
        image: index of the image.
        task: name of the task or its public mark, see :data:`florence_mm.language.tasks.TASKS`.
        text: the text that some tasks take.
        region: the box that some tasks take, as fractions of the image.
    """

    image: int
    task: str
    text: str | None = None
    region: Box | None = None


@dataclass(frozen=True)
class Solved:
    """Answer to a task.

    Attributes:
        text: what was written, marks included.
        target: what it says; regions have scores.
        faults: sentences about what was written and does not parse.
        score: mean log-probability of the tokens, the end token included.
    """

    text: str
    target: Target
    faults: tuple[str, ...]
    score: float


@dataclass(frozen=True)
class TextAttention:
    """Attention weights from each token of a text to an image.

    Attributes:
        input_ids: ``(T,)``, ids of the text.
        weights: ``(layers, heads, T, h, w)``; they sum to 1 over the ``h x w`` image tokens.
    """

    input_ids: Tensor
    weights: Tensor


@runtime_checkable
class Reader(Protocol):
    """A model that encodes images and texts to tokens.

    It also has the attributes ``tokenizer``, a :class:`~florence_mm.models.tokenizers.protocol.TextTokenizer`,
    ``hidden_size``, C, ``image_dims``, the width of what heads read of images, and ``max_text_len``, the longest text
    in tokens, start and end included. They are not declared, as ``isinstance`` finds no attributes that are torch
    modules.
    """

    def encode_image(self, inputs: Tensor) -> Tensor:
        """Images ``(U, 3, H, W)``, preprocessed, to tokens ``(U, S, C_v)`` of any width."""

    def encode_tokens(self, tokens: TokenBatch) -> Tensor:
        """Encode ids ``(B, T)`` to tokens ``(B, T, C)``."""


@dataclass(frozen=True)
class PairFeatures:
    """Features of the images and texts of a batch in one space, for contrastive learning.

    Attributes:
        image: ``(U, D)``, L2-normalised; ``(U, V, D)`` if an image is described by V vectors, of which the nearest to a
            text counts.
        text: ``(B, D)``, L2-normalised.
        scale: 0-d, the factor on their cosines.
    """

    image: Tensor
    text: Tensor
    scale: Tensor


@runtime_checkable
class Embedder(Reader, Protocol):
    """A reader that also describes an image alone, and a text alone, by one vector.

    It also has ``image_dims``, the width of pooled images; it may differ from C.
    """

    def pool_image(self, image_tokens: Tensor) -> Tensor:
        """Image tokens ``(U, S, C_v)`` to one vector an image, ``(U, image_dims)``, or V, ``(U, V, image_dims)``."""

    def pool_text(self, tokens: TokenBatch) -> Tensor:
        """Encode ids ``(B, T)`` without images to one vector a text, ``(B, C)``."""


@runtime_checkable
class HasTowers(Embedder, Protocol):
    """An embedder whose parts that describe images and texts alone can be copied, for a momentum model."""

    def towers(self) -> nn.Module:
        """A module that shares these parts, and has the methods ``encode_image``, ``pool_image`` and ``pool_text``."""

    def copy_towers(self) -> nn.Module:
        """Copy :meth:`towers`; the copy may leave out parts that it does not use."""


@runtime_checkable
class Fuser(Reader, Protocol):
    """A reader that fuses texts and images; it also has ``pooled_size``, the width of :attr:`Fused.pooled`."""

    def fuse(self, text_tokens: Tensor, text_mask: Tensor | None, image_tokens: Tensor) -> Fused:
        """Fuse text tokens ``(B, T, C)`` with mask ``(B, T)``, True where real, and image tokens ``(B, S, C)``."""


@runtime_checkable
class RegionReader(Fuser, Protocol):
    """A fuser whose images are regions ``(U, R, D)``; ``encode_image(inputs, hidden)`` hides features, (U, R) bool."""

    def region_features(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Take features ``(U, R, F)`` out of regions, and which of them are real, ``(U, R)`` bool."""

    def feature_projection(self) -> nn.Linear:
        """The layer that projects features, F to C."""


@runtime_checkable
class Writer(Reader, Protocol):
    """A reader that generates texts about images.

    It also has ``prompts_apart``: whether it reads prompts apart from the texts that follow them, so that they may
    differ in length; otherwise a prompt is the beginning of its text.
    """

    def tokenize_prompts(self, prompts: Sequence[str]) -> TokenBatch:
        """Convert prompts to ids of the longest length that it takes."""

    def start_writing(
        self,
        image_tokens: Tensor,
        image_of: Sequence[int],
        prompts: TokenBatch | None = None,
        cached: bool = False,
    ) -> WriterState:
        """Start the generation of B texts.

        Args:
            image_tokens: ``(U, S, C)``.
            image_of: index of the image of each of the B texts.
            prompts: B prompts of equal length, such as questions, with start and end tokens as the tokenizer returns
                them; None: no prompts.
            cached: cache keys and values of the tokens that :meth:`write_on` gets, so that it gets no token twice.
        """

    def write_on(self, tokens: TokenBatch, state: WriterState) -> Tensor:
        """Compute the hidden states ``(B, n, C)`` of the next n tokens of each text; each sees those before it.

        Args:
            tokens: with cache, the tokens after those that ``state`` has cached; without, all tokens from
                ``state.first_ids`` on, with padding at the end if texts differ in length.
            state: state from :meth:`start_writing`; with cache, the new tokens are added to it.
        """

    def teach(
        self, image_tokens: Tensor, image_of: Sequence[int], prompts: TokenBatch | None, texts: TokenBatch
    ) -> Tensor:
        """Compute the hidden states ``(B, T - 1, C)`` that predict whole texts, in one pass.

        State t of a text predicts ``texts.input_ids[:, t + 1]`` from the image, the prompt and the tokens up to t; it
        is what :meth:`write_on` computes token by token. States that predict padding have no meaning.

        Args:
            image_tokens: ``(U, S, C)``.
            image_of: index of the image of each of the B texts.
            prompts: B prompts, such as questions, of any lengths, with start and end tokens; None: no prompts.
            texts: B texts of T tokens or fewer, with start and end tokens.

        Raises:
            ValueError: a prompt and its text are together longer than the model's texts.
        """


@runtime_checkable
class TeachesStart(Writer, Protocol):
    """A writer whose texts follow the end token, so that it predicts their start token too, as BART does."""

    def teach_from_end(
        self, image_tokens: Tensor, image_of: Sequence[int], prompts: TokenBatch | None, texts: TokenBatch
    ) -> Tensor:
        """Compute the hidden states ``(B, T, C)`` that predict whole texts, the start token included.

        State t predicts ``texts.input_ids[:, t]``; those from the second on are what ``teach`` returns.
        """


@runtime_checkable
class Attending(Protocol):
    """A model that returns its attention from texts to images."""

    def attend(self, inputs: Tensor, text: str, layers: Sequence[int] | None = None) -> TextAttention:
        """Return the attention from each token of a text to the image ``(1, 3, H, W)``; ``layers`` None: all."""


@runtime_checkable
class VisionLanguage(Protocol):
    """A whole model, as inferencers, tools and re-ranking use it."""

    def require(self, answers: bool = False, matches: bool = False, writes: bool = False, solves: bool = False) -> None:
        """Raise ValueError if the model cannot answer, match, write or solve tasks, as requested."""

    def use_dataset_meta(self, dataset_meta: Mapping[str, Any]) -> None:
        """Take over the metainfo of the data set that the weights were trained on, such as the answers."""

    def answer_names(self) -> list[str]:
        """The answers that the model chooses from; empty if it does not classify answers."""

    def encode_image(self, inputs: Tensor) -> Tensor:
        """Encode preprocessed images ``(U, 3, H, W)`` to tokens ``(U, S, C)``, the input of the following methods."""

    def answer(
        self, image_tokens: Tensor, questions: Sequence[str], pairs: Sequence[tuple[int, int]], top: int = 1
    ) -> list[Answered]:
        """Return at most ``top`` answers for each of the P pairs (index of an image, index of a question)."""

    def match(
        self, image_tokens: Tensor, sentences: Sequence[str], pairs: Sequence[tuple[int, int]], at_once: int = 64
    ) -> Tensor:
        """Return the log-odds ``(P,)`` of a match, on the CPU, for P pairs (index of an image, of a sentence)."""

    def write(
        self, image_tokens: Tensor, prompts: Sequence[str] | None = None, generator: RandomSource = None
    ) -> list[Written]:
        """Generate a text for each image, with random numbers of ``generator`` if texts are drawn."""

    def solve(
        self, image_tokens: Tensor, questions: Sequence[TaskQuestion], generator: RandomSource = None
    ) -> list[Solved]:
        """Solve tasks, such as detection, by writing."""

    def draw_texts(self, top_p: float, temperature: float = 1.0) -> None:
        """Let :meth:`write` draw texts by nucleus sampling from now on."""


@runtime_checkable
class ScoresPairs(Fuser, Protocol):
    """A fuser whose heads score fused pairs, which is what exported files of it hold."""

    def has_heads(self, answers: bool = False, matches: bool = False) -> bool:
        """Whether it has the heads for all that is requested."""

    def score_answers(self, fused: Fused) -> Tensor:
        """Compute the independent probabilities ``(B, K)`` of the answers."""

    def set_answers(self, samples: Sequence[Any], scores: Tensor) -> None:
        """Set what ``predict`` sets of answers on B samples, from their probabilities ``(B, K)``."""

    def score_matches(self, fused: Fused) -> Tensor:
        """Compute the log-odds ``(B,)`` that text and image match."""


@runtime_checkable
class Reranker(Protocol):
    """A model for retrieval in two stages: features of all images and texts, match scores of the best candidates.

    It also has the attribute ``matcher``, a :class:`VisionLanguage` that gives the scores.
    """

    def match_pictures(
        self, data: dict[str, Any], texts: Sequence[str], pairs: Sequence[tuple[int, int]], pairs_at_once: int = 64
    ) -> Tensor:
        """Return match scores ``(P,)``, log-odds, of pairs (image of the batch ``data``, text)."""

    def similarity_scale(self) -> float:
        """Factor from cosines of the features to logits."""


def unwrap_reranker(model: nn.Module) -> nn.Module:
    """Return the model inside a :class:`Reranker` that gives the scores; any other model as it is."""
    return model.matcher if isinstance(model, Reranker) else model


@runtime_checkable
class ChoosesAnswers(Protocol):
    """A class of heads that classify answers, such as :class:`FusionVQAHead`; the class itself, not an instance.

    Attributes:
        answer_arguments: names of its two arguments for the number of answers and for the answers.
    """

    answer_arguments: tuple[str, str]
