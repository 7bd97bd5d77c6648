"""A small model that looks again at annotated regions: which object is nearest to a box, and where it ends.

Histograms of gradients of a window around the box, random Fourier features of them, and ridge regression, once to the
edges of the object and once to its name. Windows are shifted and scaled at random in training, so that the model learns
where objects lie in them; as wrong annotations differ from each other and right ones agree, it follows the right ones.
Training takes seconds, and there is one solution.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from florence_mm.curation.annotation_items import Item
from florence_mm.curation.annotation_pictures import read_picture_file
from florence_mm.curation.annotation_sources import TrainingData
from florence_mm.errors import UsageError
from florence_mm.formats.image import decode_image
from florence_mm.formats.rows import read_rows
from florence_mm.formats.tasks import parse_task_row
from florence_mm.utils.files import write_atomic

#: Sides of windows in sides of their boxes: to find the edges, and to tell the name.
WIDE, TIGHT = 1.8, 1.25
#: Least score of a name that is given beside the best one.
LEAST = 0.2
_TASK = 'detection'
_SIDE = 32  # pixels of a window
_HISTOGRAMS = cv2.HOGDescriptor((_SIDE, _SIDE), (16, 16), (8, 8), (8, 8), 9)
_BATCH = 2048


@dataclass(frozen=True)
class TrainingOptions:
    """How a model is trained.

    Attributes:
        features: random Fourier features.
        gamma: their frequency.
        ridge: weight of the squared norm of the solution.
        wide, tight: windows of each region, for edges and names.
        shift, scale: farthest centre of a wide window from that of its box, in sides of the box, and the largest change
            of its side, as a natural logarithm. Tight windows have an eighth and a third of them.
        searches: how often a box is looked for again from where it was found.
        seed: of the features and windows.
    """

    features: int = 2000
    gamma: float = 0.4
    ridge: float = 1.0
    wide: int = 4
    tight: int = 3
    shift: float = 0.7
    scale: float = 0.25
    searches: int = 3
    seed: int = 0


def windows_around(
    boxes: np.ndarray, context: float, shift: np.ndarray | float = 0.0, scale: np.ndarray | float = 0.0
) -> np.ndarray:
    """Make square windows around boxes, both ``(N, 4)``, shifted ``(N, 2)`` in sides and scaled ``(N, 1)``."""
    side = (boxes[:, 2:] - boxes[:, :2]).max(1, keepdims=True)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 + shift * side
    half = context * side / 2 * np.exp(scale)
    return np.concatenate([centre - half, centre + half], 1)


def edges_in(boxes: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Edges ``(N, 4)`` of boxes in the coordinates of their windows, -1 to 1."""
    centre, half = (windows[:, :2] + windows[:, 2:]) / 2, (windows[:, 2:] - windows[:, :2]) / 2
    return ((boxes.reshape(-1, 2, 2) - centre[:, None]) / half[:, None]).reshape(-1, 4)


def boxes_from(edges: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """The inverse of :func:`edges_in`, inside the picture and with sides of at least a fiftieth."""
    centre, half = (windows[:, :2] + windows[:, 2:]) / 2, (windows[:, 2:] - windows[:, :2]) / 2
    boxes = (edges.reshape(-1, 2, 2) * half[:, None] + centre[:, None]).reshape(-1, 4)
    low, high = boxes[:, :2].clip(0, 0.98), boxes[:, 2:].clip(0.02, 1)
    return np.concatenate([low, np.maximum(high, low + 0.02)], 1)


def describe_windows(pictures: Sequence[np.ndarray], owners: Sequence[int], windows: np.ndarray) -> np.ndarray:
    """Compute the histograms of gradients ``(N, 324)`` of windows.

    Args:
        pictures: pictures ``(H, W, 3)`` uint8.
        owners: N indices of pictures.
        windows: ``(N, 4)`` fractions; outside the picture its edge goes on.
    """
    found = np.empty((len(windows), _HISTOGRAMS.getDescriptorSize()), np.float32)
    for place, (owner, window) in enumerate(zip(owners, windows, strict=True)):
        picture = pictures[owner]
        size = np.array(picture.shape[1::-1])
        step = (window[2:] - window[:2]) * size / _SIDE
        start = window[:2] * size + step / 2 - 0.5
        matrix = np.array([[step[0], 0, start[0]], [0, step[1], start[1]]], np.float32)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        cut = cv2.warpAffine(picture, matrix, (_SIDE, _SIDE), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        found[place] = _HISTOGRAMS.compute(cut).ravel()
    return found


class RegionModel:
    """A trained model as a specialist of the data engine.

    Args:
        labels: its classes.
        weights: arrays of :func:`train`.
        searches: see :class:`TrainingOptions`.
        name: digest of its weights.
    """

    source = 'region model'
    tasks = (_TASK,)

    def __init__(self, labels: Sequence[str], weights: Mapping[str, np.ndarray], searches: int, name: str) -> None:
        self.labels, self.name = list(labels), name
        self._weights, self._searches = weights, searches

    def __call__(self, images: Sequence[np.ndarray], known: Sequence[Sequence[Item]]) -> list[list[Item]]:
        """Say what is at the known regions, where exactly, and how sure it is; several names where it is not sure."""
        found: list[list[Item]] = [[] for _ in images]
        places = [(n, item.box) for n, items in enumerate(known) for item in items if item.task == _TASK]
        if not places:
            return found
        owners, boxes = [n for n, _ in places], np.array([box for _, box in places])
        for _ in range(self._searches):
            windows = windows_around(boxes, WIDE)
            boxes = boxes_from(self._predict('edges', describe_windows(images, owners, windows)), windows)
        scores = self._predict('names', describe_windows(images, owners, windows_around(boxes, TIGHT))).clip(0, 1)
        for n, box, each in zip(owners, boxes.tolist(), scores, strict=True):
            for label in np.flatnonzero(each >= min(LEAST, each.max())).tolist():
                found[n].append(Item(_TASK, self.labels[label], tuple(box), float(each[label])))
        return found

    def _predict(self, what: str, described: np.ndarray) -> np.ndarray:
        waves = _waves(described, self._weights)
        return waves @ self._weights[what] + self._weights[f'mean {what}']


def _waves(described: np.ndarray, weights: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.cos(described @ weights['frequencies'] + weights['phases'])


class RegionTrainer:
    """Trains a :class:`RegionModel` on a task file.

    Args:
        options: see :class:`TrainingOptions`.
    """

    def __init__(self, options: TrainingOptions | None = None) -> None:
        self.options = options or TrainingOptions()
        self.name = f'region model {json.dumps(asdict(self.options))}'

    def __call__(self, data: TrainingData, folder: Path) -> RegionModel:
        """Train the model of a round, or load it; one that was stopped is trained from the start."""
        path = folder / 'model.npz'
        if not path.is_file():
            pictures, owners, boxes, names = _read(data)
            labels = sorted(set(names))
            weights = train(pictures, owners, boxes, np.array([labels.index(name) for name in names]), self.options)
            buffer = io.BytesIO()
            np.savez(buffer, labels=np.array(labels), **weights)
            write_atomic(path, buffer.getvalue())
        with np.load(path) as content:
            weights = dict(content)
        labels = weights.pop('labels').tolist()
        digest = hashlib.sha256(b''.join(weights[key].tobytes() for key in sorted(weights))).hexdigest()[:32]
        return RegionModel(labels, weights, self.options.searches, digest)


def _read(data: TrainingData) -> tuple[list[np.ndarray], np.ndarray, np.ndarray, list[str]]:
    """Pictures, and of each region the number of its picture, its box and its name."""
    numbers: dict[str, int] = {}
    owners, boxes, names = [], [], []
    for _, raw in read_rows(data.annotations):
        row = parse_task_row(raw)
        for region in row.regions if row.task == _TASK else ():
            for box in region.boxes:
                owners.append(numbers.setdefault(row.image, len(numbers)))
                boxes.append(box)
                names.append(region.text)
    if not names:
        raise UsageError(f'{data.annotations} has no regions of the task {_TASK}; annotate some')
    pictures = [decode_image(read_picture_file(data.root, image)) for image in numbers]
    return pictures, np.array(owners), np.array(boxes), names


def train(
    pictures: Sequence[np.ndarray], owners: np.ndarray, boxes: np.ndarray, labels: np.ndarray, options: TrainingOptions
) -> dict[str, np.ndarray]:
    """Train on regions.

    Args:
        pictures: pictures ``(H, W, 3)`` uint8.
        owners: ``(R,)`` number of the picture of each region.
        boxes: ``(R, 4)`` fractions.
        labels: ``(R,)`` classes.
        options: see :class:`TrainingOptions`.

    Returns:
        ``frequencies`` (324, F) and ``phases`` (F,) of the features, ``edges`` (F, 4) and ``names`` (F, K) with their
        means.
    """
    rng = np.random.default_rng([options.seed, *b'region model'])
    size = _HISTOGRAMS.getDescriptorSize()
    weights = {
        'frequencies': (options.gamma * rng.standard_normal((size, options.features))).astype(np.float32),
        'phases': rng.uniform(0, 2 * np.pi, options.features).astype(np.float32),
    }
    described, wanted = [], []
    for _ in range(options.wide):
        near = rng.random((len(boxes), 1))  # some windows are near their box, some far
        shift = rng.uniform(-1, 1, (len(boxes), 2)) * options.shift * near
        scale = rng.uniform(-1, 1, (len(boxes), 1)) * options.scale * near
        windows = windows_around(boxes, WIDE, shift, scale)
        described.append(describe_windows(pictures, owners, windows))
        wanted.append(edges_in(boxes, windows))
    weights |= _solve('edges', np.concatenate(described), np.concatenate(wanted), weights, options.ridge)
    described = []
    for _ in range(options.tight):
        shift = rng.uniform(-1, 1, (len(boxes), 2)) * options.shift / 8
        scale = rng.uniform(-1, 1, (len(boxes), 1)) * options.scale / 3
        described.append(describe_windows(pictures, owners, windows_around(boxes, TIGHT, shift, scale)))
    one_hot = np.tile(np.eye(labels.max() + 1)[labels], (options.tight, 1))
    return weights | _solve('names', np.concatenate(described), one_hot, weights, options.ridge)


def _solve(
    what: str, described: np.ndarray, wanted: np.ndarray, weights: Mapping[str, np.ndarray], ridge: float
) -> dict[str, np.ndarray]:
    """Ridge regression on the Fourier features, in parts of the rows."""
    mean, count = wanted.mean(0), len(weights['phases'])
    products, sums = np.zeros((count, count)), np.zeros((count, wanted.shape[1]))
    for start in range(0, len(described), _BATCH):
        waves = _waves(described[start : start + _BATCH], weights)
        products += waves.T @ waves
        sums += waves.T @ (wanted[start : start + _BATCH] - mean)
    products[np.diag_indices(count)] += ridge * count / 2
    solution = np.linalg.solve(products, sums)
    return {what: solution.astype(np.float32), f'mean {what}': mean.astype(np.float32)}
