"""Visual question answering as classification of frequent answers (arXiv 2111.11432, section 3.7; arXiv 2111.02387).

Shape legend: ``B`` questions, ``C`` hidden size, ``K`` answers.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from florence_mm.language.answers import read_answers
from florence_mm.models.layers.initialisation import init_bert_weights
from florence_mm.models.multimodal.batch import FusionBatch
from florence_mm.models.multimodal.protocol import Answered, Fused, Fuser
from florence_mm.ops.precision import at_least_float32
from florence_mm.registry import MODELS

from .reduction import mean_over_processes


@MODELS.register_module()
class FusionVQAHead(BaseModule):
    """METER's answer classifier: an MLP on the pooled image-question pair.

    Args:
        num_answers: K; 3,129 for VQAv2 with the usual vocabulary. None: the length of ``answers``.
        answers: the K answers in the order of their labels, or a file with one answer per line, the same as for the
            data set; None: predictions are labels only.
        hidden_size: C, set by the model.
        pooled_size: width of the pooled pair, set by the model; None: 2 C, as in METER.
        init_std: standard deviation of the initial weights of linear layers, set by the model.
        init_cfg: see mmengine.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: neither ``num_answers`` nor ``answers`` is given, ``answers`` is empty, or they differ in number.
    """

    needs = Fuser
    #: names of its two arguments for the number of answers and for the answers
    answer_arguments = ('num_answers', 'answers')

    def __init__(
        self,
        num_answers: int | None = None,
        answers: Sequence[str] | str | None = None,
        hidden_size: int = 768,
        pooled_size: int | None = None,
        init_std: float = 0.02,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if isinstance(answers, str):
            answers = read_answers(answers)
        if num_answers is None and not answers:
            raise ValueError('FusionVQAHead got neither num_answers nor answers; give one of them')
        if None not in (num_answers, answers) and len(answers) != num_answers:
            raise ValueError(
                f'num_answers is {num_answers} and there are {len(answers)} answers; leave one of them out'
            )
        self.answers = None if answers is None else list(answers)
        self.known_answers = self.answers
        self.num_answers = num_answers if answers is None else len(answers)
        width = pooled_size or 2 * hidden_size
        # the same indices as in METER's Sequential
        self.classifier = nn.Sequential(
            nn.Linear(width, width), nn.LayerNorm(width), nn.GELU(), nn.Linear(width, self.num_answers)
        )
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
        target = self._targets(batch).to(logits, non_blocking=True)  # (B, K)
        total = F.binary_cross_entropy_with_logits(logits, target, reduction='sum')
        chosen = target.gather(1, logits.argmax(1, keepdim=True))  # (B, 1)
        return {'loss_vqa': mean_over_processes(total, len(target)), 'acc_vqa': chosen.mean()}

    def _targets(self, batch: FusionBatch) -> Tensor:
        """Collect soft scores ``(B, K)``, from ``gt_score (K,)`` or ``answer_labels`` and ``answer_scores (k,)``."""
        target = torch.zeros(len(batch.samples), self.num_answers)
        places, labels, scores = [], [], []  # of the samples with labels
        for place, sample in enumerate(batch.samples):
            if 'answer_labels' in sample:
                places.append(place)
                labels.append(torch.as_tensor(sample.answer_labels, dtype=torch.int64).cpu())
                scores.append(torch.as_tensor(sample.answer_scores, dtype=target.dtype).cpu())
                if len(labels[-1]) != len(scores[-1]):
                    raise ValueError(
                        f'{_name(place, sample)} has {len(labels[-1])} answer_labels and {len(scores[-1])} '
                        'answer_scores; expected as many, so give each label its score'
                    )
            elif 'gt_score' not in sample:
                raise ValueError(
                    f'{_name(place, sample)} has neither answer_labels nor gt_score, which training needs; give the '
                    'data set the annotations and the answers'
                )
            elif sample.gt_score.shape != target[place].shape:
                raise ValueError(
                    f'{_name(place, sample)} has gt_score of shape {tuple(sample.gt_score.shape)}, but the VQA head '
                    f'has {self.num_answers} answers; give data set and head the same answers'
                )
            else:
                target[place].copy_(sample.gt_score)
        if labels:
            rows = torch.tensor(places).repeat_interleave(torch.tensor([len(own) for own in labels]))
            columns = torch.cat(labels)
            outside = ((columns < 0) | (columns >= self.num_answers)).nonzero()
            if len(outside):
                wrong = int(outside[0])
                place = int(rows[wrong])
                raise ValueError(
                    f'{_name(place, batch.samples[place])} has the answer label {int(columns[wrong])}, but the VQA '
                    f'head has {self.num_answers} answers (0 to {self.num_answers - 1}); give data set and head the '
                    'same answers'
                )
            target[rows, columns] = torch.cat(scores)
        return target

    def use_dataset_meta(self, dataset_meta: Mapping[str, Any]) -> None:
        """Take over the answers from the metainfo of the data set that the weights were trained on.

        Args:
            dataset_meta: the metainfo; ``answers``, if present, are in the order of their labels.

        Raises:
            ValueError: the head has other answers, or another number of answers.
        """
        trained = dataset_meta.get('answers')
        if self.answers and trained and list(trained) != self.answers:
            raise ValueError(
                "the answers of the config's VQA head are not those that the checkpoint was trained on; use the config "
                'and the file of answers that it was trained with'
            )
        if trained and len(trained) != self.num_answers:
            raise ValueError(
                f'the checkpoint was trained on {len(trained)} answers and the VQA head has {self.num_answers}; use '
                'the config that it was trained with'
            )
        self.known_answers = self.answers or (list(trained) if trained else None)

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


def _name(place: int, sample: Any) -> str:
    """Name a sample in a message."""
    return f'sample {place} of the batch' + (f' (question_id {sample.question_id})' if 'question_id' in sample else '')
