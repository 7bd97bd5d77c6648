"""Outputs of Perceiver IO (arXiv 2107.14795, section 3.2): each is what an output query reads from the latents.

A query says what is asked for: a task, or a place. An output depends on its query alone, so that a model is trained on
some of the outputs in each step, and predicts all of them a few at a time.

Shape legend: ``B`` images, ``N`` latents, ``C`` their channels, ``Q`` queries, ``D`` their channels, ``K`` classes.
"""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from florence_mm.models.layers.initialisation import init_bert_weights, trunc_normal_
from florence_mm.models.layers.latent_attention import LatentAttention
from florence_mm.ops.position import fourier_features, grid_places
from florence_mm.ops.precision import at_least_float32
from florence_mm.registry import MODELS

from .multimodal.reduction import mean_over_processes

#: Label of a place that is not trained on.
IGNORED = -1


@MODELS.register_module()
class PerceiverDecoder(BaseModule):
    """Learned queries that read the latents: a neck, behind which mmpretrain's heads see one vector an image.

    Args:
        in_channels: C.
        num_queries: Q; 1 for classification, a query for each task otherwise.
        query_dims: D; None: C.
        num_heads: heads of the attention.
        qk_channels: channels of queries and keys; None: C.
        mlp_ratio: hidden width of the MLP in multiples of D.
        query_residual: add the query to what it has read.
        init_std: standard deviation of the initial weights of linear layers.
        init_cfg: see mmengine.

    Raises:
        ValueError: ``num_heads`` does not divide ``qk_channels``, or there are no queries.
    """

    def __init__(
        self,
        in_channels: int,
        num_queries: int = 1,
        query_dims: int | None = None,
        num_heads: int = 1,
        qk_channels: int | None = None,
        mlp_ratio: float = 1,
        query_residual: bool = True,
        init_std: float = 0.02,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if num_queries < 1:
            raise ValueError(f'num_queries is {num_queries}; give at least 1')
        dims = query_dims or in_channels
        self.queries = nn.Parameter(torch.empty(num_queries, dims))
        self.cross_attend = LatentAttention(
            dims, num_heads, in_channels, qk_channels or in_channels, None, mlp_ratio, query_residual=query_residual
        )
        trunc_normal_(self.queries, std=0.02)
        init_bert_weights(self, init_std)

    def no_weight_decay(self) -> set[str]:
        """Parameters without weight decay: queries, norms, biases."""
        return {name for name, parameter in self.named_parameters() if parameter.ndim == 1 or name == 'queries'}

    def forward(self, feats: tuple[Tensor, ...]) -> tuple[Tensor]:
        """Decode the last of the backbone's outputs, ``(B, N, C)``, to ``(B, D)``; several queries to ``(B, Q, D)``."""
        x = self.cross_attend(self.queries[None], feats[-1])  # (B, Q, D)
        return (x[:, 0] if len(self.queries) == 1 else x,)


@MODELS.register_module()
class PlaceQueryHead(BaseModule):
    """Head that classifies places of an image: a query is made of the Fourier features of a place.

    A head of mmpretrain's ``ImageClassifier`` behind :class:`~florence_mm.models.backbones.Perceiver`. Samples have the
    fields ``places``, ``(Q, 2)``, x and y as fractions of the image, and for training ``place_labels``, ``(Q,)`` int64,
    -1 for a place that is not trained on. Prediction sets ``pred_places``, ``(Q,)``, and ``pred_place_scores``,
    ``(Q, K)``.

    Args:
        num_classes: K, "nothing there" included.
        in_channels: C.
        resolution: (height, width) whose places the highest frequencies tell apart.
        query_dims: D; None: C.
        num_bands: frequencies of the Fourier features on each axis.
        num_heads: heads of the attention.
        mlp_ratio: hidden width of the MLP in multiples of D.
        num_sampled: places of each image that a training step draws; None: all.
        chunk_size: places of each image that are predicted at once.
        init_std: standard deviation of the initial weights of linear layers.
        init_cfg: see mmengine.

    Raises:
        ValueError: a number is below 1, or ``num_heads`` does not divide C.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        resolution: Sequence[int],
        query_dims: int | None = None,
        num_bands: int = 16,
        num_heads: int = 1,
        mlp_ratio: float = 1,
        num_sampled: int | None = None,
        chunk_size: int = 1024,
        init_std: float = 0.02,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        for name, number in (('num_classes', num_classes), ('num_sampled', num_sampled), ('chunk_size', chunk_size)):
            if number is not None and number < 1:
                raise ValueError(f'{name} is {number}; give at least 1')
        self.resolution, self.num_bands = tuple(resolution), num_bands
        self.num_sampled, self.chunk_size = num_sampled, chunk_size
        dims = query_dims or in_channels
        self.query = nn.Linear(2 + 4 * num_bands, dims)
        # the query says where, and the output what is there
        self.cross_attend = LatentAttention(
            dims, num_heads, in_channels, in_channels, mlp_ratio=mlp_ratio, query_residual=False
        )
        self.fc = nn.Linear(dims, num_classes)
        init_bert_weights(self, init_std)

    def forward(self, feats: tuple[Tensor, ...], places: Tensor | None = None) -> Tensor:
        """Classify places.

        Args:
            feats: outputs of the backbone, the last one ``(B, N, C)``.
            places: ``(B, Q, 2)``, x and y from 0 to 1; ``(1, Q, 2)`` if they are those of all images; None: the places
                of a map of ``resolution``, row by row.

        Returns:
            logits ``(B, Q, K)``.
        """
        places = _map_places(self.resolution, feats[-1].device) if places is None else places
        return self._decode(self.cross_attend.keys_values(feats[-1]), places)

    def _decode(self, keys_values: tuple[Tensor, Tensor], places: Tensor) -> Tensor:
        places = 2 * at_least_float32(places).flip(-1) - 1  # y before x, as rows before columns
        features = fourier_features(places, self.num_bands, self.resolution)
        queries = self.query(features.to(keys_values[0].dtype))  # (B or 1, Q, D)
        return self.fc(self.cross_attend(queries, keys_values=keys_values))

    def loss(self, feats: tuple[Tensor, ...], data_samples: Sequence[Any], **kwargs: Any) -> dict[str, Tensor]:
        """Compute the cross-entropy of drawn places, a mean over those of all processes, and ``acc_places``.

        Args:
            feats: outputs of the backbone, the last one ``(B, N, C)``.
            data_samples: B samples with ``places`` and ``place_labels``.
            **kwargs: of mmpretrain's classifier; not used.

        Raises:
            ValueError: a sample lacks a field.
        """
        rows = [(sample.places, sample.place_labels) for sample in _checked(data_samples, 'places', 'place_labels')]
        if self.num_sampled is not None:
            drawn = [torch.randperm(len(places))[: self.num_sampled] for places, _ in rows]
            rows = [(x[which], y[which]) for (x, y), which in zip(rows, drawn, strict=True)]
        places = nn.utils.rnn.pad_sequence([x for x, _ in rows], batch_first=True).to(feats[-1].device)
        labels = nn.utils.rnn.pad_sequence([y for _, y in rows], batch_first=True, padding_value=IGNORED)
        labels = labels.to(feats[-1].device).flatten()  # (B Q,)
        logits = at_least_float32(self(feats, places)).flatten(0, 1)  # (B, Q, K) -> (B Q, K)
        counted = labels != IGNORED
        number = sum(int((y != IGNORED).sum()) for _, y in rows)
        total = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction='sum')
        right = ((logits.argmax(1) == labels) & counted).float().sum()
        return {'loss': mean_over_processes(total, number), 'acc_places': right / max(number, 1)}

    @torch.no_grad()
    def predict(
        self, feats: tuple[Tensor, ...], data_samples: Sequence[Any] | None = None, **kwargs: Any
    ) -> Sequence[Any]:
        """Set ``pred_places`` and ``pred_place_scores`` of samples, ``chunk_size`` places at a time.

        Args:
            feats: outputs of the backbone, the last one ``(B, N, C)``.
            data_samples: B samples with ``places``.
            **kwargs: of mmpretrain's classifier; not used.

        Raises:
            ValueError: there are no samples, or one lacks ``places``.
        """
        samples = _checked(data_samples or [None], 'places')
        places = nn.utils.rnn.pad_sequence([sample.places for sample in samples], batch_first=True)
        scores = self._in_chunks(feats, places.to(feats[-1].device)).softmax(-1)
        for sample, rows in zip(samples, scores, strict=True):
            rows = rows[: len(sample.places)]
            sample.set_field(rows, 'pred_place_scores')
            sample.set_field(rows.argmax(-1), 'pred_places')
        return samples

    @torch.no_grad()
    def predict_map(self, feats: tuple[Tensor, ...], size: Sequence[int]) -> Tensor:
        """Classify all places of a map, ``chunk_size`` at a time.

        Args:
            feats: outputs of the backbone, the last one ``(B, N, C)``.
            size: (height, width) of the map.

        Returns:
            logits ``(B, K, height, width)``, at least fp32.
        """
        return self._in_chunks(feats, _map_places(size, feats[-1].device)).transpose(1, 2).unflatten(2, tuple(size))

    def _in_chunks(self, feats: tuple[Tensor, ...], places: Tensor) -> Tensor:
        keys_values = self.cross_attend.keys_values(feats[-1])
        parts = [self._decode(keys_values, part) for part in places.split(self.chunk_size, 1)]
        return at_least_float32(torch.cat(parts, 1))  # (B, Q, K)


def _map_places(size: Sequence[int], device: torch.device) -> Tensor:
    """Return the places ``(1, Q, 2)`` of a map, x and y from 0 to 1, row by row."""
    return (grid_places(size, device).flip(-1)[None] + 1) / 2


def _checked(samples: Sequence[Any], *fields: str) -> Sequence[Any]:
    """Return the samples if each has the fields."""
    for index, sample in enumerate(samples):
        for name in fields:
            if sample is None or name not in sample:
                raise ValueError(
                    f'sample {index} of the batch has no {name!r}; put a step that sets it into the pipeline, such as '
                    "dict(type='florence_mm.PackPlaces')"
                )
    return samples
