"""A small model that looks again at annotated regions: which object is nearest to a box, and where it ends.

It is trained on annotations of which a part is wrong. Windows around the boxes are shifted and scaled at random, so
that it learns where objects lie in them; as the faults differ from each other and the right ones agree, it follows the
right ones. Of each annotation it then says what the object there is, with its probability, and its box.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from florence_mm.curation.annotation_items import Item
from florence_mm.curation.annotation_pictures import read_picture_file
from florence_mm.curation.annotation_sources import TrainingData
from florence_mm.errors import UsageError
from florence_mm.formats.image import decode_image
from florence_mm.formats.rows import read_rows
from florence_mm.formats.tasks import parse_task_row
from florence_mm.utils.files import replacing, write_atomic

#: Side of a picture and of a window as the model sees them, in pixels.
PICTURE, WINDOW = 64, 28
#: Side of a window in sides of its box.
CONTEXT = 1.8
_STEPS_OF_BOXES = 3  # how often a box is looked for again, from where it was found
_TASK = 'detection'


class TrainingOptions(NamedTuple):
    """How a model is trained.

    Attributes:
        epochs: passes over the annotations.
        batch_size: windows of a step.
        lr: highest learning rate.
        shift: farthest centre of a window from that of its box, in sides of the box.
        scale: largest change of a window's side, as a natural logarithm.
        seed: of weights and windows.
    """

    epochs: int = 10
    batch_size: int = 64
    lr: float = 4e-3
    shift: float = 0.6
    scale: float = 0.25
    seed: int = 0


class _Net(nn.Module):
    """Convolutions over windows ``(B, 3, 28, 28)`` to class logits ``(B, K)`` and box edges ``(B, 4)``."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inside, outside, stride in ((3, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1)):
            layers += [nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 49, 128), nn.ReLU())
        self.label = nn.Linear(128, classes)
        self.edges = nn.Linear(128, 4)  # of the object in its window, whose edges are at -1 and 1

    def forward(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        x = self.body(windows)
        return self.label(x), self.edges(x)


def _cut(pictures: Tensor, windows: Tensor) -> Tensor:
    """Cut windows ``(B, 4)``, fractions, out of pictures ``(B, 3, H, W)`` to ``(B, 3, 28, 28)``."""
    centre, half = windows[:, :2] + windows[:, 2:] - 1, windows[:, 2:] - windows[:, :2]  # -1 to 1 over the picture
    theta = torch.zeros(len(windows), 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = half[:, 0], half[:, 1], centre
    grid = F.affine_grid(theta, [len(windows), 3, WINDOW, WINDOW], align_corners=False)
    return F.grid_sample(pictures, grid, padding_mode='border', align_corners=False)


def _around(boxes: Tensor, shift: Tensor | float = 0.0, scale: Tensor | float = 0.0) -> Tensor:
    """Square windows around boxes, in both ``(B, 4)``, with a shift ``(B, 2)`` in sides and a scale ``(B, 1)``."""
    side = (boxes[:, 2:] - boxes[:, :2]).amax(1, keepdim=True)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 + shift * side
    half = CONTEXT * side / 2 * torch.as_tensor(scale).exp()
    return torch.cat([centre - half, centre + half], 1)


def _inside(boxes: Tensor, windows: Tensor) -> Tensor:
    """Edges of boxes in the coordinates of their windows, -1 to 1."""
    centre, half = (windows[:, :2] + windows[:, 2:]) / 2, (windows[:, 2:] - windows[:, :2]) / 2
    return ((boxes.unflatten(1, (2, 2)) - centre[:, None]) / half[:, None]).flatten(1)


def _outside(edges: Tensor, windows: Tensor) -> Tensor:
    """The inverse of :func:`_inside`."""
    centre, half = (windows[:, :2] + windows[:, 2:]) / 2, (windows[:, 2:] - windows[:, :2]) / 2
    return (edges.unflatten(1, (2, 2)) * half[:, None] + centre[:, None]).flatten(1)


def _as_seen(image: np.ndarray) -> Tensor:
    """A picture of any size as ``(3, 64, 64)`` uint8."""
    if image.shape[:2] != (PICTURE, PICTURE):
        image = cv2.resize(image, (PICTURE, PICTURE), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def _scaled(pictures: Tensor) -> Tensor:
    return pictures.float() / 127.5 - 1


class RegionModel:
    """A trained model as a specialist of the data engine.

    Args:
        net: the network.
        labels: its classes.
        name: digest of its weights.
    """

    source = 'region model'
    tasks = (_TASK,)

    def __init__(self, net: nn.Module, labels: Sequence[str], name: str) -> None:
        self.net, self.labels, self.name = net.eval(), list(labels), name

    @torch.no_grad()
    def __call__(self, images: Sequence[np.ndarray], known: Sequence[Sequence[Item]]) -> list[list[Item]]:
        """Say what is at the known regions, where exactly, and how probable it is."""
        found: list[list[Item]] = [[] for _ in images]
        places = [(n, item.box) for n, items in enumerate(known) for item in items if item.task == _TASK]
        if not places:
            return found
        pictures = _scaled(torch.stack([_as_seen(image) for image in images]))[[n for n, _ in places]]
        boxes = torch.tensor([box for _, box in places], dtype=torch.float32)
        for _ in range(_STEPS_OF_BOXES):
            windows = _around(boxes)
            logits, edges = self.net(_cut(pictures, windows))
            boxes = _sound(_outside(edges, windows))
        probabilities = logits.softmax(1)
        for (n, _), box, each in zip(places, boxes.tolist(), probabilities, strict=True):
            label = int(each.argmax())
            found[n].append(Item(_TASK, self.labels[label], tuple(box), float(each[label])))
        return found


def _sound(boxes: Tensor) -> Tensor:
    """Boxes inside the picture with a side of at least a hundredth."""
    low, high = boxes[:, :2].clamp(0, 0.99), boxes[:, 2:].clamp(0.01, 1)
    return torch.cat([low, torch.maximum(high, low + 0.01)], 1)


class RegionTrainer:
    """Trains a :class:`RegionModel` on a task file.

    Args:
        options: see :class:`TrainingOptions`.
    """

    def __init__(self, options: TrainingOptions | None = None) -> None:
        self.options = options or TrainingOptions()
        self.name = f'region model {json.dumps(self.options._asdict())}'

    def __call__(self, data: TrainingData, folder: Path) -> RegionModel:
        """Train the model of a round, or load it; one that was stopped is trained from the start."""
        weights, about = folder / 'model.safetensors', folder / 'model.json'
        if not about.is_file():
            pictures, owner, boxes, names = _read(data)
            labels = sorted(set(names))
            net = train(pictures, owner, boxes, torch.tensor([labels.index(name) for name in names]), self.options)
            with replacing(weights) as temporary:
                save_file({key: tensor.contiguous() for key, tensor in net.state_dict().items()}, temporary)
            write_atomic(about, json.dumps({'labels': labels}))
        labels = json.loads(about.read_text())['labels']
        net = _Net(len(labels))
        net.load_state_dict(load_file(weights))
        return RegionModel(net, labels, hashlib.sha256(weights.read_bytes()).hexdigest()[:32])


def _read(data: TrainingData) -> tuple[Tensor, Tensor, Tensor, list[str]]:
    """Pictures ``(N, 3, 64, 64)``, and of each region the number of its picture, its box and its name."""
    numbers: dict[str, int] = {}
    owner: list[int] = []
    boxes: list[Any] = []
    names: list[str] = []
    for _, raw in read_rows(data.annotations):
        row = parse_task_row(raw)
        for region in row.regions if row.task == _TASK else ():
            for box in region.boxes:
                owner.append(numbers.setdefault(row.image, len(numbers)))
                boxes.append(box)
                names.append(region.text)
    if not names:
        raise UsageError(f'{data.annotations} has no regions of the task {_TASK}; annotate some')
    pictures = [_as_seen(decode_image(read_picture_file(data.root, image))) for image in numbers]
    return torch.stack(pictures), torch.tensor(owner), torch.tensor(boxes, dtype=torch.float32), names


def train(pictures: Tensor, owner: Tensor, boxes: Tensor, labels: Tensor, options: TrainingOptions) -> nn.Module:
    """Train a network on regions.

    Args:
        pictures: ``(N, 3, 64, 64)`` uint8.
        owner: ``(R,)`` number of the picture of each region.
        boxes: ``(R, 4)`` fractions.
        labels: ``(R,)`` classes.
        options: see :class:`TrainingOptions`.
    """
    size = min(options.batch_size, len(labels))
    steps = options.epochs * (len(labels) // size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        net = _Net(int(labels.max()) + 1)
        optimizer = torch.optim.AdamW(net.parameters(), lr=options.lr, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.lr, total_steps=steps)
        for _ in range(options.epochs):
            order = torch.randperm(len(labels))
            for batch in order[: len(order) // size * size].split(size):
                wide = torch.rand(size, 1)  # some windows are near their box, some far
                shift = (2 * torch.rand(size, 2) - 1) * options.shift * wide
                scale = (2 * torch.rand(size, 1) - 1) * options.scale * wide
                windows = _around(boxes[batch], shift, scale)
                seen = _scaled(pictures[owner[batch]])[:, torch.randperm(3)]  # colours say nothing of a digit
                if torch.rand(()) < 0.5:
                    seen = -seen
                logits, edges = net(_cut(seen, windows))
                label_loss = F.cross_entropy(logits, labels[batch], label_smoothing=0.05)
                loss = label_loss + 2 * F.l1_loss(edges, _inside(boxes[batch], windows))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    return net
