"""Stage of the dynamic decoder of Dynamic DETR (ICCV 2021, section 3.3).

A stage lets the queries attend to each other, filters the features of their boxes by a 1x1 convolution whose weights
come from the query, and refines embedding, box and class.

Shape legend: ``B`` images, ``Q`` queries of an image, ``C`` channels, ``D`` channels after the filter, ``P`` bins along
a side of a region, ``K`` classes. Boxes are centre x, centre y, width, height, as parts of the image.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from florence_mm.ops.attention import attention
from florence_mm.ops.precision import at_least_float32

_LARGEST_STEP = math.log(1000 / 16)  # of the logarithm of a side, as in mmdet's box coder


class DynamicFilter(nn.Module):
    """Dynamic 1x1 convolution of a region's features, followed by a linear layer over all of its positions.

    Args:
        channels: ``C``.
        filter_channels: ``D``.
        roi_size: ``P``.
    """

    def __init__(self, channels: int, filter_channels: int, roi_size: int) -> None:
        super().__init__()
        self.channels, self.filter_channels = channels, filter_channels
        self.weights = nn.Linear(channels, channels * filter_channels)
        self.norm = nn.LayerNorm(filter_channels)
        self.project = nn.Linear(filter_channels * roi_size**2, channels)

    def forward(self, regions: Tensor, query: Tensor) -> Tensor:
        """Filter regions by weights made from their queries.

        Args:
            regions: ``(B, Q, P * P, C)``.
            query: ``(B, Q, C)``.

        Returns:
            ``(B, Q, C)``.
        """
        weights = self.weights(query).unflatten(-1, (self.channels, self.filter_channels))  # (B, Q, C, D)
        filtered = F.relu(self.norm(torch.matmul(regions, weights)))  # (B, Q, P * P, D)
        return self.project(filtered.flatten(2))


class DynamicDecoderStage(nn.Module):
    """Stage of the dynamic decoder: self-attention, dynamic filter, MLP, each with residual and norm; predictions.

    Args:
        channels: ``C``.
        num_classes: outputs of the classifier.
        num_heads: heads of self-attention.
        filter_channels: ``D``.
        feedforward_channels: hidden channels of the MLP.
        roi_size: ``P``.
        num_reg_fcs: hidden layers of the box regression.
        drop_rate: dropout before each residual, and of attention weights.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        num_heads: int,
        filter_channels: int,
        feedforward_channels: int,
        roi_size: int,
        num_reg_fcs: int,
        drop_rate: float,
    ) -> None:
        super().__init__()
        self.num_heads, self.drop_rate = num_heads, drop_rate
        self.query_key = nn.Linear(channels, 2 * channels)
        self.value = nn.Linear(channels, channels)
        self.output = nn.Linear(channels, channels)
        self.filter = DynamicFilter(channels, filter_channels, roi_size)
        self.mlp = nn.Sequential(
            nn.Linear(channels, feedforward_channels), nn.ReLU(), nn.Linear(feedforward_channels, channels)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(3))
        self.classify = nn.Linear(channels, num_classes)
        hidden = [layer for _ in range(num_reg_fcs) for layer in (nn.Linear(channels, channels), nn.ReLU())]
        self.refine = nn.Sequential(*hidden, nn.Linear(channels, 4))
        nn.init.constant_(self.classify.bias, -math.log(99))  # probability 0.01
        nn.init.zeros_(self.refine[-1].weight)
        nn.init.zeros_(self.refine[-1].bias)

    def forward(self, query: Tensor, boxes: Tensor, place: Tensor, regions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Refine queries.

        Args:
            query: ``(B, Q, C)``.
            boxes: ``(B, Q, 4)``.
            place: encodings of the boxes, ``(B, Q, C)``.
            regions: features of the boxes, ``(B, Q, P * P, C)``.

        Returns:
            new queries ``(B, Q, C)``, new boxes ``(B, Q, 4)``, class logits ``(B, Q, K)``.
        """
        query = self.norms[0](query + self._drop(self._attend(query, place)))
        query = self.norms[1](query + self._drop(self.filter(regions, query)))
        query = self.norms[2](query + self._drop(self.mlp(query)))
        return query, move_boxes(boxes, at_least_float32(self.refine(query))), at_least_float32(self.classify(query))

    def _attend(self, query: Tensor, place: Tensor) -> Tensor:
        """Self-attention with the encodings of boxes added to queries and keys, ``(B, Q, C)``."""
        parts = torch.cat([self.query_key(query + place), self.value(query)], -1)
        # (B, H, Q, C / H) each
        heads = [part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts.chunk(3, -1)]
        mixed = attention(*heads, dropout_p=self.drop_rate if self.training else 0.0)
        return self.output(mixed.transpose(1, 2).flatten(2))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.drop_rate, self.training)


def move_boxes(boxes: Tensor, steps: Tensor) -> Tensor:
    """Move centres by multiples of the sides, and multiply the sides by exponentials.

    Args:
        boxes: ``(..., 4)``.
        steps: ``(..., 4)``.

    >>> move_boxes(torch.tensor([0.5, 0.5, 0.2, 0.4]), torch.tensor([1.0, -0.5, 0.0, 0.0]))
    tensor([0.7000, 0.3000, 0.2000, 0.4000])
    """
    sides = boxes[..., 2:]
    centres = boxes[..., :2] + steps[..., :2] * sides
    return torch.cat([centres, sides * steps[..., 2:].clamp(-_LARGEST_STEP, _LARGEST_STEP).exp()], -1)


def spread_boxes(count: int, side: float) -> Tensor:
    """Squares whose centres are spread over the image: a grid of equal cells, in raster order, ``(count, 4)``.

    >>> spread_boxes(2, 0.25)
    tensor([[0.2500, 0.5000, 0.2500, 0.2500],
            [0.7500, 0.5000, 0.2500, 0.2500]])
    """
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    number = torch.arange(count)
    centres = torch.stack([(number % columns + 0.5) / columns, (number // columns + 0.5) / rows], 1)
    return torch.cat([centres, torch.full((count, 2), side)], 1)
