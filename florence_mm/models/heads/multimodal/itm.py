"""Image-text matching head (``METER/meter/modules/objectives.py``; ALBEF, arXiv 2107.07651, section 3.2; BLIP).

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
from florence_mm.ops.collectives import Peers
from florence_mm.ops.precision import at_least_float32
from florence_mm.registry import MODELS

from .alignment import alignment_costs
from .negatives import false_and_true_pairs, half_false_images
from .reduction import mean_over_processes

#: Where negatives come from.
NEGATIVES = ('half', 'own', 'all', 'data_set')


@MODELS.register_module()
class FusionITMHead(BaseModule):
    """Image-text matching: classify whether a text belongs to an image.

    In training, half of the texts get a negative: another image of the batch, never one with an equal text. Or, as in
    ALBEF and BLIP, every text gets a false image and every image a false text beside the true pair, drawn by the
    similarities of the model's own :class:`FusionITCHead` (:func:`~.negatives.draw_negatives`).

    Args:
        negatives: ``'half'`` of the texts get another image (METER); or two negatives a pair, drawn from the pairs of
            the process alone, ``'own'``, or of all processes, ``'all'``, whose image tokens and texts are then
            gathered. With ``'all'`` the loss does not depend on the number of processes. ``'data_set'``: exactly half
            of the texts get the image of another sample of the whole data set, which :class:`WithFalseSamples` gives
            (ViLT, UNITER).
        alignment: weight of word-image alignment by optimal transport, 0.1 in ViLT and UNITER: the distance between the
            words of a text and the parts of an image, of true pairs less that of false ones, see
            :mod:`florence_mm.ops.optimal_transport`. 0: none.
        hard_negatives: for ``'half'``, a :class:`UniCL` (or its config with ``init_cfg``) whose similarity weights the
            sampling: image v for text t with probability proportional to ``exp(temperature * cos(t, v))``. It gets the
            same preprocessed images and is frozen. None: all negatives are equally probable, as in METER.
        hidden_size: C, set by the model.
        pooled_size: width of the pooled pair, set by the model; None: 2 C, as in METER.
        init_std: standard deviation of the initial weights of linear layers, set by the model.
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
        negatives: str = 'half',
        alignment: float = 0.0,
    ) -> None:
        super().__init__(init_cfg)
        if negatives not in NEGATIVES:
            raise ValueError(f'negatives is {negatives!r}; give one of {", ".join(NEGATIVES)}')
        if not alignment >= 0:
            raise ValueError(f'alignment is {alignment}; give a weight of at least 0, such as 0.1')
        if alignment and negatives in ('own', 'all'):
            raise ValueError(
                f"alignment={alignment} compares true pairs with as many false ones; set negatives='data_set' or 'half'"
            )
        if negatives != 'half' and hard_negatives is not None:
            raise ValueError(
                f'negatives={negatives!r} are drawn without a model of their own; leave out hard_negatives'
            )
        self.negatives, self.alignment = negatives, alignment
        self.fc = nn.Linear(pooled_size or 2 * hidden_size, 2)
        init_bert_weights(self, init_std)
        if isinstance(hard_negatives, dict):
            hard_negatives = MODELS.build({'type': 'UniCL', **hard_negatives})
        self.similarity = hard_negatives
        if self.similarity is not None:
            self.similarity.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> 'FusionITMHead':
        """Set the mode, except that the model for hard negatives stays in evaluation mode."""
        super().train(mode)
        if self.similarity is not None:
            self.similarity.eval()
        return self

    def whole_batch_advice(self) -> str | None:
        """What to set instead of gradient accumulation, which would leave fewer images to draw hard negatives from."""
        if self.negatives in ('own', 'all'):
            return "train more processes, or set negatives='half' of the ITM head"
        return None if self.similarity is None else 'train more processes, or leave out hard_negatives'

    def forward(self, pooled: Tensor) -> Tensor:
        """Compute logits ``(B, 2)`` (no match, match) from ``(B, pooled_size)``."""
        return self.fc(pooled)

    def match_score(self, fused: Fused) -> Tensor:
        """Probabilities ``(B,)`` that text and image match."""
        return self.match_logit(fused).sigmoid()

    def match_logit(self, fused: Fused) -> Tensor:
        """Log-odds ``(B,)`` that text and image match, at least fp32."""
        logits = at_least_float32(self(fused.pooled))  # (B, 2)
        return logits[:, 1] - logits[:, 0]

    def loss(self, batch: FusionBatch) -> dict[str, Tensor]:
        """Compute the cross-entropy over positive and negative pairs, ``loss_itm``, and ``acc_itm``.

        Raises:
            ValueError: no text of the batch has a negative, or a sample no image of another one.
        """
        if self.negatives in ('own', 'all'):
            peers = Peers() if self.negatives == 'all' else Peers.alone()
            text_tokens, mask, image_tokens, matches = false_and_true_pairs(batch, peers)
        else:
            text_tokens, mask = batch.text_tokens, batch.tokens.mask
            if self.negatives == 'half':
                image_of, matches = self.sample_negatives(batch)
                image_tokens = batch.image_tokens_of(image_of)
            else:
                images, matches = half_false_images(batch)
                image_tokens = batch.model.encode_image(images)
        fused = batch.model.fuse(text_tokens, mask, image_tokens)
        logits = at_least_float32(self(fused.pooled))  # (B, 2)
        target = torch.tensor(matches, dtype=torch.int64).to(logits.device, non_blocking=True)  # (B,)
        total = F.cross_entropy(logits, target, reduction='sum')
        losses = {
            'loss_itm': mean_over_processes(total, len(target)),
            'acc_itm': (logits.argmax(1) == target).float().mean(),
        }
        if self.alignment:
            costs = alignment_costs(batch.tokens, fused, batch.model.tokenizer)  # (B,)
            signed = costs * (2 * target - 1)
            losses['loss_alignment'] = self.alignment * mean_over_processes(signed.sum(), len(target))
        return losses

    @torch.no_grad()
    def sample_negatives(self, batch: FusionBatch) -> tuple[list[int], list[bool]]:
        """Choose the image of each text: its own for one half, a negative for the other (the larger half if B is odd).

        Random numbers are drawn on the CPU, so that a seed gives the same negatives on every device.

        Returns:
            for each of the B texts the index of one of the U images, and whether it is the text's own image.
        """
        texts = [normalize_text(text) for text in batch.texts]
        described: list[set[str]] = [set() for _ in batch.images]
        for text, image in zip(texts, batch.image_of, strict=True):
            described[image].add(text)
        allowed = torch.tensor([[text not in own for own in described] for text in texts])  # (B, U)
        if not allowed.any():
            raise ValueError(
                f'the {len(texts)} texts of the batch have no negatives, as there is one image or one text; '
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
        """Sampling weights ``(B, U)`` of the images as negatives of each text; rows without any are meaningless."""
        if self.similarity is None:
            return allowed.float()
        text_feat = self.similarity.extract_text_feat(batch.texts)  # (B, D)
        image_feat = self.similarity.extract_image_feat(batch.images)  # (U, D)
        logits = (self.similarity.temperature() * text_feat @ image_feat.T).float().cpu()  # (B, U)
        return logits.masked_fill(~allowed, -torch.inf).softmax(1)

    def predict(self, batch: FusionBatch) -> None:
        """Set ``match_score`` of each sample, the probability that its text and image match."""
        for sample, score in zip(batch.samples, self.match_score(batch.fused).tolist(), strict=True):
            sample.set_field(score, 'match_score')
