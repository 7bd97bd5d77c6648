"""Image-text retrieval in two steps: a two-tower model finds candidates, a fusion model puts them in order.

The second step is METER's retrieval by its matching head (arXiv 2111.02387), done for the best candidates alone as in
ALBEF (arXiv 2107.07651, section 3.4), as a fusion of every image with every text grows with their product.

Shape legend: ``B`` images, ``N`` image tokens, ``C`` hidden size, ``P`` pairs.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from florence_mm.models.base import FlorenceModel
from florence_mm.registry import MODELS


@MODELS.register_module()
class RetrievalReranker(FlorenceModel):
    """Two-tower retrieval and a fusion model that puts its best candidates in order, over the same images.

    Both see the images of one pipeline, in one size. Training trains the fusion model alone: its ``loss`` is the
    batch's, the two-tower model does not learn. Prediction alone gives the two-tower model's features; the second step
    is that of :class:`florence_mm.evaluation.rerank_loop.RerankTestLoop`. A config's model and test, for the Karpathy
    split of Flickr30k or COCO::

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
        retriever: :class:`UniCL` or its config.
        matcher: a model that matches images and sentences, such as a :class:`METER` with a :class:`FusionITMHead`, or
            its config.
        data_preprocessor: of both, whose own may not normalise otherwise; by default
            :class:`ImageTextDataPreprocessor`.
        init_cfg: see mmengine.

    Raises:
        ValueError: the fusion model has no head that matches, or a model's own preprocessor normalises otherwise.
    """

    def __init__(
        self,
        retriever: dict | nn.Module,
        matcher: dict | nn.Module,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.retriever = self._build('retriever', retriever)
        self.matcher = self._build('matcher', matcher)
        self.matcher.require(matches=True)
        self.retriever.requires_grad_(False).eval()

    def _build(self, name: str, model: dict | nn.Module) -> nn.Module:
        """A model, with the common preprocessor where its config has none of its own."""
        if isinstance(model, dict):
            model = MODELS.build(
                {**model, 'data_preprocessor': model.get('data_preprocessor') or self.data_preprocessor}
            )
        own, common = (_normalisation(part.data_preprocessor) for part in (model, self))
        if own != common:
            raise ValueError(
                f'data_preprocessor of the {name} of RetrievalReranker has {own}, but both models see images '
                f'with {common} of the outer data_preprocessor; make them equal'
            )
        return model

    def train(self, mode: bool = True) -> 'RetrievalReranker':
        """As any module's, but the two-tower model stays as it is in prediction."""
        super().train(mode)
        self.retriever.eval()
        return self

    def tensor(self, inputs: Tensor, data_samples: Sequence[Any] | None = None) -> Any:
        """What the two-tower model gives for images ``(B, 3, H, W)``."""
        return self.retriever(inputs, data_samples, mode='tensor')

    def loss(self, inputs: Tensor, data_samples: Sequence[Any]) -> dict[str, Tensor]:
        """The fusion model's losses of images ``(B, 3, H, W)`` with their samples."""
        return self.matcher.loss(inputs, data_samples)

    def predict(self, inputs: Tensor, data_samples: Sequence[Any] | None = None) -> list:
        """The samples of images ``(B, 3, H, W)`` with the two-tower model's features."""
        return self.retriever.predict(inputs, data_samples)

    @torch.no_grad()
    def match_pictures(
        self, data: dict[str, Any], texts: Sequence[str], pairs: Sequence[tuple[int, int]], pairs_at_once: int = 64
    ) -> Tensor:
        """Match scores of chosen pairs.

        Args:
            data: a batch of the data loader; B images, each encoded once.
            texts: sentences.
            pairs: P places of an image of the batch and of a text.
            pairs_at_once: pairs that are fused together.

        Returns:
            ``(P,)``, on the CPU: the logarithms of the odds of a match.
        """
        image_tokens = self.matcher.encode_image(self.data_preprocessor(data, False)['inputs'])  # (B, N, C)
        return self.matcher.match(image_tokens, texts, pairs, pairs_at_once)

    def similarity_scale(self) -> float:
        """What cosines of the two-tower model's features are multiplied by to be logits."""
        return float(self.retriever.temperature())


def _normalisation(preprocessor: nn.Module) -> str:
    """Mean, standard deviation and exchange of red and blue, in words; of our preprocessor or of OpenMMLab's."""
    mean, std = (getattr(preprocessor, name, None) for name in ('mean', 'std'))
    # on the meta device, where sizes are counted, there are no values
    values = [None if x is None or x.is_meta else [round(v, 4) for v in x.flatten().tolist()] for x in (mean, std)]
    exchange = getattr(preprocessor, '_channel_conversion', getattr(preprocessor, 'to_rgb', False))
    return f'mean={values[0]}, std={values[1]} and channels {"exchanged" if exchange else "as they come"}'
