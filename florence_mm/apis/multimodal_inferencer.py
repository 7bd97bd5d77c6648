"""Questions about pictures, captions of pictures, and whether a sentence matches a picture."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.structures import DataSample
from torch import Tensor

from florence_mm.errors import UsageError
from florence_mm.models.multimodal.batch import FusionBatch
from florence_mm.utils.files import write_atomic
from florence_mm.utils.progress import ProgressLog
from florence_mm.visualization.canvas import save_png
from florence_mm.visualization.cross_attention import draw_word_attention, find_word, word_map
from florence_mm.visualization.samples import sample_image

from .picture_inputs import InferencePipeline, Picture, list_pictures, read_batches, read_picture
from .setup import open_config, ready_model

_PAIRS_AT_ONCE = 64  # of pictures and texts that are fused together


class MultimodalInferencer:
    """Ask a trained :class:`METER` about pictures.

    ::

        inferencer = MultimodalInferencer('configs/...py', 'checkpoint.pth')
        results = inferencer('photos/', questions=['how many dogs are there?'], caption=True)

    Each picture is encoded once, whatever is asked about it.

    Args:
        config (str | Path | Config): Of a METER; ``test_dataloader`` gives the pipeline.
        checkpoint (str | Path | None): File or URL with all the model's weights; None keeps what ``init_cfg`` loads.
        device (str | None): None takes the GPU where there is one.
        batch_size (int): Pictures that go through the model together.

    Raises:
        UsageError: config or checkpoint are missing, the config has no METER or no test pipeline, or the checkpoint
            knows another number of answers than the model.
        ValueError: the checkpoint does not hold all the model's weights.
    """

    def __init__(
        self,
        config: str | Path | Config,
        checkpoint: str | Path | None,
        device: str | None = None,
        batch_size: int = 1,
    ) -> None:
        if batch_size < 1:
            raise UsageError(f'batch_size is {batch_size}; give at least 1')
        cfg = open_config(config, checkpoint, 'picture')
        self.cfg = cfg
        self.batch_size = batch_size
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'florence_mm'):
            self.pipeline = InferencePipeline(cfg.test_dataloader.dataset)
            self.model, meta, self.device = ready_model(cfg, checkpoint, device)
        if not hasattr(self.model, 'encode_image') or not hasattr(self.model, 'fuse'):
            raise UsageError(f'config {cfg.filename} is of a {type(self.model).__name__}; give one of a METER')
        self.answers = self._known_answers(meta)

    def _known_answers(self, meta: Mapping[str, Any]) -> list[str]:
        """The answers by their labels, from the head, else the training data; their numbers where nothing says them."""
        if 'vqa' not in self.model.heads:
            return []
        head = self.model.heads['vqa']
        trained = (meta.get('dataset_meta') or {}).get('answers')
        if head.answers and trained and list(head.answers) != list(trained):
            raise UsageError(
                "the answers of the config's VQA head are not those that the checkpoint was trained on; use the config "
                'and the file of answers that it was trained with'
            )
        known = head.answers or trained
        if known is None:
            return [str(label) for label in range(head.num_answers)]
        if len(known) != head.num_answers:
            raise UsageError(
                f'the checkpoint was trained on {len(known)} answers and the VQA head has {head.num_answers}; use the '
                'config that it was trained with'
            )
        return list(known)

    def __call__(
        self,
        images: Picture | Sequence[Picture],
        questions: str | Sequence[str] = (),
        sentences: str | Sequence[str] = (),
        caption: bool = False,
        top: int = 5,
        out: str | Path | None = None,
        skip_bad: bool = False,
    ) -> list[dict[str, Any]]:
        """Answer, match and describe.

        Args:
            images: Files, folders (their pictures, sorted, also of folders inside), arrays ``(H, W, 3)`` uint8 RGB, or
                a list of those.
            questions: Asked about each picture.
            sentences: Each is compared with each picture.
            caption: Write a caption of each picture.
            top: How many answers are reported, at most.
            out: JSON file for the results; None writes none.
            skip_bad: Go on after a picture that cannot be read; its result then has ``error`` in place of the others.

        Returns:
            One dict a picture, in order: ``file`` (None for an array), ``width``, ``height``, and what was asked for:
            ``answers``, a dict for each question with ``question``, ``answers`` (the best one first) and their
            ``scores`` (each a probability of its own: they need not add up to 1); ``matches``, a dict for each sentence
            with ``sentence`` and ``score`` (the probability of a match); ``caption`` and ``caption_score`` (the mean
            logarithm of the probabilities of its tokens).

        Raises:
            UsageError: no pictures, nothing asked, or an empty text.
            ValueError: the model has no head for what is asked.
            DataError: a picture cannot be read, and ``skip_bad`` is off.
        """
        questions, sentences = _texts(questions, 'question'), _texts(sentences, 'sentence')
        if not questions and not sentences and not caption:
            raise UsageError('nothing is asked about the pictures; give questions, sentences, or ask for captions')
        if top < 1:
            raise UsageError(f'top is {top}; give at least 1 answer to report')
        for name, wanted in (('vqa', questions), ('itm', sentences), ('caption', caption)):
            if wanted:
                self.model.get_head(name)
        pictures = list_pictures(images)
        progress, results = ProgressLog('looking at pictures', len(pictures)), []
        for batch in read_batches(pictures, self.batch_size, skip_bad):
            good = [(image, file) for file, image, error in batch if error is None]
            said = iter(self._look(good, questions, sentences, caption, top))
            for file, image, error in batch:
                result = {'file': None if file is None else str(file)}
                if error is not None:
                    results.append({**result, 'error': error})
                    continue
                results.append({**result, 'width': image.shape[1], 'height': image.shape[0], **next(said)})
            progress.update(len(results))
        if out is not None:
            write_atomic(out, json.dumps({'images': results}, indent=1, ensure_ascii=False) + '\n')
        return results

    @torch.no_grad()
    def _look(
        self, pictures: list[tuple], questions: list[str], sentences: list[str], caption: bool, top: int
    ) -> list[dict[str, Any]]:
        """What is said of each of a few pictures ``(image, file)``."""
        if not pictures:
            return []
        inputs = self._prepare(pictures)[1]
        tokens = self.model.encode_image(inputs)  # (B, N, C)
        said: list[dict[str, Any]] = [{} for _ in pictures]
        if questions:
            for own, asked in zip(said, self._ask('vqa', inputs, tokens, questions), strict=True):
                own['answers'] = [self._to_answers(sample, top) for sample in asked]
        if sentences:
            for own, asked in zip(said, self._ask('itm', inputs, tokens, sentences), strict=True):
                own['matches'] = [{'sentence': s.text, 'score': round(s.match_score, 4)} for s in asked]
        if caption:
            for own, sample in zip(said, self._describe(inputs, tokens), strict=True):
                own |= {'caption': sample.pred_caption, 'caption_score': round(sample.caption_score, 4)}
        return said

    def _prepare(self, pictures: list[tuple]) -> tuple[list[dict], Tensor]:
        """What the pipeline makes of pictures, and the model's input ``(B, 3, H, W)``."""
        # packing wants a text; the model looks at those that are asked
        packed = [self.pipeline(image, file, text='a picture') for image, file in pictures]
        data = self.model.data_preprocessor({'inputs': [one['inputs'] for one in packed]}, False)
        return packed, data['inputs']

    def _describe(self, inputs: Tensor, tokens: Tensor) -> list[DataSample]:
        """A sample with a caption for each picture."""
        samples = [DataSample() for _ in inputs]
        batch = FusionBatch(self.model, inputs, samples, range(len(inputs)), tokens)
        self.model.get_head('caption').predict(self.model, batch)
        return samples

    def _ask(self, head: str, inputs: Tensor, tokens: Tensor, texts: list[str]) -> list[list[DataSample]]:
        """A head's samples for each picture and text."""
        samples = [DataSample(text=text) for _ in inputs for text in texts]
        picture_of = [number for number in range(len(inputs)) for _ in texts]
        for start in range(0, len(samples), _PAIRS_AT_ONCE):
            part = slice(start, start + _PAIRS_AT_ONCE)
            batch = FusionBatch(self.model, inputs, samples[part], picture_of[part], tokens)
            self.model.get_head(head).predict(self.model, batch)
        return [samples[start : start + len(texts)] for start in range(0, len(samples), len(texts))]

    def _to_answers(self, sample: DataSample, top: int) -> dict[str, Any]:
        best = sample.pred_scores.sort(descending=True, stable=True)
        return {
            'question': sample.text,
            'answers': [self.answers[label] for label in best.indices[:top].tolist()],
            'scores': [round(score, 4) for score in best.values[:top].tolist()],
        }

    @torch.no_grad()
    def draw_attention(
        self, image: Picture, text: str, word: str, path: str | Path, layers: Sequence[int] | None = None
    ) -> Tensor:
        """Draw where the model looks for a word of a text.

        The cross-attention of the word's tokens to the image tokens, a mean over layers and heads, over the picture as
        the test pipeline gives it to the model.

        Args:
            image: A file or an array.
            text: A question, a sentence or a caption; the model reads it with the picture.
            word: A word of it.
            path: The PNG file.
            layers: Numbers of co-attention layers, negative ones counted from the last; None: all.

        Returns:
            the map ``(h, w)``, whose sum is 1.

        Raises:
            ValueError: the word is not in the text, or there is no such layer.
            DataError: the picture cannot be read.
        """
        tokens, text_tokens = self.model.encode_text(_texts(text, 'text'))
        places = find_word(word, tokens.input_ids[0], self.model.tokenizer)
        picture = read_picture(image)
        (packed,), inputs = self._prepare([(picture, None if isinstance(image, np.ndarray) else image)])
        maps: list[Any] = []
        handle = self.model.image_encoder.register_forward_hook(lambda _, args, out: maps.append(out))
        try:
            image_tokens = self.model.encode_image(inputs)
        finally:
            handle.remove()
        last = maps[0][-1] if isinstance(maps[0], tuple | list) else maps[0]  # (1, C, h, w)
        if layers is None:
            layers = range(len(self.model.cross_modal.layers.text_layers))
        fused = self.model.fuse(text_tokens, tokens.mask, image_tokens, list(layers))
        weights = word_map(fused.attention, places, tuple(last.shape[-2:]))
        save_png(draw_word_attention(sample_image(packed, self.pipeline.bgr), weights, word, text), path)
        return weights


def _texts(texts: str | Sequence[str], what: str) -> list[str]:
    """One text or several as a list.

    Raises:
        UsageError: one is empty.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    for text in texts:
        if not text.strip():
            raise UsageError(f'a {what} is empty; write one')
    return texts
