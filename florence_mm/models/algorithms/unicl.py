"""UniCL, the pretraining of Florence (arXiv 2111.11432, sections 2.2 and 2.3).

Two towers, two linear projections, one temperature. Pairs whose untemplated texts are equal share a label and are
each other's positives, which makes captions and class names one kind of data. Parameter names are those of the
public UniCL release (``UniCL/model/model.py``). With a video encoder the same model pairs videos with texts (section
3.8): the image model's weights, inflated.

Shape legend: ``B`` pairs, ``N`` clips a video, ``T`` frames a clip, ``C`` width of a tower, ``D`` embedding width,
``K`` classes.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from florence_mm.models.base import FlorenceModel, build_part, check_text_sizes
from florence_mm.ops.contrastive import unified_contrastive_loss
from florence_mm.registry import MODELS, TASK_UTILS

from .class_features import ClassFeatures


@MODELS.register_module()
class UniCL(FlorenceModel):
    """Unified contrastive learning in image-text-label space.

    Args:
        image_encoder: backbone (or its config) that returns a map, or a tuple of maps of which the last counts:
            ``(B, C, H, W)``, for clips ``(B, C, T, H, W)``. ``num_features`` of the backbone is C.
        text_encoder: tower (or its config) from token ids ``(B, T)`` to ``(B, C)``; ``embed_dims`` is C.
        tokenizer: texts to token ids (or its config).
        embed_dims: D.
        logit_scale_init: start of the logarithm of the temperature factor: 1 in the public UniCL code,
            ``ln(1 / 0.07) = 2.659`` in CLIP.
        max_logit_scale: the factor itself is held at or below this in training, 100 as in CLIP; None sets no limit,
            as in the public UniCL code.
        classes: class names for prediction, or the name of a data set ('imagenet1k', 'digits'); can be set later
            with :meth:`set_classes`.
        templates: prompt templates of the classes, see :func:`florence_mm.language.prompts.get_templates`.
        micro_batch: gradient cache (section 2.7): the towers keep activations of this many pairs at a time and
            compute the others again in the backward pass, with the same random numbers. The loss is over all pairs
            and the gradient the same. None keeps all activations.
        data_preprocessor: see mmengine; by default :class:`ImageTextDataPreprocessor`.
        init_cfg: see mmengine.

    Raises:
        ValueError: the tokenizer has more ids, or longer texts, than the text tower.
    """

    def __init__(
        self,
        image_encoder: dict | nn.Module,
        text_encoder: dict | nn.Module,
        tokenizer: dict | Callable[[list[str]], Tensor],
        embed_dims: int = 512,
        logit_scale_init: float = 1.0,
        max_logit_scale: float | None = 100.0,
        classes: str | Sequence[str] | None = None,
        templates: str | Sequence[str] = 'imagenet',
        micro_batch: int | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.image_encoder = build_part(image_encoder)
        self.text_encoder = build_part(text_encoder)
        self.tokenizer = build_part(tokenizer, TASK_UTILS)
        sizes = (getattr(self.tokenizer, name, None) for name in ('vocab_size', 'context_length'))
        check_text_sizes(self.text_encoder, *sizes)
        if micro_batch is not None and micro_batch < 1:
            raise ValueError(f'micro_batch is {micro_batch}; give at least 1, or None to keep all activations')
        self.image_projection = nn.Parameter(torch.empty(self.image_encoder.num_features, embed_dims))
        self.text_projection = nn.Parameter(torch.empty(self.text_encoder.embed_dims, embed_dims))
        nn.init.trunc_normal_(self.image_projection, std=0.02)
        nn.init.trunc_normal_(self.text_projection, std=0.02)
        self.logit_scale = nn.Parameter(torch.tensor(float(logit_scale_init)))
        self.max_logit_scale = max_logit_scale
        self.micro_batch = micro_batch
        self.templates = templates
        self.class_features: ClassFeatures | None = None
        if classes is not None:
            self.set_classes(classes)

    def tensor(self, inputs: Tensor, data_samples: Sequence[Any] | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Features of one preprocessed batch.

        Args:
            inputs: as :meth:`extract_image_feat` takes them.
            data_samples: None, or one an image or video, with ``text``.

        Returns:
            ``(B, D)`` image features, with samples a pair of image and text features.
        """
        image_feat = self.extract_image_feat(inputs)
        if data_samples is None:
            return image_feat
        return image_feat, self.extract_text_feat(_field(data_samples, 'text'))

    def extract_image_feat(self, inputs: Tensor) -> Tensor:
        """Features of images or videos.

        Args:
            inputs: preprocessed images ``(B, 3, H, W)``; for a video encoder clips ``(B, 3, T, H, W)``, or N clips of
                each video, ``(B, N, 3, T, H, W)``, whose features are averaged before they are normalised.

        Returns:
            ``(B, D)``, L2-normalised, at least fp32.
        """
        clips = inputs.flatten(0, 1) if inputs.ndim == 6 else inputs  # (B N, 3, T, H, W)
        maps = self.image_encoder(clips)
        x = maps[-1] if isinstance(maps, tuple | list) else maps  # (B, C, H, W) or (B N, C, T, H, W)
        x = x.mean(tuple(range(2, x.ndim)))  # (B, C) or (B N, C)
        if inputs.ndim == 6:
            x = x.unflatten(0, inputs.shape[:2]).mean(1)  # (B N, C) to (B, N, C), then (B, C)
        return _normalize(x @ self.image_projection)

    def extract_text_feat(self, texts: Sequence[str]) -> Tensor:
        """A list of B texts to ``(B, D)``, L2-normalised, at least fp32."""
        return self._encode_ids(self.tokenizer(texts))

    def _encode_ids(self, input_ids: Tensor) -> Tensor:
        return _normalize(self.text_encoder(input_ids) @ self.text_projection)

    def temperature(self) -> Tensor:
        """The factor on cosines, a 0-d tensor: ``exp(logit_scale)``."""
        return self.logit_scale.exp()

    def loss(self, inputs: Tensor, data_samples: Sequence[Any]) -> dict[str, Tensor]:
        """Both terms of the loss (equations 1 to 3), means over the pairs of all processes.

        Args:
            inputs: as :meth:`extract_image_feat` takes them.
            data_samples: B samples with ``text`` and ``label_key``.

        Returns:
            ``loss_i2t`` and ``loss_t2i``, which mmengine adds up, and ``temperature``, which it logs.

        Raises:
            ValueError: a sample lacks a field.
        """
        texts = _field(data_samples, 'text')
        labels = torch.tensor([int(key) for key in _field(data_samples, 'label_key')], device=inputs.device)
        if self.max_logit_scale is not None:
            # the parameter itself: limiting the factor alone would leave it without gradient beyond the limit
            with torch.no_grad():
                self.logit_scale.clamp_(max=math.log(self.max_logit_scale))
        image_feat = self._in_parts(self.extract_image_feat, inputs)  # (B, D)
        text_feat = self._in_parts(self._encode_ids, self.tokenizer(texts))  # (B, D)
        temperature = self.temperature()
        loss_i2t, loss_t2i = unified_contrastive_loss(image_feat, text_feat, labels, temperature)
        return {'loss_i2t': loss_i2t, 'loss_t2i': loss_t2i, 'temperature': temperature.detach()}

    def _in_parts(self, encode: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """``encode(x)``; with a micro batch, part by part and again in the backward pass (gradient cache)."""
        if self.micro_batch is None or not torch.is_grad_enabled():
            return encode(x)

        def run(part: Tensor, _: Tensor) -> Tensor:
            return encode(part)

        # token ids lie on the CPU: the second argument names the device whose random numbers are to be replayed
        parts = x.split(self.micro_batch)
        return torch.cat([checkpoint(run, part, self.logit_scale, use_reentrant=False) for part in parts])

    def set_classes(self, names: str | Sequence[str], templates: str | Sequence[str] | None = None) -> None:
        """Choose the classes of prediction.

        Args:
            names: class names in the order of the labels, or the name of a data set.
            templates: prompt templates; None takes those given to the model.
        """
        self.class_features = ClassFeatures(names, self.templates if templates is None else templates)

    def extract_class_feat(self) -> Tensor:
        """``(K, D)``, L2-normalised features of the classes; cached until weights of the text side change.

        Raises:
            ValueError: no classes are set.
        """
        if self.class_features is None:
            raise ValueError('the model has no classes; call set_classes(names) or give classes in its config')
        parameters = (*self.text_encoder.parameters(), self.text_projection)
        return self.class_features.get(self.extract_text_feat, parameters)

    @property
    def class_names(self) -> list[str]:
        """The classes in the order of the labels; empty where none are set."""
        return [] if self.class_features is None else list(self.class_features.names)

    def class_logits(self, image_feat: Tensor) -> Tensor:
        """Image features ``(B, D)`` to the logits ``(B, K)`` of the classes that are set, see :meth:`set_classes`."""
        return self.temperature() * image_feat @ self.extract_class_feat().T

    @torch.no_grad()
    def predict(self, inputs: Tensor, data_samples: Sequence[Any] | None = None) -> list:
        """Zero-shot classes and features of images or videos.

        Args:
            inputs: as :meth:`extract_image_feat` takes them.
            data_samples: B samples, or None to have them made.

        Returns:
            The samples with ``image_feat (D,)``; where classes are set ``pred_score (K,)`` and ``pred_label (1,)``;
            where a sample has ``texts`` their features, ``text_feat (n_texts, D)``. All on the CPU.
        """
        image_feat = self.extract_image_feat(inputs)  # (B, D)
        if data_samples is None:
            from mmpretrain.structures import DataSample

            data_samples = [DataSample() for _ in range(len(inputs))]
        if self.class_features is not None:
            scores = self.class_logits(image_feat).softmax(1).cpu()  # (B, K)
            for sample, score in zip(data_samples, scores, strict=True):
                sample.set_pred_score(score).set_pred_label(score.argmax())
        for sample, feature in zip(data_samples, image_feat.cpu(), strict=True):
            sample.set_field(feature, 'image_feat')
        described = [sample for sample in data_samples if 'texts' in sample]
        if described:
            texts = [text for sample in described for text in sample.texts]
            text_feat = self.extract_text_feat(texts).cpu().split([len(sample.texts) for sample in described])
            for sample, features in zip(described, text_feat, strict=True):
                sample.set_field(features, 'text_feat')
        return list(data_samples)

    def train(self, mode: bool = True) -> 'UniCL':
        """As any module's; class features are forgotten, which dropout may have changed."""
        if self.class_features is not None:
            self.class_features.drop()
        return super().train(mode)


def _normalize(x: Tensor) -> Tensor:
    """Rows of length 1; in fp32 where autocast made them shorter."""
    return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-1)


def _field(samples: Sequence[Any] | None, name: str) -> list:
    """One field of all samples."""
    if not samples:
        raise ValueError('UniCL got inputs without data_samples and cannot train on them')
    for index, sample in enumerate(samples):
        if name not in sample:
            raise ValueError(
                f'sample {index} of the batch has no {name!r}, which training needs; end the pipeline with '
                'PackImageText or PackVideoText'
            )
    return [sample.get(name) for sample in samples]
