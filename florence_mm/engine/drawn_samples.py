"""Drawings of tested samples of every task: classes, boxes, answers, captions, matches, clips."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from florence_mm.errors import DataError
from florence_mm.formats.image import WHITE, read_image
from florence_mm.language.answers import normalize_answer
from florence_mm.utils.files import short_stem
from florence_mm.visualization.detections import draw_detections
from florence_mm.visualization.predictions import draw_prediction
from florence_mm.visualization.regions import draw_regions, regions_in_pixels
from florence_mm.visualization.texts import Line, draw_clip_prediction, draw_texts

_TOP = 3


def draw_tested(
    inputs: Tensor, sample: Any, meta: Mapping[str, Any], bgr: bool = False, score_thr: float = 0.3
) -> np.ndarray | None:
    """Draw the prediction of one sample.

    Args:
        inputs: what the pipeline gave: an image ``(3, H, W)``, frames ``(N, 3, H, W)`` or clips ``(N, 3, T, H, W)``.
        sample: the sample with predictions. By the first field that it has: ``pred_instances`` are drawn as boxes,
            ``pred_target`` as regions or a text, ``pred_score`` as classes, and ``pred_scores``, ``pred_answer``,
            ``pred_caption``, ``pred_text`` and ``match_score`` as texts.
        meta: metainfo of the data set: ``classes`` and ``answers`` are the names of labels.
        bgr: whether ``inputs`` are BGR.
        score_thr: lowest score of drawn boxes.

    Returns:
        ``(H', W', 3)`` uint8 RGB; None if the sample has none of these fields.
    """
    if 'pred_instances' in sample:
        return _draw_boxes(_whole_image(inputs, sample, bgr), sample, meta.get('classes') or (), score_thr)
    if 'pred_target' in sample:
        return _draw_target(_whole_image(inputs, sample, bgr), sample)
    lines = None if 'pred_score' in sample else _text_lines(sample, meta)
    if lines:
        return draw_texts(_frames(inputs, bgr)[0], lines)
    if 'pred_score' not in sample:
        return None
    scores = sample.pred_score.detach().float().cpu().flatten()
    names = [str(name) for name in meta.get('classes') or ()]
    if len(names) != len(scores):
        names = [str(label) for label in range(len(scores))]
    label = sample.get('gt_label')
    label = None if label is None else int(label.flatten()[0])
    frames = _frames(inputs, bgr)
    if inputs.ndim > 3:
        return draw_clip_prediction(frames, scores, names, label, min(_TOP, len(scores)))
    return draw_prediction(frames[0], scores, names, label)


def _frames(inputs: Tensor, bgr: bool) -> np.ndarray:
    """Convert an image, frames, or the middle one of several clips to ``(T, H, W, 3)`` uint8 RGB."""
    if inputs.ndim == 5:
        inputs = inputs[len(inputs) // 2].transpose(0, 1)  # (N, 3, T, H, W) -> (T, 3, H, W)
    frames = inputs[None] if inputs.ndim == 3 else inputs
    if frames.dtype != torch.uint8:
        frames = frames.float()
        low, high = frames.min(), frames.max()
        frames = ((frames - low) * (255 / (high - low).clamp(min=1e-12))).to(torch.uint8)
    array = frames.permute(0, 2, 3, 1).cpu().numpy()  # (T, H, W, 3)
    return np.ascontiguousarray(array[..., ::-1] if bgr else array)


def _whole_image(inputs: Tensor, sample: Any, bgr: bool) -> np.ndarray:
    """Read the image file whose pixels boxes are in; if that cannot be done, enlarge what the pipeline made of it."""
    height, width = sample.get('ori_shape') or inputs.shape[-2:]
    with suppress(DataError):  # of a file in an archive or on another machine
        image = read_image(str(sample.get('img_path') or ''), WHITE)
        if image.shape[:2] == (height, width):
            return image
    inside = (sample.get('img_shape') or inputs.shape[-2:])[:2]  # without padding
    image = _frames(inputs, bgr)[0][: inside[0], : inside[1]]
    return cv2.resize(image, (width, height))


def _draw_boxes(image: np.ndarray, sample: Any, classes: Sequence[str], score_thr: float) -> np.ndarray:
    found = sample.pred_instances
    found = found[found.scores >= score_thr].cpu()
    boxes = getattr(found.bboxes, 'tensor', found.bboxes)
    names = [str(classes[label]) if label < len(classes) else str(label) for label in found.labels.tolist()]
    return draw_detections(image, boxes.tolist(), names, found.scores.tolist(), list(classes) or None)


def _draw_target(image: np.ndarray, sample: Any) -> np.ndarray:
    """Draw the answer to a task: its regions and the region that was given; below them what was asked and answered."""
    height, width = image.shape[:2]
    region, regions = sample.get('prompt_region'), sample.pred_target.regions
    asked = None if region is None else [region[0] * width, region[1] * height, region[2] * width, region[3] * height]
    given = f': {sample.prompt_text}' if sample.get('prompt_text') else ''
    lines = [Line(sample.task.replace('_', ' ') + given, bold=True)]
    if not regions:
        lines.append(Line(sample.pred_target.text or 'nothing'))
    if 'gt_target' in sample and sample.gt_target.text:
        lines.append(Line(f'right: {sample.gt_target.text}'))
    drawn = draw_regions(image, regions_in_pixels(regions, width, height), asked)
    return draw_texts(drawn, lines, max(drawn.shape[:2])) if regions else draw_texts(drawn, lines)


def _text_lines(sample: Any, meta: Mapping[str, Any]) -> list[Line]:
    """The question, the best answers and the true ones; or the caption; or the score of a match."""
    lines = []
    if 'pred_scores' in sample:
        lines += _answer_lines(sample, meta)
    if 'pred_text' in sample:
        lines += [Line(sample.text, bold=True), Line(sample.pred_text)]
    if 'match_score' in sample:
        lines += [Line(sample.text, bold=True), Line(f'matches: {float(sample.match_score):.2f}')]
    if 'pred_caption' in sample:
        lines.append(Line(sample.pred_caption, bold=True))
        truth = sample.get('texts') or [sample.text] if 'text' in sample else []
        lines += [Line(f'written by people: {text}') for text in truth[:2]]
    return lines


def _answer_lines(sample: Any, meta: Mapping[str, Any]) -> list[Line]:
    scores = sample.pred_scores.detach().float().cpu()
    best = scores.sort(descending=True, stable=True).indices[:_TOP].tolist()
    names = meta.get('answers') or ()
    truth = {normalize_answer(answer) for answer in sample.get('answers') or ()}
    lines = [Line(sample.text, bold=True)]
    for label in best:
        name = str(names[label]) if label < len(names) else str(label)
        right = normalize_answer(name) in truth if truth and names and label == best[0] else None
        lines.append(Line(f'{name} {scores[label]:.2f}', right=right))
    if truth:
        lines.append(Line(f'people: {", ".join(sorted(truth))}'))
    return lines


def sample_stem(sample: Any) -> str:
    """Name a drawing after the file of its sample."""
    file = next((sample.get(key) for key in ('img_path', 'filename', 'video_path') if sample.get(key)), 'sample')
    return short_stem(str(file), 'sample')
