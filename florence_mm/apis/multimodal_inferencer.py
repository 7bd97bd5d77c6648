"""Inferencer for vision-language models: answers to questions, captions, matching of sentences and images."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor

from florence_mm.errors import UsageError, shown
from florence_mm.language.spacing import join_punctuation
from florence_mm.models.multimodal.protocol import Attending, VisionLanguage, unwrap_reranker
from florence_mm.models.tokenizers.words import find_word
from florence_mm.utils.files import refuse_overwriting
from florence_mm.utils.numbers import is_whole
from florence_mm.visualization.canvas import save_png
from florence_mm.visualization.cross_attention import draw_word_attention, word_map
from florence_mm.visualization.samples import sample_image
from florence_mm.visualization.texts import Line, draw_texts

from .base import Inferencer, read_picture
from .inputs import Picture, ReadInput
from .results import Output
from .setup import wrong_kind

_FILE = 'answers.json'


class MultimodalInferencer(Inferencer):
    """Answer questions about images, match sentences and write captions with a trained vision-language model.

    ::

        inferencer = MultimodalInferencer('configs/...py', 'checkpoint.pth')
        results = inferencer('photos/', questions=['how many dogs are there?'], caption=True)

    The model is any that implements :class:`~florence_mm.models.multimodal.protocol.VisionLanguage`, such as
    :class:`METER`, or the one that re-ranks in a :class:`RetrievalReranker`. Each image is encoded once for all
    questions, sentences and captions.

    Args:
        config (str | Path | Config): Config of a vision-language model; the pipeline is that of ``test_dataloader``.
        checkpoint (str | Path | None): File or URL with all weights of the model; None: weights from ``init_cfg``.
        device (str | None): The device; None: the GPU if there is one.
        batch_size (int): Images per batch.
        precision (str): Precision, see :class:`Inferencer`.

    Raises:
        UsageError: config or checkpoint is missing, the config has no vision-language model or no test pipeline, or
            checkpoint and model have different numbers of answers.
        ValueError: the checkpoint lacks weights of the model.
    """

    def __init__(
        self,
        config: str | Path | Config,
        checkpoint: str | Path | None = None,
        device: str | None = None,
        batch_size: int = 1,
        precision: str = 'fp32',
    ) -> None:
        super().__init__(config, checkpoint, device, batch_size, precision)
        self.model = unwrap_reranker(self.model)
        if not isinstance(self.model, VisionLanguage):
            raise wrong_kind(self.cfg, self.model, 'a vision-language model, such as METER')
        try:
            self.model.use_dataset_meta(self.meta.get('dataset_meta') or {})
        except ValueError as error:
            raise UsageError(str(error)) from None
        self.answers = self.model.answer_names()

    def __call__(
        self,
        images: Picture | Iterable[Picture],
        questions: str | Sequence[str] = (),
        sentences: str | Sequence[str] = (),
        caption: bool = False,
        top: int = 5,
        out: str | Path | None = None,
        skip_bad: bool = True,
        out_dir: str | Path | None = None,
    ) -> list[dict[str, Any]]:
        """Answer questions, match sentences and write captions.

        Args:
            images: Files, folders (with subfolders, sorted), globs, URLs, arrays ``(H, W, 3)`` uint8 RGB, pictures of
                Pillow, a list of those, or a generator.
            questions: One or several questions, each answered for each image.
            sentences: One or several sentences, each matched with each image.
            caption: Generate a caption for each image.
            top: Most answers reported per question.
            out: JSON file for the results; None writes none. Until the end, finished results are lines of
                ``<out>.part``.
            skip_bad: Continue after an image that cannot be read or processed, whose result has ``error`` instead of
                the other keys; False raises its error.
            out_dir: Folder for a drawing of each image with its texts, and without ``out`` for ``answers.json``.

        Returns:
            One dict per image, in order: ``file`` (None for one in memory), ``width``, ``height``, and as requested:
            ``answers``, a dict per question with ``question``, ``answers`` (best first) and their ``scores``
            (independent probabilities, which need not sum to 1); ``matches``, a dict per sentence with ``sentence`` and
            ``score`` (probability of a match); ``caption`` and ``caption_score`` (mean log-probability of its tokens);
            with ``out_dir`` also ``picture``, the name of the drawing.
            Of an image that failed: ``file`` and ``error``, a sentence.

        Raises:
            UsageError: there are no images, nothing is requested, a text is empty, or ``out`` is one of the images.
            ValueError: the model has no head for the request.
            DataError: an image cannot be read, and ``skip_bad`` is off.
        """
        return list(self.stream(images, questions, sentences, caption, top, out, skip_bad, out_dir))

    def stream(
        self,
        images: Picture | Iterable[Picture],
        questions: str | Sequence[str] = (),
        sentences: str | Sequence[str] = (),
        caption: bool = False,
        top: int = 5,
        out: str | Path | None = None,
        skip_bad: bool = True,
        out_dir: str | Path | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Look at images, and yield each result as it is made, for images without end; see :meth:`__call__`."""
        questions, sentences = _texts(questions, 'question'), _texts(sentences, 'sentence')
        if not questions and not sentences and not caption:
            raise UsageError('nothing is asked about the images; give questions, sentences, or ask for captions')
        if not isinstance(top, Integral) or isinstance(top, bool) or top < 1:
            raise UsageError(f'top is {top!r}; give at least 1, a whole number')
        self.model.require(answers=bool(questions), matches=bool(sentences), writes=caption)
        look = partial(self._look, questions=questions, sentences=sentences, caption=caption, top=top)
        if out is None and out_dir is not None:
            out = Path(out_dir) / _FILE
        written = None if out is None else Output(out, out_dir, {}, 'images')
        return self._stream(images, look, 'looking at images', skip_bad, written, _draw_said)

    @torch.no_grad()
    def _look(
        self, images: Sequence[ReadInput], questions: list[str], sentences: list[str], caption: bool, top: int
    ) -> list[dict[str, Any]]:
        """Predict for a batch of images; returns a dict per image."""
        inputs = self._prepare(images)[1]
        tokens = self.model.encode_image(inputs)  # (B, N, C)
        said: list[dict[str, Any]] = [{'width': one.image.shape[1], 'height': one.image.shape[0]} for one in images]
        if questions:
            pairs = [(image, text) for image in range(len(images)) for text in range(len(questions))]
            for (image, text), found in zip(pairs, self.model.answer(tokens, questions, pairs, top), strict=True):
                scores = [round(score, 4) for score in found.scores]
                answer = {'question': questions[text], 'answers': found.answers, 'scores': scores}
                said[image].setdefault('answers', []).append(answer)
        if sentences:
            pairs = [(image, text) for image in range(len(images)) for text in range(len(sentences))]
            scores = self.model.match(tokens, sentences, pairs).sigmoid().tolist()
            for (image, text), score in zip(pairs, scores, strict=True):
                match = {'sentence': sentences[text], 'score': round(score, 4)}
                said[image].setdefault('matches', []).append(match)
        if caption:
            for own, written in zip(said, self.model.write(tokens), strict=True):
                own |= {'caption': join_punctuation(written.text), 'caption_score': round(written.score, 4)}
        return said

    def _prepare(self, images: Sequence[ReadInput]) -> tuple[list[dict], Tensor]:
        """Apply the pipeline to images; returns its outputs, and the model's input ``(B, 3, H, W)``."""
        packed = [self.pipeline(one.image, one.file) for one in images]
        data = self.model.data_preprocessor({'inputs': [one['inputs'] for one in packed]}, False)
        return packed, data['inputs']

    def require_attention(self) -> None:
        """Check that the attention of the model can be drawn.

        Raises:
            UsageError: the model does not return it.
        """
        if not isinstance(self.model, Attending):
            raise UsageError(
                f'{type(self.model).__name__} has no attention to draw; use a model that has, such as METER'
            )

    @torch.no_grad()
    def draw_attention(
        self, image: Picture, text: str, word: str, path: str | Path, layers: Sequence[int] | None = None
    ) -> Tensor:
        """Draw the attention of a word of a text to an image (PNG).

        The cross-attention weights from the word's tokens to the image tokens, averaged over layers and heads, are
        drawn on the image as the test pipeline prepares it.

        Args:
            image: A file or an array.
            text: A question, a sentence or a caption.
            word: A word of the text.
            path: The PNG file.
            layers: Indices of attention layers; negative ones count from the last; None: all.

        Returns:
            the map ``(h, w)``, whose sum is 1.

        Raises:
            ValueError: the word is not in the text, or a layer does not exist.
            DataError: the image cannot be read.
            UsageError: the model does not return attention, or ``path`` is the image.
        """
        self.require_attention()
        if not isinstance(text, str) or not isinstance(word, str):
            raise UsageError(f'{shown(text)} and {shown(word)} are given as text and word; give one of each')
        if layers is not None and not (isinstance(layers, Sequence) and all(map(is_whole, layers))):
            raise UsageError(f'layers are {shown(layers)}; give a list of whole numbers, or None for all')
        (text,) = _texts(text, 'text')
        places = find_word(word, self.model.tokenize([text]).input_ids[0], self.model.tokenizer)
        file = image if isinstance(image, (str, Path)) else None
        if file is not None:
            refuse_overwriting(path, [file], 'path')
        (packed,), inputs = self._prepare([ReadInput(file, read_picture(image))])
        weights = word_map(self.model.attend(inputs, text, layers).weights, places)
        save_png(draw_word_attention(sample_image(packed, self.pipeline.bgr), weights, word, text), path)
        return weights


def _draw_said(read: ReadInput, result: Mapping[str, Any]) -> np.ndarray:
    """Draw an image with the questions and answers, the sentences and the caption of its result below."""
    lines = []
    for asked in result.get('answers', []):
        best = f'{asked["answers"][0]} ({asked["scores"][0]:.2f})' if asked['answers'] else 'no answer'
        lines += [Line(asked['question'], bold=True), Line(best)]
    lines += [Line(f'{match["score"]:.2f} {match["sentence"]}') for match in result.get('matches', [])]
    if 'caption' in result:
        lines.append(Line(result['caption']))
    return draw_texts(read.image, lines)


def _texts(texts: str | Sequence[str], what: str) -> list[str]:
    """Make a list of one or several texts, and check that none is empty.

    Raises:
        UsageError: one is empty or no text.
    """
    if isinstance(texts, Mapping) or not isinstance(texts, Iterable):
        raise UsageError(f'{what}s are given as {texts!r}; give one text or a list of texts')
    texts = [texts] if isinstance(texts, str) else list(texts)
    for text in texts:
        if not isinstance(text, str):
            raise UsageError(f'{text!r} is given as a {what} and is no text; write one')
        if not text.strip():
            raise UsageError(f'a {what} is empty; write one')
    return texts
