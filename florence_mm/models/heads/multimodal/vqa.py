"""Visual question answering as classification of frequent answers (arXiv 2111.11432, section 3.7; arXiv 2111.02387).

Shape legend: ``B`` questions, ``C`` hidden size, ``K`` answers.
"""

import math
from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from florence_mm.models.layers.initialisation import init_bert_weights
from florence_mm.models.multimodal.batch import FusionBatch
from florence_mm.models.multimodal.protocol import Answered, Fused, Fuser
from florence_mm.ops.precision import at_least_float32
from florence_mm.registry import MODELS

from .known_answers import KnownAnswers
from .reduction import mean_over_processes


@MODELS.register_module()
class FusionVQAHead(KnownAnswers, BaseModule):
    """METER's answer classifier: an MLP on the pooled image-question pair.

    Args:
        num_answers: K; 3,129 for VQAv2 with the usual vocabulary. None: the length of ``answers``.
        answers: the K answers in the order of their labels, or a file with one answer per line, the same as for the
            data set; None: predictions are labels only.
        hidden_size: C, set by the model.
        pooled_size: width of the pooled pair, set by the model; None: 2 C, as in METER.
        width: hidden width of the MLP; None: that of the pooled pair, 2 C as in METER; 2 C in ViLT and UNITER, too,
            whose pooled pairs are of C.
        act_first: the activation before the norm, and an epsilon of 1e-12, as in UNITER.
        init_std: standard deviation of the initial weights of linear layers, set by the model.
        init_cfg: see mmengine.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: neither ``num_answers`` nor ``answers`` is given, ``answers`` is empty, or they differ in number.
    """

    needs = Fuser

    def __init__(
        self,
        num_answers: int | None = None,
        answers: Sequence[str] | str | None = None,
        hidden_size: int = 768,
        pooled_size: int | None = None,
        init_std: float = 0.02,
        init_cfg: dict | None = None,
        width: int | None = None,
        act_first: bool = False,
    ) -> None:
        super().__init__(init_cfg)
        if num_answers is None and not answers:
            raise ValueError('FusionVQAHead got neither num_answers nor answers; give one of them')
        self.take_answers(answers, num_answers)
        pooled = pooled_size or 2 * hidden_size
        width = pooled if width is None else width
        between = [nn.LayerNorm(width), nn.GELU()]
        if act_first:
            between = [nn.GELU(), nn.LayerNorm(width, eps=1e-12)]
        # the same indices as in METER's Sequential
        self.classifier = nn.Sequential(nn.Linear(pooled, width), *between, nn.Linear(width, self.num_answers))
        init_bert_weights(self, init_std)
        # initial probabilities of 1 / K: with 1 / 2 the first steps would only learn that most answers are wrong
        nn.init.constant_(self.classifier[-1].bias, -math.log(max(self.num_answers - 1, 1)))

    def forward(self, pooled: Tensor) -> Tensor:
        """Compute logits ``(B, K)`` from ``(B, pooled_size)``."""
        return self.classifier(pooled)

    def loss(self, batch: FusionBatch) -> dict[str, Tensor]:
        """Compute the binary cross-entropy with soft scores, summed over answers and averaged over questions.

        METER computes the same as the mean over all, times the number of answers. ``acc_vqa`` is the mean soft score of
        the predicted answers.

        Raises:
            ValueError: a sample has no scores, or scores for answers that the head does not have.
        """
        logits = at_least_float32(self(batch.fused.pooled))
        target = self.soft_targets(batch.samples).to(logits, non_blocking=True)  # (B, K)
        total = F.binary_cross_entropy_with_logits(logits, target, reduction='sum')
        chosen = target.gather(1, logits.argmax(1, keepdim=True))  # (B, 1)
        return {'loss_vqa': mean_over_processes(total, len(target)), 'acc_vqa': chosen.mean()}

    def answer_names(self) -> list[str]:
        """The K answers in the order of their labels; the labels as strings if the answers are unknown."""
        return self.known_answers or [str(label) for label in range(self.num_answers)]

    def answer_scores(self, fused: Fused) -> Tensor:
        """Compute the independent probabilities ``(B, K)`` of the answers, fp32."""
        return self(fused.pooled).float().sigmoid()

    def answer(self, batch: FusionBatch, top: int = 1) -> list[Answered]:
        """Return the ``top`` most probable answers to each question of a batch; labels if the answers are unknown."""
        scores = self.answer_scores(batch.fused).cpu()  # (B, K)
        best = scores.sort(dim=1, descending=True, stable=True)
        names = self.answer_names()
        return [
            Answered([names[label] for label in labels], values)
            for labels, values in zip(best.indices[:, :top].tolist(), best.values[:, :top].tolist(), strict=True)
        ]

    def predict(self, batch: FusionBatch) -> None:
        """Set ``pred_scores (K,)``, the probabilities, and ``pred_answer`` or ``pred_label (1,)`` of each sample."""
        self.set_scores(batch.samples, self.answer_scores(batch.fused).cpu())

    def set_scores(self, samples: Sequence[Any], scores: Tensor) -> None:
        """Set what :meth:`predict` sets, from the probabilities ``(B, K)`` of B samples."""
        for sample, score in zip(samples, scores, strict=True):
            sample.set_field(score, 'pred_scores')
            if self.answers is None:
                sample.set_pred_label(score.argmax())
            else:
                sample.set_field(self.answers[int(score.argmax())], 'pred_answer')
