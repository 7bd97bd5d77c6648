"""The co-attention of METER (arXiv 2111.02387, section 3.1), by which Florence fuses image and text.

Adopted by Florence's paper (arXiv 2111.11432, section 2.5). There are two stacks of layers, one per modality; layer n
of either stack reads the outputs of layer n - 1 of both (``METER/meter/modules/meter_module.py``).
:class:`CoAttentionFusion` is everything between the encoders and the heads.

Shape legend: ``B`` pairs, ``L`` text tokens, ``S`` image tokens, ``C`` channels, ``H`` heads, ``D = C / H``.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from florence_mm.models.generation.cache import CacheStack
from florence_mm.models.layers.fusion_layer import FusionLayer
from florence_mm.models.layers.initialisation import init_bert_weights
from florence_mm.models.layers.token_layout import TokenLayout, layout_of
from florence_mm.models.layers.transformer import KeysValues
from florence_mm.moved import moved_names

from .protocol import CrossWeights, Fused

__getattr__ = moved_names(
    __name__,
    {
        'CoAttentionLayer': 'florence_mm.models.layers.fusion_layer:FusionLayer',
        **dict.fromkeys(('CrossAttention', 'PostNorm', 'SelfAttention'), 'florence_mm.models.layers.transformer'),
    },
)


class CoAttentionStacks(nn.Module):
    """The two stacks of co-attention layers.

    In captioning (:meth:`image_contexts`, :meth:`decode`) the text stack is causal, and the image stack skips its
    cross-attention to the text, through which tokens would otherwise see later ones. The output of the image stack is
    then the same for all texts and all steps of decoding.

    Args:
        num_layers: number of layers of each stack, 6 in METER.
        hidden_size: C.
        num_heads: H.
        mlp_ratio: hidden width of the MLPs in multiples of C.
        drop_rate: dropout before each residual.
        attn_drop_rate: dropout of attention weights.
        layer_norm_eps: epsilon of the layer norms; 1e-12 in METER and BERT.
        with_cp: recompute each layer in the backward pass instead of keeping its activations.

    Raises:
        ValueError: there are no layers, or ``num_heads`` does not divide ``hidden_size``.
    """

    def __init__(
        self,
        num_layers: int = 6,
        hidden_size: int = 768,
        num_heads: int = 12,
        mlp_ratio: float = 4,
        drop_rate: float = 0.1,
        attn_drop_rate: float = 0.1,
        layer_norm_eps: float = 1e-12,
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f'num_layers is {num_layers}; give at least 1 co-attention layer')
        args = (hidden_size, num_heads, mlp_ratio, drop_rate, attn_drop_rate, layer_norm_eps)
        self.text_layers = nn.ModuleList(FusionLayer(*args) for _ in range(num_layers))
        self.image_layers = nn.ModuleList(FusionLayer(*args) for _ in range(num_layers))
        self.with_cp = with_cp

    def forward(self, text: Tensor, image: Tensor, text_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Fuse text and image tokens.

        Args:
            text: ``(B, L, C)``.
            image: ``(B, S, C)``.
            text_mask: ``(B, L)`` bool, True where a token is real, best on the CPU; None where all are.

        Returns:
            text ``(B, L, C)``, zeros at padding, and image ``(B, S, C)``.
        """
        text, image, _ = self._run(text, image, text_mask, ())
        return text, image

    def forward_with_weights(
        self, text: Tensor, image: Tensor, text_mask: Tensor | None = None, layers: Sequence[int] = (-1,)
    ) -> tuple[Tensor, Tensor, dict[int, CrossWeights]]:
        """Fuse, and also return the cross-attention weights of some layers.

        Args:
            text: ``(B, L, C)``.
            image: ``(B, S, C)``.
            text_mask: ``(B, L)`` bool, True where a token is real, best on the CPU; None where all are.
            layers: indices of layers; negative ones count from the last.

        Raises:
            ValueError: a layer does not exist.
        """
        count = len(self.text_layers)
        if not all(-count <= layer < count for layer in layers):
            raise ValueError(f'layers are {list(layers)}; the stacks have {count}, numbered 0 to {count - 1}')
        text, image, weights = self._run(text, image, text_mask, [layer % count for layer in layers])
        return text, image, {layer: weights[layer % count] for layer in layers}

    def _run(
        self, text: Tensor, image: Tensor, text_mask: Tensor | None, keep: Sequence[int]
    ) -> tuple[Tensor, Tensor, dict[int, CrossWeights]]:
        text_layout, image_layout = layout_of(text, text_mask), layout_of(image, None)
        text, image, weights = text_layout.pack(text), image_layout.pack(image), {}
        for number, (for_text, for_image) in enumerate(zip(self.text_layers, self.image_layers, strict=True)):
            if number in keep:
                weights[number] = CrossWeights(
                    _cross_weights(for_text, text, text_layout, image, image_layout),
                    _cross_weights(for_image, image, image_layout, text, text_layout),
                )
            # both read the previous pair
            text, image = (
                self._layer(for_text, text, text_layout, image, image_layout),
                self._layer(for_image, image, image_layout, text, text_layout),
            )
        return text_layout.pad(text), image_layout.pad(image), weights

    def _layer(
        self, layer: FusionLayer, x: Tensor, layout: TokenLayout, context: Tensor, context_layout: TokenLayout
    ) -> Tensor:
        def run(x: Tensor, context: Tensor) -> Tensor:
            seen = layer.crossattention.context(context, context_layout, layout.length)
            return layer.step(x, layout, seen, context_layout)

        if self.with_cp and torch.is_grad_enabled():
            return checkpoint(run, x, context, use_reentrant=False)
        return run(x, context)

    def image_contexts(self, image: Tensor) -> list[KeysValues]:
        """Compute the keys and values of the image that the text layers attend to in captioning, one pair per layer.

        Args:
            image: ``(B, S, C)``.

        Returns:
            for each layer keys and values, ``(B, H, S, D)`` each.
        """
        layout = layout_of(image, None)
        x, contexts = layout.pack(image), []
        for number, (for_text, for_image) in enumerate(zip(self.text_layers, self.image_layers, strict=True)):
            contexts.append(for_text.crossattention.keys_values(x, layout))
            if number + 1 < len(self.text_layers):  # nothing reads the output of the last image layer
                x = for_image.step(x, layout, None, None)
        return contexts

    def decode(
        self,
        text: Tensor,
        contexts: Sequence[KeysValues],
        text_mask: Tensor | None = None,
        caches: CacheStack | None = None,
    ) -> Tensor:
        """Run the text stack in captioning: each token sees the image, itself and the tokens before it.

        Args:
            text: ``(B, L, C)``.
            contexts: output of :meth:`image_contexts` for the B images of the texts, or for fewer images, each of which
                then has equally many consecutive texts.
            text_mask: ``(B, L)`` bool, True where a token is real; padding is at the end. None: all are.
            caches: keys and values of earlier tokens; those of ``text``, all of them real, are appended.

        Returns:
            ``(B, L, C)``, zeros at padding.
        """
        layout = layout_of(text, text_mask, causal=True)
        image_layout = TokenLayout(len(contexts[0][0]), contexts[0][0].shape[2])
        x = layout.pack(text)
        for number, (layer, context) in enumerate(zip(self.text_layers, contexts, strict=True)):
            cache = None if caches is None else caches.layer(number)
            x = layer.step(x, layout, context, image_layout, cache)
        return layout.pad(x)


class CoAttentionFusion(nn.Module):
    """Everything between encoders and heads: linear transforms of both modalities, the stacks, the poolers.

    Args:
        text_dims: width of the text encoder.
        image_dims: width of the image encoder's last stage.
        hidden_size: C.
        image_pool: what is pooled of the image: the ``'mean'`` of its tokens, as in METER with Swin, or the ``'first'``
            token, the class token of CLIP's ViT.
        init_std: standard deviation of the initial weights of linear layers. BERT's 0.02 suits 768 channels; with few
            channels, cross-attention is learned sooner with about ``C ** -0.5``.
        stacks: further arguments of :class:`CoAttentionStacks`.

    Raises:
        ValueError: ``image_pool`` is unknown.
    """

    def __init__(
        self,
        text_dims: int,
        image_dims: int,
        hidden_size: int,
        init_std: float = 0.02,
        image_pool: str = 'mean',
        **stacks: float | bool,
    ) -> None:
        super().__init__()
        if image_pool not in ('mean', 'first'):
            raise ValueError(f"image_pool is {image_pool!r}; use 'mean', or 'first' for a backbone with a class token")
        self.image_pool = image_pool
        self.text_transform = nn.Linear(text_dims, hidden_size)
        self.image_transform = nn.Linear(image_dims, hidden_size)
        self.layers = CoAttentionStacks(hidden_size=hidden_size, **stacks)
        self.text_pooler, self.image_pooler = (
            nn.Sequential(OrderedDict(dense=nn.Linear(hidden_size, hidden_size), act=nn.Tanh())) for _ in range(2)
        )
        init_bert_weights(self, init_std)

    def forward(
        self, text: Tensor, text_mask: Tensor | None, image: Tensor, attention_layers: Sequence[int] = ()
    ) -> Fused:
        """Fuse text and image tokens.

        Args:
            text: ``(B, L, C)``, after ``text_transform``.
            text_mask: ``(B, L)`` bool, True where a token is real; None: all are.
            image: ``(B, S, C)``, after ``image_transform``.
            attention_layers: indices of layers whose cross-attention weights are returned.
        """
        if attention_layers:
            text, image, attention = self.layers.forward_with_weights(text, image, text_mask, attention_layers)
        else:
            (text, image), attention = self.layers(text, image, text_mask), {}
        of_image = image[:, 0] if self.image_pool == 'first' else image.mean(1)  # (B, C)
        pooled = torch.cat([self.text_pooler(text[:, 0]), self.image_pooler(of_image)], 1)  # (B, 2 C)
        return Fused(text, image, pooled, attention)


def _cross_weights(
    layer: FusionLayer, x: Tensor, layout: TokenLayout, context: Tensor, context_layout: TokenLayout
) -> Tensor:
    keys, _ = layer.crossattention.keys_values(context, context_layout)
    return layer.crossattention.weights(layer.attention(x, layout), layout, keys, context_layout)
