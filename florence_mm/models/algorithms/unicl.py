"""UniCL, the pretraining algorithm of Florence (arXiv 2111.11432, sections 2.2 and 2.3).

Two towers, two linear projections and a temperature. Pairs whose texts are equal before templates are applied share a
label and are positives of each other, so that captions and class names are one kind of data. Parameter names are those
of the public UniCL release (``UniCL/model/model.py``). With a video encoder, whose weights are inflated from the image
model's, the same model pairs videos with texts (section 3.8).

Shape legend: ``B`` pairs, ``N`` clips per video, ``T`` frames per clip (tokens of a text), ``C`` width of a tower,
``D`` embedding width, ``K`` classes, ``U`` different texts of a batch.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from florence_mm.models.base import FlorenceModel, build_part, check_text_sizes, check_width
from florence_mm.ops.collectives import Peers
from florence_mm.ops.contrastive import unified_contrastive_loss
from florence_mm.ops.inference import drops_at_random, is_recorded
from florence_mm.ops.precision import at_least_float32
from florence_mm.registry import MODELS, TASK_UTILS

from .class_features import ClassFeatures

POSITIVES = ('equal_texts', 'own_text')


@MODELS.register_module()
class UniCL(FlorenceModel):
    """Unified contrastive learning in image-text-label space: two towers trained with a contrastive loss.

    Args:
        image_encoder: backbone (or its config) that returns a map ``(B, C, H, W)``, for clips ``(B, C, T, H, W)``, or a
            pooled feature ``(B, C)``, or a tuple of these of which the last is used; its ``num_features`` is C.
        text_encoder: tower (or its config) from token ids ``(B, T)`` to ``(B, C)``; its ``embed_dims`` is C.
        tokenizer: tokenizer (or its config) from a list of B texts to ids ``(B, T)``.
        embed_dims: D.
        positives: the pairs that are positives of a pair: ``'equal_texts'``, those with its label (UniCL), or
            ``'own_text'``, itself alone, as in CLIP, whose loss is half of ours (the mean of two terms, not the sum).
        image_projection: project pooled features of images; False: the encoder gives them in the shared space, as
            ``CLIPResNet`` does, so that D is its ``num_features``.
        logit_scale_init: initial logarithm of the factor on cosines: 1 in the public UniCL code, ``ln(1 / 0.07) =
            2.659`` in CLIP.
        max_logit_scale: upper limit in training of the factor itself (not its logarithm), 100 as in CLIP; None sets no
            limit, as in the public UniCL code.
        classes: class names for prediction, or the name of a data set ('imagenet1k', 'digits'); can be set later
            with :meth:`set_classes`.
        templates: prompt templates of the classes, see :func:`florence_mm.language.prompts.get_templates`.
        micro_batch: gradient cache (section 2.7): the towers keep activations of only this many pairs at a time and
            recompute those of the others in the backward pass, with the same random numbers. The loss is still over all
            pairs, and the gradient is the same. None keeps all activations.
        data_preprocessor, init_cfg: see mmengine; by default :class:`ImageTextDataPreprocessor`.

    Raises:
        ValueError: the image encoder has no width, the tokenizer has more ids or longer texts than the text tower;
            ``micro_batch`` is below 1; ``embed_dims`` is not that of an encoder without a projection; or ``positives``.
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
        image_projection: bool = True,
        positives: str = 'equal_texts',
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.image_encoder = build_part(image_encoder)
        check_width(self.image_encoder, 'num_features', 'UniCL')
        self.text_encoder = build_part(text_encoder)
        self.tokenizer = build_part(tokenizer, TASK_UTILS)
        sizes = (getattr(self.tokenizer, name, None) for name in ('vocab_size', 'context_length'))
        check_text_sizes(self.text_encoder, *sizes)
        if micro_batch is not None and micro_batch < 1:
            raise ValueError(f'micro_batch is {micro_batch}; give at least 1, or None to keep all activations')
        if positives not in POSITIVES:
            raise ValueError(f'positives is {positives!r}; give one of {", ".join(POSITIVES)}')
        self.positives = positives
        self.register_parameter('image_projection', None)
        if image_projection:
            self.image_projection = nn.Parameter(torch.empty(self.image_encoder.num_features, embed_dims))
            nn.init.trunc_normal_(self.image_projection, std=0.02)
        elif self.image_encoder.num_features != embed_dims:
            raise ValueError(
                f'embed_dims is {embed_dims} and image_projection=False, but the image encoder gives '
                f'{self.image_encoder.num_features} features; set embed_dims to that'
            )
        self.text_projection = nn.Parameter(torch.empty(self.text_encoder.embed_dims, embed_dims))
        nn.init.trunc_normal_(self.text_projection, std=0.02)
        self.logit_scale = nn.Parameter(torch.tensor(float(logit_scale_init)))
        self.max_logit_scale = max_logit_scale
        self.micro_batch = micro_batch
        self.templates = templates
        self.class_features: ClassFeatures | None = None
        if classes is not None:
            self.set_classes(classes)

    def tensor(self, inputs: Tensor, data_samples: Sequence[Any] | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Compute the features of one preprocessed batch.

        Args:
            inputs: see :meth:`extract_image_feat`.
            data_samples: None, or one per image or video, with ``text``.

        Returns:
            Image features ``(B, D)``; with samples also text features ``(B, D)``.
        """
        image_feat = self.extract_image_feat(inputs)
        if data_samples is None:
            return image_feat
        return image_feat, self.extract_text_feat(_field(data_samples, 'text'))

    def extract_image_feat(self, inputs: Tensor) -> Tensor:
        """Encode images or videos.

        Args:
            inputs: preprocessed images ``(B, 3, H, W)``; for a video encoder clips ``(B, 3, T, H, W)``, or N clips per
                video ``(B, N, 3, T, H, W)``, whose features are averaged before they are normalised.

        Returns:
            ``(B, D)``, L2-normalised, at least fp32.
        """
        return self.project_images(self.pool_images(inputs))

    def pool_images(self, inputs: Tensor) -> Tensor:
        """Compute the pooled features of the image encoder ``(B, C)``, before the projection, from inputs as above."""
        clips = inputs.flatten(0, 1) if inputs.ndim == 6 else inputs  # (B N, 3, T, H, W)
        maps = self.image_encoder(clips)
        # (B, C, H, W) or (B N, C, T, H, W), or pooled by the backbone, (B, C)
        x = maps[-1] if isinstance(maps, tuple | list) else maps
        if x.ndim > 2:
            x = x.mean(tuple(range(2, x.ndim)))  # (B, C) or (B N, C)
        if inputs.ndim == 6:
            x = x.unflatten(0, inputs.shape[:2]).mean(1)  # (B N, C) to (B, N, C), then (B, C)
        return x

    def project_images(self, pooled: Tensor) -> Tensor:
        """Project pooled features ``(B, C)`` to ``(B, D)``, L2-normalised, at least fp32."""
        return _normalize(pooled if self.image_projection is None else pooled @ self.image_projection)

    def extract_text_feat(self, texts: Sequence[str]) -> Tensor:
        """Encode a list of B texts to ``(B, D)``, L2-normalised, at least fp32."""
        return self._encode_ids(self.tokenizer(texts))

    def _encode_ids(self, input_ids: Tensor) -> Tensor:
        return self._project_texts(self.text_encoder(input_ids))

    def _project_texts(self, encoded: Tensor) -> Tensor:
        return _normalize(encoded.to(self.text_projection.dtype) @ self.text_projection)

    def whole_batch_advice(self) -> str:
        """What to set instead of gradient accumulation, which would leave each image fewer texts to compare with."""
        return 'set model.micro_batch, the number of pairs whose activations are kept at a time'

    def temperature(self) -> Tensor:
        """Return the factor on cosines, ``exp(logit_scale)``, a 0-d tensor."""
        return self.logit_scale.exp()

    def limit_temperature(self) -> None:
        """Bring the temperature's parameter back to its upper limit, if training moved it beyond."""
        for name, (low, high) in self.scalar_limits().items():
            # the parameter itself: with only the factor clamped, it would get no gradient beyond the limit
            with torch.no_grad():
                getattr(self, name).clamp_(low, high)

    def scalar_limits(self) -> dict[str, tuple[float, float]]:
        """The range of the temperature's parameter, if it is limited."""
        return {} if self.max_logit_scale is None else {'logit_scale': (-math.inf, math.log(self.max_logit_scale))}

    def loss(self, inputs: Tensor, data_samples: Sequence[Any]) -> dict[str, Tensor]:
        """Compute both terms of the loss (equations 1 to 3), each a mean over the pairs of all processes.

        Args:
            inputs: see :meth:`extract_image_feat`.
            data_samples: B samples with ``text``, and with ``label_key`` where equal texts are positives.

        Returns:
            ``loss_i2t`` and ``loss_t2i``, which mmengine sums, and ``temperature``, which it logs.

        Raises:
            ValueError: a sample lacks a field.
        """
        texts = _field(data_samples, 'text')
        keys = _field(data_samples, 'label_key') if self.positives == 'equal_texts' else Peers().row_numbers(len(texts))
        labels = torch.tensor([int(key) for key in keys]).to(inputs.device, non_blocking=True)
        self.limit_temperature()
        image_feat = self.training_image_feat(inputs)  # (B, D)
        text_feat = self.training_text_feat(texts)  # (B, D)
        temperature = self.temperature()
        loss_i2t, loss_t2i = unified_contrastive_loss(image_feat, text_feat, labels, temperature)
        return {'loss_i2t': loss_i2t, 'loss_t2i': loss_t2i, 'temperature': temperature.detach()}

    def training_image_feat(self, inputs: Tensor) -> Tensor:
        """Encode images to ``(B, D)`` for a loss; with ``micro_batch`` the backward pass recomputes the encoder."""
        return self._with_gradient_cache(self.extract_image_feat, inputs)

    def training_text_feat(self, texts: Sequence[str]) -> Tensor:
        """Encode texts to ``(B, D)`` for a loss, equal ones once; ``micro_batch`` as for images.

        Class names fill a batch with equal texts. The gradient of a text is the sum over its pairs. With dropout, and
        with ``micro_batch`` on several processes, all texts are encoded.
        """
        # sharded weights are gathered for each part, so that all processes need as many parts
        in_parts = self.micro_batch is not None and Peers().size > 1
        if in_parts or drops_at_random(self.text_encoder) or is_recorded():
            return self._with_gradient_cache(self._encode_ids, self.tokenizer(texts))
        # compared as strings, which waits for no accelerator
        numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        features = self._with_gradient_cache(self._encode_ids, self.tokenizer(list(numbers)))  # (U, D)
        if len(numbers) == len(texts):
            return features
        which = torch.tensor([numbers[text] for text in texts])
        return features.index_select(0, which.to(features.device, non_blocking=True))

    def _with_gradient_cache(self, encode: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Compute ``encode(x)``; with ``micro_batch`` in parts that are recomputed in the backward pass."""
        if self.micro_batch is None or not torch.is_grad_enabled():
            return encode(x)

        def run(part: Tensor, _: Tensor) -> Tensor:
            return encode(part)

        # token ids are on the CPU: the second argument tells `checkpoint` the device whose random state it must restore
        parts = x.split(self.micro_batch)
        return torch.cat([checkpoint(run, part, self.logit_scale, use_reentrant=False) for part in parts])

    def set_classes(
        self,
        names: str | Sequence[str],
        templates: str | Sequence[str] | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Set the classes to predict.

        Args:
            names: class names in the order of the labels, or the name of a data set.
            templates: prompt templates; None uses those given to the model.
            dtype: compute their features with weights of the text tower in this type; ``torch.bfloat16`` takes half the
                time on processors that have it, and features keep a cosine of 0.9999. None: that of the weights.

        Raises:
            ValueError: no names, unusable templates, or a ``dtype`` of whole numbers.
        """
        self.class_features = ClassFeatures(names, self.templates if templates is None else templates, dtype)

    def encode_classes(
        self,
        names: str | Sequence[str],
        templates: str | Sequence[str] | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Encode classes to ``(K, D)``, L2-normalised, without setting them; arguments as of :meth:`set_classes`."""
        features = ClassFeatures(names, self.templates if templates is None else templates, dtype)
        return features.get(self._encode_prompts_in(dtype), self._text_parameters())

    def _encode_prompts_in(self, dtype: torch.dtype | None) -> Callable[[list[str]], Tensor]:
        """The function that encodes prompts; it converts the tower's weights once, when it is first called."""
        if dtype is None:
            return self.extract_text_feat
        tower = self.text_encoder

        @cache
        def weights() -> dict[str, Tensor]:
            state = tower.state_dict()
            return {name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()}

        return lambda texts: self._project_texts(functional_call(tower, weights(), self.tokenizer(texts)))

    def extract_class_feat(self) -> Tensor:
        """Return the L2-normalised features ``(K, D)`` of the classes, cached until weights of the text tower change.

        Raises:
            ValueError: no classes are set.
        """
        if self.class_features is None:
            raise ValueError('the model has no classes; call set_classes(names) or give classes in its config')
        encode = self._encode_prompts_in(self.class_features.dtype)
        return self.class_features.get(encode, self._text_parameters())

    def _text_parameters(self) -> tuple[Tensor, ...]:
        return (*self.text_encoder.parameters(), self.text_projection)

    @property
    def class_names(self) -> list[str]:
        """The classes in the order of the labels; empty if none are set."""
        return [] if self.class_features is None else list(self.class_features.names)

    def class_logits(self, image_feat: Tensor) -> Tensor:
        """Compute the logits ``(B, K)`` of the set classes (:meth:`set_classes`) from image features ``(B, D)``."""
        return self.temperature() * image_feat @ self.extract_class_feat().T

    @torch.no_grad()
    def predict(self, inputs: Tensor, data_samples: Sequence[Any] | None = None) -> list:
        """Predict zero-shot classes and features of images or videos.

        Args:
            inputs: see :meth:`extract_image_feat`.
            data_samples: B samples; None creates them.

        Returns:
            The samples with ``image_feat (D,)``; if classes are set, with ``pred_score (K,)`` and ``pred_label (1,)``;
            if a sample has ``texts``, with their features ``text_feat (n_texts, D)``. All on the CPU.
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
        """Set the mode; also clear the cached class features, which depend on it through dropout."""
        if self.class_features is not None:
            self.class_features.drop()
        return super().train(mode)


def _normalize(x: Tensor) -> Tensor:
    """L2-normalise rows, in fp32 or more."""
    return F.normalize(at_least_float32(x), dim=-1)


def _field(samples: Sequence[Any] | None, name: str) -> list:
    """Collect one field of all samples."""
    if not samples:
        raise ValueError('UniCL got inputs without data_samples and cannot train on them')
    for index, sample in enumerate(samples):
        if name not in sample:
            raise ValueError(
                f'sample {index} of the batch has no {name!r}, which training needs; end the pipeline with '
                'PackImageText or PackVideoText'
            )
    return [sample.get(name) for sample in samples]
