"""Retrieval head: the true text of an image among false ones (ViLT, arXiv 2102.03334, section 4.3).

Shape legend: ``B`` images, ``N`` texts of each, its own first, ``C`` hidden size.
"""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from florence_mm.models.layers.initialisation import init_bert_weights
from florence_mm.models.multimodal.batch import FusionBatch
from florence_mm.models.multimodal.protocol import Fused, Fuser
from florence_mm.ops.precision import at_least_float32
from florence_mm.registry import MODELS

from .reduction import mean_over_processes


@MODELS.register_module()
class FusionRankingHead(BaseModule):
    """Retrieval: the score of an image's own text against those of false texts, by a softmax over all of them.

    The false texts are those of other samples, which :class:`WithFalseSamples` gives; 15 in ViLT, whose score starts
    from the matching head's.

    Args:
        hidden_size: C, set by the model.
        pooled_size: width of the pooled pair, set by the model; None: 2 C.
        init_std: standard deviation of the initial weights of linear layers, set by the model.
        init_cfg: see mmengine.
    """

    needs = Fuser

    def __init__(
        self,
        hidden_size: int = 768,
        pooled_size: int | None = None,
        init_std: float = 0.02,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        # the softmax does not depend on a bias, which only a checkpoint gives
        self.fc = nn.Linear(pooled_size or 2 * hidden_size, 1, bias=False)
        self.register_buffer('bias', torch.zeros(1))
        init_bert_weights(self, init_std)

    def forward(self, pooled: Tensor) -> Tensor:
        """Compute scores ``(B,)`` of pairs ``(B, pooled_size)``."""
        return (self.fc(pooled) + self.bias).squeeze(1)

    def match_logit(self, fused: Fused) -> Tensor:
        """Scores ``(B,)`` of pairs, at least fp32; of those of one image their softmax is the probability."""
        return at_least_float32(self(fused.pooled))

    def loss(self, batch: FusionBatch) -> dict[str, Tensor]:
        """Compute the cross-entropy of each image's own text among its N texts, ``loss_ranking``, and ``acc_ranking``.

        Raises:
            ValueError: samples have no false texts, or different numbers of them.
        """
        false = batch.field('false_texts')
        if len({len(texts) for texts in false}) != 1 or not false[0]:
            raise ValueError(
                f'samples of a batch have {sorted({len(texts) for texts in false})} false texts; give all of them the '
                'same number, by texts=15 of WithFalseSamples'
            )
        texts = [text for own, others in zip(batch.texts, false, strict=True) for text in (own, *others)]
        number = 1 + len(false[0])
        tokens, text_tokens = batch.model.encode_text(texts)  # (B N, T, C)
        images = batch.image_tokens_of([image for image in batch.image_of for _ in range(number)])
        scores = self.match_logit(batch.model.fuse(text_tokens, tokens.mask, images)).unflatten(0, (-1, number))
        target = torch.zeros(len(scores), dtype=torch.int64, device=scores.device)
        total = F.cross_entropy(scores, target, reduction='sum')
        return {
            'loss_ranking': mean_over_processes(total, len(scores)),
            'acc_ranking': (scores.argmax(1) == 0).float().mean(),
        }

    def predict(self, batch: FusionBatch) -> None:
        """Set ``match_score`` of each sample, the sigmoid of the score of its text and image."""
        for sample, score in zip(batch.samples, self.match_logit(batch.fused).sigmoid().tolist(), strict=True):
            sample.set_field(score, 'match_score')
