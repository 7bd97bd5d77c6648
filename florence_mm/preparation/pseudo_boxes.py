"""Pseudo boxes: a trained detector finds boxes in images whose class is known (Florence, section 2.4)."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from florence_mm.datasets.skipping import SkipCounter
from florence_mm.errors import DataError
from florence_mm.formats.coco import require_name
from florence_mm.utils.files import refuse_overwriting, replacing, write_atomic
from florence_mm.utils.numbers import is_finite, is_whole
from florence_mm.utils.progress import ProgressLog

from .merging.json_lists import require
from .merging.taxonomy import class_key

#: path of an image -> boxes ``(n, 4)`` as x1, y1, x2, y2 in pixels, scores ``(n,)``, n class names, and (height, width)
#: of the image; raises DataError if the image cannot be read
Detect = Callable[[str], tuple[np.ndarray, np.ndarray, Sequence[str], tuple[int, int]]]


@dataclass
class PseudoBoxCounts:
    """Counts of written and left out images and boxes.

    Attributes:
        images: Images written.
        images_without_boxes: Images without a box that is good enough; not written.
        boxes: Boxes written.
        low_score, other_class, beyond_top_k: Boxes left out, by the first reason that applies.
        unreadable: Images left out because they cannot be read.
        resumed: Images taken over from an interrupted run.
    """

    images: int = 0
    images_without_boxes: int = 0
    boxes: int = 0
    low_score: int = 0
    other_class: int = 0
    beyond_top_k: int = 0
    unreadable: int = 0
    resumed: int = 0


def select_boxes(
    boxes: np.ndarray, scores: np.ndarray, class_matches: np.ndarray, score_thr: float, top_k: int
) -> tuple[np.ndarray, dict[str, int]]:
    """Select the boxes to keep: their indices, best first, and the numbers left out by reason.

    Args:
        boxes: ``(n, 4)``, x1, y1, x2, y2 in pixels.
        scores: ``(n,)``.
        class_matches: ``(n,)`` bool, whether a box is of the image's class.
        score_thr: Lowest score; boxes without area count as below it.
        top_k: Most boxes per image.

    Raises:
        DataError: lengths differ, or a value is not finite.
    """
    if boxes.shape != (len(scores), 4) or len(class_matches) != len(scores):
        raise DataError(
            f'the detector gave boxes {boxes.shape}, {len(scores)} scores, '
            f'{len(class_matches)} classes; expected n of each'
        )
    if not np.isfinite(scores).all() or not np.isfinite(boxes).all():
        raise DataError('the detector gave scores or boxes that are not finite; look at its weights')
    good = scores >= score_thr
    area = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    # stable, so that equal scores keep their order
    order = np.argsort(-scores, kind='stable')
    kept = [index for index in order if class_matches[index] and good[index] and area[index]]
    reasons = {
        'other_class': int((~class_matches).sum()),
        'low_score': int((class_matches & ~(good & area)).sum()),
        'beyond_top_k': max(len(kept) - top_k, 0),
    }
    return np.array(kept[:top_k], dtype=int), reasons


def write_pseudo_boxes(
    rows: Sequence[tuple[str, str]],
    detect: Detect,
    out: str | Path,
    image_root: str | Path = '',
    detector_classes: Sequence[str] | None = None,
    score_thr: float = 0.5,
    top_k: int = 10,
    options: Mapping[str, Any] | None = None,
    max_bad: int | float = 0,
) -> PseudoBoxCounts:
    """Write the boxes that a detector finds in images of known class, as a COCO-format file for ``merge_detection``.

    Boxes of a class-agnostic detector get the class of their image; of any other detector only the boxes of that class
    are kept. Only its own class is marked as annotated in each image. The file appears once all is done; boxes go to
    ``OUT.partial.jsonl`` first, from which an interrupted run continues. Images that were left out stay so; images of
    damaged lines of the partial file are processed again.

    Args:
        rows (Sequence[tuple[str, str]]): File name and class name of each image.
        detect (Callable): Maps the path of an image to boxes, scores, class names and (height, width).
        out (str or Path): The file to write.
        image_root (str or Path): Folder that file names are relative to.
        detector_classes (Sequence[str] | None): Names of the detector's classes; None: class-agnostic.
        score_thr (float): Lowest score of a box.
        top_k (int): Most boxes per image.
        options (Mapping | None): What else the boxes depend on, such as the checkpoint; a run with other options does
            not continue from the partial file.
        max_bad (int | float): How many unreadable images may be left out: a number, or below 1 a fraction.

    Raises:
        DataError: there are no rows, the detector lacks a class, more than ``max_bad`` images cannot be read, or the
            partial file is of another run or its first line is damaged.
        ValueError: ``max_bad`` is negative, or a fraction above 1.
    """
    if not rows:
        raise DataError('there are no images to find boxes in; give rows of file name and class')
    if not is_finite(score_thr) or not 0 <= score_thr <= 1 or not is_whole(top_k) or top_k < 1:
        raise DataError(
            f'score_thr={score_thr!r} and top_k={top_k!r}; expected a score from 0 to 1 and at least one box'
        )
    if detector_classes is not None:
        known = set(map(class_key, detector_classes))
        unknown = sorted({class_ for _, class_ in rows if class_key(class_) not in known})
        if unknown:
            raise DataError(
                f'the detector has no class {unknown[0]!r} ({len(unknown)} classes of the images are missing); take a '
                'class-agnostic detector or drop these images'
            )
    skips = SkipCounter(str(out), max_bad, 'max_bad=...')
    skips.finish_lines(len(rows))
    out, partial, report = output_files(out)
    images = (Path(image_root, name) for name, _ in rows if Path(name).name in (out.name, partial.name, report.name))
    for image in images:
        for path in (out, partial, report):
            refuse_overwriting(path, [image])
    out.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.blake2b(json.dumps(rows).encode(), digest_size=8).hexdigest()
    header = {'images': len(rows), 'rows': digest, 'score_thr': score_thr, 'top_k': top_k, **(options or {})}
    header = json.loads(json.dumps(header))  # as it is read back, with lists for tuples
    done, unreadable = _resume(partial, header)
    for number, sentence in unreadable.items():
        skips.add_image(number, DataError(sentence))
    progress = ProgressLog(f'finding boxes for {out}', len(rows))
    with partial.open('a', encoding='utf-8') as file:
        if not file.tell():
            file.write(json.dumps({'options': header}) + '\n')
        for number in range(done, len(rows)):
            name, class_ = rows[number]
            try:
                boxes, scores, names, size = detect(str(Path(image_root, name)))
            except DataError as error:
                skips.add_image(number, error)
                line = {'file_name': name, 'unreadable': str(error)}
            else:
                boxes, scores = np.asarray(boxes, float).reshape(-1, 4), np.asarray(scores, float)
                boxes = boxes.clip(0, (size[1], size[0]) * 2)  # NaN stays
                same = [detector_classes is None or class_key(other) == class_key(class_) for other in names]
                kept, reasons = select_boxes(boxes, scores, np.array(same, bool), score_thr, top_k)
                found = [[*_xywh(boxes[i]), round(float(scores[i]), 4)] for i in kept]
                line = {'file_name': name, 'class': class_, 'size': list(size), 'boxes': found, 'left_out': reasons}
            file.write(json.dumps(line, ensure_ascii=False) + '\n')
            file.flush()
            progress.update(number + 1)
    counts = _write_coco(partial, out)
    counts.unreadable, counts.resumed = skips.total, done
    write_atomic(report, json.dumps({**header, **asdict(counts)}, indent=1) + '\n')
    partial.unlink()
    return counts


def output_files(out: str | Path) -> tuple[Path, Path, Path]:
    """Paths of the annotations, of the partial file until they are complete, and of the report."""
    out = Path(out)
    return out, out.with_name(out.name + '.partial.jsonl'), out.with_suffix('.report.json')


def _resume(partial: Path, header: dict) -> tuple[int, dict[int, str]]:
    """Return how many images are done, and the error message of each unreadable one.

    Truncates the file after its last complete line, as an interrupted run leaves only its end incomplete.
    """
    done, length = -1, 0
    unreadable: dict[int, str] = {}
    if not partial.is_file():
        return 0, unreadable
    with partial.open('rb') as file:
        for raw in file:
            line = _parse(raw)
            if done < 0 and raw.endswith(b'\n') and 'options' not in line:
                raise DataError(f'the first line of {partial} is damaged; remove the file to find all boxes again')
            if done < 0 and raw.endswith(b'\n') and line['options'] != header:
                raise DataError(
                    f'{partial} is of a run with other images or options; remove it, or go on with those of that run'
                )
            if not line:
                break
            if 'unreadable' in line:
                unreadable[done] = line['unreadable']
            done, length = done + 1, length + len(raw)
    os.truncate(partial, length)
    return max(done, 0), unreadable


def _parse(raw: bytes) -> dict:
    """The object in a complete line; empty if the line is damaged."""
    try:
        line = json.loads(raw) if raw.endswith(b'\n') else {}
    except ValueError:  # of JSON and of UTF-8
        return {}
    return line if isinstance(line, dict) else {}


def _lines(partial: Path) -> Iterator[dict]:
    """Yield the detections of one image at a time."""
    with partial.open(encoding='utf-8') as file:
        next(file)
        yield from (line for line in map(json.loads, file) if 'unreadable' not in line)


def _write_coco(partial: Path, out: Path) -> PseudoBoxCounts:
    """Convert the partial file to COCO's format, with one line at a time in memory."""
    classes = sorted({line['class'] for line in _lines(partial)})
    ids = {name: id_ for id_, name in enumerate(classes, 1)}
    counts = PseudoBoxCounts()
    with replacing(out) as temporary, temporary.open('w', encoding='utf-8', newline='\n') as file:
        file.write('{"categories": ')
        _write_list(file, ({'id': id_, 'name': name} for name, id_ in ids.items()))
        file.write(',\n"images": ')
        _write_list(file, _images(partial, counts))
        if not counts.images:
            raise DataError(
                f'no box in any of {counts.images_without_boxes} images was good enough; lower score_thr'
                if counts.images_without_boxes
                else 'none of the images can be read; correct image_root or the file names'
            )
        file.write(',\n"annotations": ')
        _write_list(file, _annotations(partial, ids, counts))
        file.write('}\n')
    return counts


def _images(partial: Path, counts: PseudoBoxCounts) -> Iterator[dict]:
    for line in _lines(partial):
        for reason, count in line['left_out'].items():
            setattr(counts, reason, getattr(counts, reason) + count)
        if not line['boxes']:
            counts.images_without_boxes += 1
            continue
        counts.images += 1
        height, width = line['size']
        image = {'id': counts.images, 'file_name': line['file_name'], 'width': width, 'height': height}
        # only the class of its boxes is annotated
        yield image | {'neg_category_ids': [], 'not_exhaustive_category_ids': []}


def _annotations(partial: Path, ids: Mapping[str, int], counts: PseudoBoxCounts) -> Iterator[dict]:
    image = 0
    for line in _lines(partial):
        image += bool(line['boxes'])
        for *box, score in line['boxes']:
            counts.boxes += 1
            yield {
                'id': counts.boxes,
                'image_id': image,
                'category_id': ids[line['class']],
                'bbox': box,
                'area': round(box[2] * box[3], 2),
                'iscrowd': 0,
                'score': score,
            }


def _write_list(file: Any, items: Iterable[dict]) -> None:
    separator = '['
    for item in items:
        file.write(separator + '\n' + json.dumps(item, ensure_ascii=False))
        separator = ','
    file.write('\n]')


def _xywh(box: np.ndarray) -> list[float]:
    x1, y1, x2, y2 = (round(float(value), 2) for value in box)
    return [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)]


def image_classes(manifest_rows: Iterable[tuple[int, dict | DataError]], path: str) -> list[tuple[str, str]]:
    """Take file and class names from rows of a manifest (:func:`florence_mm.formats.rows.read_rows`).

    Raises:
        DataError: a row lacks ``image``, or its ``class`` is not a name.
    """
    pairs = []
    for line, row in manifest_rows:
        if isinstance(row, DataError):
            raise row
        where = f'{path}, line {line}'
        image, class_ = (require_name(require(row, key, str, where), where, key) for key in ('image', 'class'))
        pairs.append((image, class_))
    return pairs
