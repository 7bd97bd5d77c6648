"""Image-text retrieval in two stages: features find candidates, a fusion model re-ranks them.

The second stage is METER's retrieval by its matching head (arXiv 2111.02387), but only for the best candidates, as in
ALBEF (arXiv 2107.07651, section 3.4), since the cost of fusing all images with all texts grows with their product.

Shape legend: ``B`` images, ``N`` image tokens, ``C`` hidden size, ``P`` pairs.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from florence_mm.models.base import FlorenceModel
from florence_mm.registry import MODELS

from .protocol import RegionReader


@MODELS.register_module()
class RetrievalReranker(FlorenceModel):
    """Retrieval by features, and a fusion model that re-ranks the best candidates.

    The features are those of a two-tower model, or of the fusion model's own :class:`FusionITCHead`, as in BLIP. Both
    models get the same images, in one size; a fusion model of regions, such as :class:`UNITER`, gets the ``regions`` of
    the samples, which a pipeline has that loads both. Training trains only the fusion model; the two-tower model is
    frozen. A checkpoint of the fusion model alone fits too, if the two-tower model has an ``init_cfg``.
    ``predict`` returns only the features of the two-tower model; the second stage is run by
    :class:`florence_mm.evaluation.rerank_loop.RerankTestLoop`. Model and test in a config, for the Karpathy split of
    Flickr30k or COCO::

        model = dict(
            type='florence_mm.RetrievalReranker',
            retriever=dict(type='florence_mm.UniCL', ..., init_cfg=dict(type='florence_mm.Pretrained', checkpoint=...)),
            matcher=dict(
                type='florence_mm.METER',
                image_encoder=..., text_encoder=..., tokenizer=...,
                heads=dict(itm=dict(type='florence_mm.FusionITMHead')),
                init_cfg=dict(type='florence_mm.Pretrained', checkpoint=...),
            ),
        )
        test_evaluator = dict(type='florence_mm.ImageTextRecall', merge_equal_texts=False)
        test_cfg = dict(type='florence_mm.RerankTestLoop', top_k=128)

    Args:
        retriever: two-tower model (or its config), a :class:`UniCL`; None: the fusion model finds candidates itself.
        matcher: fusion model (or its config) with a matching head, such as :class:`METER` with :class:`FusionITMHead`.
        data_preprocessor: preprocessor of both models; if they have their own, it must normalise equally. By default
            :class:`ImageTextDataPreprocessor`. A fusion model of regions has its own.
        init_cfg: see mmengine.

    Raises:
        ValueError: the fusion model has no matching head, or is to find candidates and has no contrastive head; or a
            model's own preprocessor normalises differently.
    """

    main_part = 'matcher'

    def __init__(
        self,
        retriever: dict | nn.Module | None,
        matcher: dict | nn.Module,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.retriever = None if retriever is None else self._build('retriever', retriever)
        self.matcher = self._build('matcher', matcher)
        self.matcher.require(matches=True)
        if self.retriever is None:
            self.matcher.find_head('embed')
        else:
            self.retriever.requires_grad_(False).eval()

    def _build(self, name: str, model: dict | nn.Module) -> nn.Module:
        """Build a model, with the common preprocessor if its config has none."""
        if isinstance(model, dict):
            kind = model['type'] if isinstance(model['type'], type) else MODELS.get(model['type'])
            common = None if _reads_regions(kind) else self.data_preprocessor
            model = MODELS.build({**model, 'data_preprocessor': model.get('data_preprocessor') or common})
        if _reads_regions(type(model)):
            return model
        own, common = (_normalisation(part.data_preprocessor) for part in (model, self))
        if own != common:
            raise ValueError(
                f'data_preprocessor of the {name} of RetrievalReranker has {own}, but both models see images '
                f'with {common} of the outer data_preprocessor; make them equal'
            )
        return model

    def train(self, mode: bool = True) -> 'RetrievalReranker':
        """Set the mode, except that the two-tower model stays in evaluation mode."""
        super().train(mode)
        if self.retriever is not None:
            self.retriever.eval()
        return self

    def tensor(self, inputs: Tensor, data_samples: Sequence[Any] | None = None) -> Any:
        """Compute the features ``(B, D)`` by which candidates for images ``(B, 3, H, W)`` are found."""
        if self.retriever is not None:
            return self.retriever(inputs, data_samples, mode='tensor')
        return self.matcher.find_head('embed').embed_images(self.matcher, self.matcher.encode_image(inputs))

    def loss(self, inputs: Tensor, data_samples: Sequence[Any]) -> dict[str, Tensor]:
        """Compute the fusion model's losses for images ``(B, 3, H, W)`` and their samples."""
        if _reads_regions(type(self.matcher)):
            inputs = self._regions(data_samples)
        return self.matcher.loss(inputs, data_samples)

    def predict(self, inputs: Tensor, data_samples: Sequence[Any] | None = None) -> list:
        """Add the features of images ``(B, 3, H, W)``, and of their texts, to their samples."""
        if self.retriever is not None:
            return self.retriever.predict(inputs, data_samples)
        with torch.no_grad():
            batch = self.matcher.make_batch(inputs, data_samples)
            self.matcher.find_head('embed').predict(batch)
        return batch.samples

    @torch.no_grad()
    def match_pictures(
        self, data: dict[str, Any], texts: Sequence[str], pairs: Sequence[tuple[int, int]], pairs_at_once: int = 64
    ) -> Tensor:
        """Compute match scores of image-text pairs by the fusion model.

        Args:
            data: a batch of the data loader with B images, each of which is encoded once.
            texts: the sentences.
            pairs: P pairs (index of an image of the batch, index of a text).
            pairs_at_once: pairs that are fused together.

        Returns:
            ``(P,)``, on the CPU: log-odds of a match.
        """
        if _reads_regions(type(self.matcher)):
            inputs = self._regions(data['data_samples'])
        else:
            inputs = self.data_preprocessor(data, False)['inputs']
        image_tokens = self.matcher.encode_image(inputs)  # (B, N, C)
        return self.matcher.match(image_tokens, texts, pairs, pairs_at_once)

    def _regions(self, samples: Sequence[Any]) -> Tensor:
        """Prepare the regions of samples for the fusion model."""
        if not all('regions' in sample for sample in samples):
            raise ValueError(
                f'{type(self.matcher).__name__} matches regions, and samples have none; load them beside the image, '
                "dict(type='florence_mm.LoadRegions', folder=...)"
            )
        return self.matcher.data_preprocessor({'inputs': [sample.regions for sample in samples]}, False)['inputs']

    def similarity_scale(self) -> float:
        """Factor from cosines of the features to logits."""
        if self.retriever is not None:
            return float(self.retriever.temperature())
        return 1 / float(self.matcher.find_head('embed').temperature)


def _reads_regions(kind: type | None) -> bool:
    return kind is not None and issubclass(kind, RegionReader)


def _normalisation(preprocessor: nn.Module) -> str:
    """Describe mean, standard deviation and channel order of a preprocessor, ours or OpenMMLab's."""
    mean, std = (getattr(preprocessor, name, None) for name in ('mean', 'std'))
    # tensors of a model built on the meta device have no values
    values = [None if x is None or x.is_meta else [round(v, 4) for v in x.flatten().tolist()] for x in (mean, std)]
    exchange = getattr(preprocessor, '_channel_conversion', getattr(preprocessor, 'to_rgb', False))
    return f'mean={values[0]}, std={values[1]} and channels {"exchanged" if exchange else "as they come"}'
