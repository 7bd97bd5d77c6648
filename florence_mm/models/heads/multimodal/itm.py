"""Image-text matching (``METER/meter/modules/objectives.py``).

Shape legend: ``B`` pairs, ``U`` different images among them, ``C`` hidden size, ``D`` embedding width of UniCL.
"""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from florence_mm.language.labels import normalize_text
from florence_mm.models.layers.initialisation import init_bert_weights
from florence_mm.models.multimodal.batch import FusionBatch
from florence_mm.models.multimodal.protocol import Fused, Fuser
from florence_mm.ops.precision import at_least_float32
from florence_mm.registry import MODELS

from .reduction import mean_of_all


@MODELS.register_module()
class FusionITMHead(BaseModule):
    """Does the text belong to the image?

    In training half of the texts get another image of the batch, never one that an equal text of the batch describes.

    Args:
        hard_negatives: a :class:`UniCL` (or its config with ``init_cfg``) by whose similarity false images are
            drawn: image v for text t with probability proportional to ``exp(temperature * cos(t, v))``, as ALBEF does
            with its own features (arXiv 2107.07651, section 3.2). It sees the same preprocessed images and does not
            learn. None: all false images are equally likely, as in METER.
        hidden_size: C, which the model gives.
        pooled_size: width of the fused pair, which the model gives; None: 2 C, as in METER.
        init_std: standard deviation of the linear layers' first weights, which the model gives.
        init_cfg: see mmengine.
    """

    needs = Fuser

    def __init__(
        self,
        hard_negatives: dict | nn.Module | None = None,
        hidden_size: int = 768,
        pooled_size: int | None = None,
        init_std: float = 0.02,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.fc = nn.Linear(pooled_size or 2 * hidden_size, 2)
        init_bert_weights(self, init_std)
        if isinstance(hard_negatives, dict):
            hard_negatives = MODELS.build({'type': 'UniCL', **hard_negatives})
        self.similarity = hard_negatives
        if self.similarity is not None:
            self.similarity.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> 'FusionITMHead':
        """As any module's, but the model that finds hard negatives stays as it is in prediction."""
        super().train(mode)
        if self.similarity is not None:
            self.similarity.eval()
        return self

    def forward(self, pooled: Tensor) -> Tensor:
        """``(B, pooled_size)`` to logits ``(B, 2)``: no match, match."""
        return self.fc(pooled)

    def match_score(self, fused: Fused) -> Tensor:
        """``(B,)`` probabilities that text and image match."""
        return self.match_logit(fused).sigmoid()

    def match_logit(self, fused: Fused) -> Tensor:
        """``(B,)``, at least fp32: the logarithm of the odds that text and image match."""
        logits = at_least_float32(self(fused.pooled))  # (B, 2)
        return logits[:, 1] - logits[:, 0]

    def loss(self, batch: FusionBatch) -> dict[str, Tensor]:
        """Cross-entropy over matching and false pairs, and ``acc_itm``.

        Raises:
            ValueError: no text of the batch has a false image.
        """
        image_of, matches = self.sample_negatives(batch)
        fused = batch.model.fuse(batch.text_tokens, batch.tokens.mask, batch.image_tokens_of(image_of))
        logits = at_least_float32(self(fused.pooled))  # (B, 2)
        target = torch.tensor(matches, dtype=torch.int64, device=logits.device)  # (B,)
        total = F.cross_entropy(logits, target, reduction='sum')
        return {
            'loss_itm': mean_of_all(total, len(target)),
            'acc_itm': (logits.argmax(1) == target).float().mean(),
        }

    @torch.no_grad()
    def sample_negatives(self, batch: FusionBatch) -> tuple[list[int], list[bool]]:
        """Choose an image for each text: its own for one half, a negative for the other (the larger where B is odd).

        Random numbers are torch's on the CPU, so that a seed fixes them on every device.

        Returns:
            for each of the B texts which of the U images, and whether it is the own one.
        """
        texts = [normalize_text(text) for text in batch.texts]
        described: list[set[str]] = [set() for _ in batch.images]
        for text, image in zip(texts, batch.image_of, strict=True):
            described[image].add(text)
        allowed = torch.tensor([[text not in own for own in described] for text in texts])  # (B, U)
        if not allowed.any():
            raise ValueError(
                f'the {len(texts)} texts of the batch have no false image, as there is one image or one text; '
                'image-text matching needs batches of several'
            )
        weights = self._weights(batch, allowed)
        image_of, matches = list(batch.image_of), [True] * len(texts)
        for row in torch.randperm(len(texts))[len(texts) // 2 :].tolist():
            if allowed[row].any():
                image_of[row] = int(torch.multinomial(weights[row], 1))
                matches[row] = False
        return image_of, matches

    def _weights(self, batch: FusionBatch, allowed: Tensor) -> Tensor:
        """``(B, U)``: how likely each image is for each text, up to a factor; rows without any are of no use."""
        if self.similarity is None:
            return allowed.float()
        text_feat = self.similarity.extract_text_feat(batch.texts)  # (B, D)
        image_feat = self.similarity.extract_image_feat(batch.images)  # (U, D)
        logits = (self.similarity.temperature() * text_feat @ image_feat.T).float().cpu()  # (B, U)
        return logits.masked_fill(~allowed, -torch.inf).softmax(1)

    def predict(self, batch: FusionBatch) -> None:
        """Give each sample ``match_score``, the probability that its text and image match."""
        for sample, score in zip(batch.samples, self.match_score(batch.fused).tolist(), strict=True):
            sample.set_field(score, 'match_score')
