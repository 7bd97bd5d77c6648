"""Exported files for pictures, videos and texts: the same preparation and the same answers as the inferencers'."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from florence_mm.config.registered import require_registered
from florence_mm.errors import DataError, UsageError
from florence_mm.registry import TASK_UTILS
from florence_mm.utils.numbers import is_finite, is_whole

from .parts import PAIRS
from .preparing import Preparation, Prepared
from .runtimes import Arrays, open_runtime

Source = str | Path | np.ndarray
_PAIRS_AT_ONCE = 64  # pairs of a picture and a text that are run together


def load_exported(path: str | Path, threads: int | None = None, precision: str | None = None) -> 'ExportedModel':
    """Open a file that an export wrote: ``load_exported('digits.onnx')('scene.png')``.

    Args:
        path: ``.onnx``, ``.xml`` or ``.pt2``.
        threads: threads of the runtime; None: its own choice.
        precision: ``'fp32'`` or ``'bf16'`` of an OpenVINO file; None: what it was exported for.

    Raises:
        DataError: the file is missing, damaged, or was not written by florence_mm.
        UsageError: another suffix, or the runtime is not installed.
    """
    return ExportedModel(path, threads, precision)


class ExportedModel:
    """An exported file in its runtime, with the preparation of its inputs.

    Args:
        path: see :func:`load_exported`.
        threads: see :func:`load_exported`.
        precision: see :func:`load_exported`.

    Attributes:
        kind (str): ``'image'`` or ``'text'`` tower, ``'classifier'``, ``'detector'``, ``'recognizer'``, ``'answerer'``
            or ``'matcher'``.
        class_names (list[str]): names of its labels, or its answers; empty if it has none.
        metadata (dict): what the file tells about itself.
        run: function from named arrays to named arrays, without preparation.
    """

    def __init__(self, path: str | Path, threads: int | None = None, precision: str | None = None) -> None:
        self.path = Path(path)
        self.run, self.metadata = open_runtime(path, threads, precision)
        self.kind: str = self.metadata['kind']
        self.class_names: list[str] = list(self.metadata.get('class_names') or [])
        self._preparation: Preparation | None = None
        self._tokenizer: Callable[..., Any] | None = None

    def __call__(
        self,
        inputs: Source | Sequence[Source],
        top: int = 5,
        score_thr: float = 0.3,
        batch_size: int = 1,
        texts: str | Sequence[str] = (),
    ) -> Any:
        """Prepare inputs and run the file.

        Args:
            inputs: a picture, file or array ``(H, W, 3)`` uint8 RGB; of a file for videos a video file; of a text tower
                a text; or a list of those.
            top: most classes, or answers to a question, reported.
            score_thr: lowest score of reported boxes.
            batch_size: pictures or texts that are run together. Padding changes the boxes of pictures of different
                sizes, as in every detector.
            texts: of an answerer the questions, of a matcher the sentences, each asked about each picture.

        Returns:
            of a tower the features ``(N, D)``; else a dict per input: of a detector ``width``, ``height``, ``boxes``,
            ``labels`` and ``scores`` as from :class:`~florence_mm.apis.DetectionInferencer`, of a classifier or
            recognizer ``labels`` and ``scores``, best first, of an answerer or matcher what
            :class:`~florence_mm.apis.MultimodalInferencer` gives.

        Raises:
            DataError: an input cannot be read, or has a size that the file does not take.
            UsageError: nothing was given, or a number is out of its range.
        """
        inputs = [inputs] if isinstance(inputs, (str, Path, np.ndarray)) else list(inputs)
        if not inputs:
            raise UsageError('nothing was given; give a picture, a video or a text')
        for name, value in (('top', top), ('batch_size', batch_size)):
            if not is_whole(value) or value < 1:
                raise UsageError(f'{name} is {value!r}; give at least 1, a whole number')
        if not is_finite(score_thr) or not 0 <= score_thr <= 1:
            raise UsageError(f'score_thr is {score_thr!r}; give a number from 0 to 1')
        texts = [texts] if isinstance(texts, str) else list(texts)
        if bool(texts) != (self.kind in PAIRS):
            raise UsageError(
                f'{self.path} takes no texts beside its inputs; leave them out'
                if texts
                else f'{self.path} takes texts about pictures; give them as texts=[...]'
            )
        if blank := [text for text in texts if isinstance(text, str) and not text.strip()]:
            raise UsageError(f'a text is {blank[0]!r}, which says nothing; write one')
        parts = [inputs[i : i + batch_size] for i in range(0, len(inputs), batch_size)]
        if self.kind == 'text':
            return np.concatenate([self._texts(part) for part in parts])
        if self.kind in PAIRS:
            return [said for part in parts for said in self._ask(part, texts, top)]
        if self.kind == 'detector':
            return [found for part in parts for found in self._detect(part, score_thr)]
        values = np.concatenate([self._views(part) for part in parts])
        return values if self.kind == 'image' else [self._best(row, top) for row in values]

    def prepare(self, source: Source) -> Prepared:
        """Prepare a picture or video as the model's test pipeline does.

        Raises:
            UsageError: the file has no preparation, or one with a step that is no registered class.
            DataError: the picture cannot be read.
        """
        if self._preparation is None:
            if not self.metadata.get('preprocessing'):
                raise UsageError(f'{self.path} does not tell how to prepare its inputs; call run with arrays')
            require_registered(self.metadata['preprocessing'], str(self.path))
            self._preparation = Preparation(self.metadata['preprocessing'])
        return self._preparation(source)

    def _texts(self, texts: Sequence[str]) -> np.ndarray:
        return self._run(input_ids=self._tokenize(texts).numpy())['features']

    def _tokenize(self, texts: Sequence[str], *max_length: int) -> Any:
        for text in texts:
            if not isinstance(text, str):
                raise UsageError(f'{self.path} takes texts and got {text!r}; give strings')
        if self._tokenizer is None:
            if not self.metadata.get('tokenizer'):
                raise UsageError(f'{self.path} does not tell its tokenizer; call run with input_ids')
            require_registered(self.metadata['tokenizer'], str(self.path))
            self._tokenizer = TASK_UTILS.build(dict(self.metadata['tokenizer']))
        return self._tokenizer(list(texts), *max_length)

    def _ask(self, sources: Sequence[Source], texts: Sequence[str], top: int) -> list[dict[str, Any]]:
        """Answers to questions about pictures, or matches of sentences with them."""
        prepared = [self.prepare(source) for source in sources]
        images, _ = self._preparation.batch(prepared)
        said: list[dict[str, Any]] = [{'width': one.original[1], 'height': one.original[0]} for one in prepared]
        step = max(1, _PAIRS_AT_ONCE // len(sources))
        for start in range(0, len(texts), step):
            asked = texts[start : start + step]
            tokens = self._tokenize(asked, self.metadata['max_text_len'])
            ids, mask = tokens.input_ids.numpy(), tokens.mask.numpy().astype(np.int64)
            (rows,) = self._run(
                images=images,
                input_ids=np.tile(ids, (len(sources), 1)),
                attention_mask=np.tile(mask, (len(sources), 1)),
                image_of=np.repeat(np.arange(len(sources)), len(asked)),
            ).values()
            for own, values in zip(said, rows.reshape(len(sources), len(asked), -1), strict=True):
                for text, row in zip(asked, values, strict=True):
                    if self.kind == 'matcher':
                        score = round(float(1 / (1 + np.exp(-row[0].astype(np.float64)))), 4)
                        own.setdefault('matches', []).append({'sentence': text, 'score': score})
                    else:
                        best = self._best(row, top)
                        answer = {'question': text, 'answers': best['labels'], 'scores': best['scores']}
                        own.setdefault('answers', []).append(answer)
        return said

    def _views(self, sources: Sequence[Source]) -> np.ndarray:
        """Features, probabilities or logits of pictures, and means over the views of videos."""
        prepared = [self.prepare(source) for source in sources]
        if prepared[0].values.ndim == 3:
            images, _ = self._preparation.batch(prepared)
            return next(iter(self._run(images=images).values()))
        rows = []
        for one in prepared:  # (V, 3, T, H, W)
            row = next(iter(self._run(images=one.values).values())).mean(0)
            rows.append(row / np.linalg.norm(row) if self.kind == 'image' else row)
        return np.stack(rows)

    def _detect(self, sources: Sequence[Source], score_thr: float) -> Iterator[dict[str, Any]]:
        prepared = [self.prepare(source) for source in sources]
        images, sizes = self._preparation.batch(prepared)
        found = self._run(images=images, sizes=sizes)
        for one, dets, labels in zip(prepared, found['dets'], found['labels'], strict=True):
            keep = (labels >= 0) & (dets[:, 4] >= score_thr)
            dets, labels = dets[keep], labels[keep]
            boxes = dets[:, :4] / np.array(one.scale * 2, dtype=np.float32)
            yield {
                'width': one.original[1],
                'height': one.original[0],
                'boxes': [[round(value, 2) for value in box] for box in boxes.tolist()],
                'labels': [self._name(label) for label in labels.tolist()],
                'scores': [round(score, 4) for score in dets[:, 4].tolist()],
            }

    def _best(self, scores: np.ndarray, top: int) -> dict[str, Any]:
        if self.metadata.get('gives_logits'):
            scores = np.exp(scores - scores.max())
            scores /= scores.sum()
        order = np.argsort(-scores, kind='stable')[:top].tolist()
        return {
            'labels': [self._name(label) for label in order],
            'scores': [round(float(scores[label]), 4) for label in order],
        }

    def _name(self, label: int) -> str:
        return self.class_names[label] if label < len(self.class_names) else str(label)

    def _run(self, **inputs: np.ndarray) -> Arrays:
        """Run the file on inputs of a size that it takes."""
        first = next(iter(inputs.values()))
        sizes = first.shape[2 - (self.kind == 'text') :]
        expected = self.metadata['input_size']
        names = {'text': ['length']}.get(self.kind, ['frames', 'height', 'width'][-len(expected) :])
        for name, size, given in zip(names, sizes, expected, strict=True):
            low, high = self.metadata['limits'].get(name, (given, given))
            if size < low or high is not None and size > high:
                allowed = f'{low}' if low == high else f'from {low} to {high}' if high else f'at least {low}'
                advice = (
                    'give another text' if self.kind == 'text' else 'resize it, or export with --size or --free-size'
                )
                raise DataError(f'an input of {self.path} has {name} {size}, and the file takes {allowed}; {advice}')
        return self.run(inputs)
