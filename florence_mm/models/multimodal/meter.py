"""METER, the vision-language model that Florence adapts to (arXiv 2111.11432, section 2.5; arXiv 2111.02387).

An image encoder and a text encoder, two stacks of co-attention layers over their tokens, and heads. Pretrained with
image-text matching and masked language modelling, fine-tuned on questions, captions or retrieval: what is trained is
which heads the config names.

Shape legend: ``B`` samples, ``T`` text tokens, ``N`` image tokens, ``C`` hidden size of the fusion, ``K`` answers.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModel, ModuleDict
from torch import Tensor, nn

from florence_mm.models.multimodal.batch import FusionBatch, find_equal
from florence_mm.models.multimodal.fusion import CoAttentionFusion, Fused
from florence_mm.models.tokenizers.protocol import TextTokenizer, TokenBatch
from florence_mm.registry import MODELS, TASK_UTILS


@MODELS.register_module()
class METER(BaseModel):
    """Fusion of image and text.

    Args:
        image_encoder: backbone (or its config) that returns a tuple of maps, of which the last, ``(B, C_v, H, W)``, is
            the image's tokens; ``num_features`` is C_v. Inputs of any size that the backbone takes.
        text_encoder: encoder (or its config) from ids and padding mask ``(B, T)`` to ``(B, T, C_t)``:
            ``RobertaTextEncoder`` or ``CLIPTokenEncoder``; ``embed_dims`` is C_t.
        tokenizer: the text encoder's tokenizer (or its config), a
            :class:`~florence_mm.models.tokenizers.protocol.TextTokenizer`.
        fusion: arguments of :class:`~florence_mm.models.multimodal.co_attention.CoAttentionStacks`: ``hidden_size``
            (768), ``num_layers`` (6), ``num_heads`` (12), ``mlp_ratio``, ``drop_rate``, ``attn_drop_rate``,
            ``layer_norm_eps``, ``with_cp``; and ``init_std`` (0.02) of
            :class:`~florence_mm.models.multimodal.fusion.CoAttentionFusion`.
        heads: heads by name (or their configs): ``dict(itm=dict(type='FusionITMHead'), ...)``. A head has
            ``loss(model, batch)`` and ``predict(model, batch)``, the batch a
            :class:`~florence_mm.models.multimodal.batch.FusionBatch`. ``hidden_size``, ``vocab_size`` and
            ``init_std`` are given to those that take them.
        max_text_len: longest text in tokens, start and end included; 50 in METER.
        data_preprocessor: see mmengine; by default :class:`ImageTextDataPreprocessor`.
        init_cfg: see mmengine.

    Raises:
        ValueError: parts that do not fit each other.
    """

    def __init__(
        self,
        image_encoder: dict | nn.Module,
        text_encoder: dict | nn.Module,
        tokenizer: dict | TextTokenizer,
        fusion: Mapping[str, Any] | None = None,
        heads: Mapping[str, dict | nn.Module] | None = None,
        max_text_len: int = 50,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        if not isinstance(data_preprocessor, nn.Module):
            # built here: mmengine would look the name up in the default scope
            data_preprocessor = MODELS.build({'type': 'ImageTextDataPreprocessor'} | (data_preprocessor or {}))
        super().__init__(data_preprocessor, init_cfg)
        self.image_encoder = MODELS.build(image_encoder) if isinstance(image_encoder, dict) else image_encoder
        self.text_encoder = MODELS.build(text_encoder) if isinstance(text_encoder, dict) else text_encoder
        self.tokenizer = TASK_UTILS.build(tokenizer) if isinstance(tokenizer, dict) else tokenizer
        self.max_text_len = max_text_len
        self._check_parts()
        fusion = {'hidden_size': 768, **(fusion or {})}
        self.hidden_size = fusion['hidden_size']
        # not under `cross_modal`, whose learning rate METER raises
        self.token_type_embeddings = nn.Embedding(2, self.hidden_size)
        nn.init.normal_(self.token_type_embeddings.weight, std=0.02)
        self.cross_modal = CoAttentionFusion(self.text_encoder.embed_dims, self.image_encoder.num_features, **fusion)
        given = {'hidden_size': self.hidden_size, 'vocab_size': self.tokenizer.vocab_size}
        given['init_std'] = fusion.get('init_std', 0.02)
        self.heads = ModuleDict({name: _build_head(head, given) for name, head in (heads or {}).items()})
        for name, head in self.heads.items():
            # a larger one is padded: what lies beyond the tokenizer's ids is no target and is never written
            if getattr(head, 'vocab_size', self.tokenizer.vocab_size) < self.tokenizer.vocab_size:
                raise ValueError(
                    f'vocab_size of the head {name!r} is {head.vocab_size} and the tokenizer has '
                    f'{self.tokenizer.vocab_size} ids; the head needs as many'
                )
        self._last_picture: tuple[Tensor, tuple, Tensor] | None = None

    def _check_parts(self) -> None:
        for part, name in ((self.image_encoder, 'num_features'), (self.text_encoder, 'embed_dims')):
            if not hasattr(part, name):
                raise ValueError(
                    f'{type(part).__name__} has no {name}, the width of what it returns; METER needs it to build its '
                    'transforms'
                )
        sizes = (
            ('vocab_size', self.tokenizer.vocab_size, 'ids in the tokenizer'),
            ('context_length', self.max_text_len, 'tokens in max_text_len'),
        )
        for name, need, what in sizes:
            have = getattr(self.text_encoder, name, need)
            if need > have:
                raise ValueError(
                    f'there are {need} {what} and {name} of {type(self.text_encoder).__name__} is {have}; the encoder '
                    'needs as much'
                )

    def forward(
        self, inputs: Tensor, data_samples: Sequence[Any] | None = None, mode: str = 'tensor'
    ) -> Tensor | Fused | dict[str, Tensor] | list:
        """Tokens, losses or predictions of one preprocessed batch.

        Args:
            inputs: ``(B, 3, H, W)``.
            data_samples: one a picture; fields as in ``docs/meter.md``.
            mode: ``'tensor'``: image tokens ``(B, N, C)``, with samples :class:`Fused`; ``'loss'``: see :meth:`loss`;
                ``'predict'``: see :meth:`predict`.
        """
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        if mode != 'tensor':
            raise ValueError(f"mode is {mode!r}; use 'tensor', 'loss' or 'predict'")
        return self.encode_image(inputs) if data_samples is None else FusionBatch(self, inputs, data_samples).fused

    def encode_image(self, inputs: Tensor) -> Tensor:
        """Pictures ``(B, 3, H, W)``, preprocessed, to tokens ``(B, N, C)``, transformed and with their type added."""
        maps = self.image_encoder(inputs)
        x = maps[-1] if isinstance(maps, tuple | list) else maps  # (B, C_v, H, W)
        x = self.cross_modal.image_transform(x.flatten(2).transpose(1, 2))  # (B, C_v, H, W) -> (B, N, C_v) -> (B, N, C)
        return x + self.token_type_embeddings.weight[1]

    def tokenize(self, texts: Sequence[str]) -> TokenBatch:
        """Texts as ids, each cut to ``max_text_len``."""
        return self.tokenizer(texts, self.max_text_len)

    def encode_tokens(self, tokens: TokenBatch, causal: bool = False) -> Tensor:
        """Ids ``(B, T)`` to tokens ``(B, T, C)``, transformed and with their type added.

        Equal texts, such as one question about several pictures, are encoded once, unless dropout makes them differ.

        Args:
            tokens: of :meth:`tokenize`.
            causal: each token sees itself and those before it, for captions.
        """
        input_ids, mask, which = tokens.input_ids, tokens.mask, None
        if not self._drops_in_text():
            first, which = find_equal(torch.cat([input_ids, mask], 1))
            input_ids, mask = input_ids[first], mask[first]
        x = self.text_encoder(input_ids, mask, causal)  # (U, T, C_t), of U different texts
        x = self.cross_modal.text_transform(x) + self.token_type_embeddings.weight[0]
        if which is None or len(x) == len(which):
            return x
        return x.index_select(0, torch.tensor(which, device=x.device))  # (B, T, C)

    def _drops_in_text(self) -> bool:
        modules = self.text_encoder.modules()
        return any(isinstance(module, nn.Dropout) and module.training and module.p > 0 for module in modules)

    def encode_text(self, texts: Sequence[str], causal: bool = False) -> tuple[TokenBatch, Tensor]:
        """B texts to their ids and tokens ``(B, T, C)``."""
        tokens = self.tokenize(texts)
        return tokens, self.encode_tokens(tokens, causal)

    def fuse(
        self,
        text_tokens: Tensor,
        text_mask: Tensor | None,
        image_tokens: Tensor,
        attention_layers: Sequence[int] = (),
    ) -> Fused:
        """Run the co-attention layers.

        Args:
            text_tokens: ``(B, T, C)`` of :meth:`encode_tokens`.
            text_mask: ``(B, T)`` bool, True where a token is real, best on the CPU; None where all are.
            image_tokens: ``(B, N, C)`` of :meth:`encode_image`.
            attention_layers: layers whose cross-attention comes along, negative ones counted from the last.
        """
        return self.cross_modal(text_tokens, text_mask, image_tokens, attention_layers)

    def loss(self, inputs: Tensor, data_samples: Sequence[Any]) -> dict[str, Tensor]:
        """Losses of all heads, which mmengine adds up, and what they log beside.

        Args:
            inputs: ``(B, 3, H, W)``, preprocessed. Equal pictures are encoded once.
            data_samples: B samples with what the heads need.

        Returns:
            ``loss_itm``, ``loss_mlm``, ``loss_vqa`` and so on, by head, with ``acc_*``.

        Raises:
            ValueError: no heads, no samples, or a sample that lacks a field.
        """
        if not len(self.heads):
            raise ValueError('METER has no heads and nothing to train; name heads in its config')
        if not data_samples:
            raise ValueError('METER got images without data_samples and cannot train on them')
        batch = FusionBatch(self, inputs, data_samples)
        losses: dict[str, Tensor] = {}
        for head in self.heads.values():
            losses.update(head.loss(self, batch))
        return losses

    @torch.no_grad()
    def predict(self, inputs: Tensor, data_samples: Sequence[Any]) -> list:
        """What every head says of each sample.

        Args:
            inputs: ``(B, 3, H, W)``, preprocessed. Equal pictures are encoded once.
            data_samples: B samples.

        Returns:
            The samples with the fields that the heads fill.
        """
        batch = FusionBatch(self, inputs, data_samples)
        for head in self.heads.values():
            head.predict(self, batch)
        return batch.samples

    @torch.no_grad()
    def predict_questions(self, image: Tensor, questions: Sequence[str], at_once: int = 64) -> list:
        """Answers to questions about one picture, which is encoded once, also over consecutive calls.

        Args:
            image: ``(3, H, W)`` or ``(1, 3, H, W)``, preprocessed.
            questions: texts.
            at_once: questions that are fused together.

        Returns:
            A sample with ``text``, ``pred_scores (K,)`` and ``pred_answer`` for each question.

        Raises:
            ValueError: the model has no head named ``vqa``.
        """
        from mmpretrain.structures import DataSample

        head = self.get_head('vqa')
        image = image if image.ndim == 4 else image[None]
        image_tokens = self._tokens_of_picture(image)  # (1, N, C)
        samples = [DataSample(text=question) for question in questions]
        for start in range(0, len(samples), at_once):
            part = samples[start : start + at_once]
            head.predict(self, FusionBatch(self, image, part, [0] * len(part), image_tokens))
        return samples

    @torch.no_grad()
    def pair_logits(
        self, image_tokens: Tensor, texts: Sequence[str], pairs: Sequence[tuple[int, int]], at_once: int = 64
    ) -> Tensor:
        """Match scores of chosen pictures and texts, to put them in order.

        Args:
            image_tokens: ``(U, N, C)`` of :meth:`encode_image`.
            texts: sentences.
            pairs: places of a picture and a text, P of them.
            at_once: pairs that are fused together.

        Returns:
            ``(P,)``, on the CPU: the logarithm of the odds that picture and text match. Probabilities would be equal,
            1, for all good pairs in fp32.

        Raises:
            ValueError: the model has no head named ``itm``.
        """
        head = self.get_head('itm')
        scores = []
        for start in range(0, len(pairs), at_once):
            pictures, sentences = zip(*pairs[start : start + at_once], strict=True)
            tokens, text_tokens = self.encode_text([texts[i] for i in sentences])
            fused = self.fuse(text_tokens, tokens.mask, image_tokens[list(pictures)])
            scores.append(head.match_logit(fused).cpu())
        return torch.cat(scores) if scores else torch.zeros(0)

    def score_pairs(
        self, image_tokens: Tensor, texts: Sequence[str], pairs: Sequence[tuple[int, int]], at_once: int = 64
    ) -> Tensor:
        """:meth:`pair_logits` as probabilities that picture and text match, ``(P,)``."""
        return self.pair_logits(image_tokens, texts, pairs, at_once).sigmoid()

    def get_head(self, name: str) -> nn.Module:
        """A head.

        Raises:
            ValueError: there is none of that name.
        """
        if name not in self.heads:
            raise ValueError(
                f'the model has no head {name!r}, it has {", ".join(self.heads) or "none"}; name one in its config'
            )
        return self.heads[name]

    def _tokens_of_picture(self, image: Tensor) -> Tensor:
        """:meth:`encode_image`, remembered for the last picture until weights change."""
        parts = (self.image_encoder, self.cross_modal.image_transform, self.token_type_embeddings)
        version = tuple((id(p), p._version, p.device, p.dtype) for part in parts for p in part.parameters())
        if self._last_picture is not None:
            known, its_version, tokens = self._last_picture
            if version == its_version and known.shape == image.shape and torch.equal(known, image):
                return tokens
        tokens = self.encode_image(image)
        if not self.training:  # drop path draws anew each time
            self._last_picture = (image.clone(), version, tokens)
        return tokens

    def train(self, mode: bool = True) -> 'METER':
        """As any module's; the last picture is forgotten, since weights may be exchanged unseen (EMA) in between."""
        self._last_picture = None
        return super().train(mode)


def _build_head(head: dict | nn.Module, given: Mapping[str, Any]) -> nn.Module:
    """Build a head's config, with those of ``given`` that its constructor takes and the config does not have."""
    if isinstance(head, nn.Module):
        return head
    if 'type' not in head:
        raise ValueError(f'the head {dict(head)} has no `type`; name one, such as FusionVQAHead')
    kind = MODELS.get(head['type']) if isinstance(head['type'], str) else head['type']
    takes = inspect.signature(kind).parameters if kind is not None else {}
    return MODELS.build({**{key: value for key, value in given.items() if key in takes}, **head})
