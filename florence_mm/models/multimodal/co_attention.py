"""The co-attention of METER (arXiv 2111.02387, section 3.1), with which Florence fuses image and text.

Florence's paper (arXiv 2111.11432, section 2.5) takes them over. Two stacks of layers, one a modality; layer n of both
reads what layer n - 1 of both gave (``METER/meter/modules/meter_module.py``). :class:`CoAttentionFusion` is everything
between the encoders and the heads.

Shape legend: ``B`` pairs, ``L`` text tokens, ``S`` image tokens, ``C`` channels, ``H`` heads, ``D = C / H``.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from florence_mm.models.generation.cache import CacheStack
from florence_mm.models.layers.initialisation import init_bert_weights
from florence_mm.models.layers.transformer import CoAttentionLayer, KeysValues, TokenLayout, layout_of
from florence_mm.moved import moved_names

from .protocol import CrossWeights, Fused

__getattr__ = moved_names(
    __name__, dict.fromkeys(('CrossAttention', 'PostNorm', 'SelfAttention'), 'florence_mm.models.layers.transformer')
)


class CoAttentionStacks(nn.Module):
    """The two stacks.

    Captioning (:meth:`image_contexts`, :meth:`decode`): the text stack looks back only, and the layers of the image
    stack leave their attention to the text out, since a word would otherwise reach earlier ones through the image. What
    the image gives is then the same for every text and every step of decoding.

    Args:
        num_layers: layers of each stack, 6 in METER.
        hidden_size: C, see :class:`~florence_mm.models.layers.transformer.CoAttentionLayer`.
        num_heads: H.
        mlp_ratio: hidden width of the MLPs in multiples of C.
        drop_rate: dropout before each residual.
        attn_drop_rate: dropout of attention weights.
        layer_norm_eps: 1e-12 in METER and BERT.
        with_cp: recompute each layer in the backward pass instead of keeping its activations.

    Raises:
        ValueError: no layers, or ``num_heads`` does not divide ``hidden_size``.
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
        self.text_layers = nn.ModuleList(CoAttentionLayer(*args) for _ in range(num_layers))
        self.image_layers = nn.ModuleList(CoAttentionLayer(*args) for _ in range(num_layers))
        self.with_cp = with_cp

    def forward(self, text: Tensor, image: Tensor, text_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Fuse.

        Args:
            text: ``(B, L, C)``.
            image: ``(B, S, C)``.
            text_mask: ``(B, L)`` bool, True where a token is real, best on the CPU; None where all are.

        Returns:
            text ``(B, L, C)`` with zeros where no token is, and image ``(B, S, C)``.
        """
        text, image, _ = self._run(text, image, text_mask, ())
        return text, image

    def forward_with_weights(
        self, text: Tensor, image: Tensor, text_mask: Tensor | None = None, layers: Sequence[int] = (-1,)
    ) -> tuple[Tensor, Tensor, dict[int, CrossWeights]]:
        """As :meth:`forward`, with the cross-attention of some layers, which is computed for them alone.

        Args:
            text: ``(B, L, C)``.
            image: ``(B, S, C)``.
            text_mask: ``(B, L)`` bool, True where a token is real, best on the CPU; None where all are.
            layers: numbers of layers; negative ones count from the last.

        Raises:
            ValueError: a layer that there is not.
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
        self, layer: CoAttentionLayer, x: Tensor, layout: TokenLayout, context: Tensor, context_layout: TokenLayout
    ) -> Tensor:
        def run(x: Tensor, context: Tensor) -> Tensor:
            return layer.step(x, layout, layer.crossattention.keys_values(context, context_layout), context_layout)

        if self.with_cp and torch.is_grad_enabled():
            return checkpoint(run, x, context, use_reentrant=False)
        return run(x, context)

    def image_contexts(self, image: Tensor) -> list[KeysValues]:
        """What the text layers attend to in captioning: keys and values of the image, one pair a layer.

        Args:
            image: ``(B, S, C)``.

        Returns:
            for each layer two ``(B, H, S, D)``.
        """
        layout = layout_of(image, None)
        x, contexts = layout.pack(image), []
        for number, (for_text, for_image) in enumerate(zip(self.text_layers, self.image_layers, strict=True)):
            contexts.append(for_text.crossattention.keys_values(x, layout))
            if number + 1 < len(self.text_layers):  # what the last image layer gives is read by none
                x = for_image.step(x, layout, None, None)
        return contexts

    def decode(
        self,
        text: Tensor,
        contexts: Sequence[KeysValues],
        text_mask: Tensor | None = None,
        caches: CacheStack | None = None,
    ) -> Tensor:
        """The text stack of captioning: each token sees the image, itself and those before it.

        Args:
            text: ``(B, L, C)``.
            contexts: of :meth:`image_contexts`, of the same B; or of fewer images, which the texts follow in order, as
                many texts each.
            text_mask: ``(B, L)`` bool, True where a token is real; padding behind the tokens.
            caches: keys and values of earlier tokens, to which those of ``text``, all of them real, are added.

        Returns:
            ``(B, L, C)`` with zeros where no token is.
        """
        layout = layout_of(text, text_mask, causal=True)
        image_layout = TokenLayout(len(contexts[0][0]), contexts[0][0].shape[2])
        x = layout.pack(text)
        for number, (layer, context) in enumerate(zip(self.text_layers, contexts, strict=True)):
            cache = None if caches is None else caches.layer(number)
            x = layer.step(x, layout, context, image_layout, cache)
        return layout.pad(x)


class CoAttentionFusion(nn.Module):
    """Linear transforms of both modalities, the stacks, and the poolers.

    Args:
        text_dims: width of the text encoder.
        image_dims: width of the image encoder's last stage.
        hidden_size: C.
        init_std: standard deviation of the linear layers' first weights. BERT's 0.02 is made for 768 channels; with
            few channels image and text see each other sooner with about ``C ** -0.5``.
        stacks: further arguments of :class:`CoAttentionStacks`.
    """

    def __init__(
        self, text_dims: int, image_dims: int, hidden_size: int, init_std: float = 0.02, **stacks: float | bool
    ) -> None:
        super().__init__()
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
        """Fuse.

        Args:
            text: ``(B, L, C)``, transformed.
            text_mask: ``(B, L)`` bool, True where a token is real; None where all are.
            image: ``(B, S, C)``, transformed.
            attention_layers: layers whose cross-attention is wanted.
        """
        if attention_layers:
            text, image, attention = self.layers.forward_with_weights(text, image, text_mask, attention_layers)
        else:
            (text, image), attention = self.layers(text, image, text_mask), {}
        # METER pools the start of the text, and for backbones without a class token the mean of the image
        pooled = torch.cat([self.text_pooler(text[:, 0]), self.image_pooler(image.mean(1))], 1)  # (B, 2 C)
        return Fused(text, image, pooled, attention)


def _cross_weights(
    layer: CoAttentionLayer, x: Tensor, layout: TokenLayout, context: Tensor, context_layout: TokenLayout
) -> Tensor:
    keys, _ = layer.crossattention.keys_values(context, context_layout)
    return layer.crossattention.weights(layer.attention(x, layout), layout, keys, context_layout)
