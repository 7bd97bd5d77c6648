"""The co-attention layers of METER (arXiv 2111.02387, section 3.1), with which Florence fuses image and text.

Florence's paper (arXiv 2111.11432, section 2.5) takes them over. A layer is BERT's decoder layer (post-norm): attention
within the own tokens, attention to the other modality, MLP. Two stacks of layers, one a modality; layer n of both reads
what layer n - 1 of both gave (``METER/meter/modules/meter_module.py``). Parameters of a layer are named as there, that
is as in transformers' ``BertLayer``, but for queries, keys and values, which are computed together.

Padded text is not computed: layers see the real tokens of a batch in one row after the other, and attention sees texts
padded to the longest. Padding masks stay ``(B, 1, 1, L)``.

Shape legend: ``B`` pairs, ``L`` tokens a sequence (``S`` of the other one), ``N`` real tokens of the batch (``M`` of
the other), ``C`` channels, ``H`` heads, ``D = C / H``.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from florence_mm.models.layers.token_layout import TokenLayout
from florence_mm.ops.attention import attention, dropout
from florence_mm.ops.mlp import add_mlp, without_autograd

KeysValues = tuple[Tensor, Tensor]


class PostNorm(nn.Module):
    """A linear layer, dropout, the residual, layer norm."""

    def __init__(self, in_features: int, hidden_size: int, drop_rate: float, layer_norm_eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(in_features, hidden_size)
        self.LayerNorm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.drop_rate = drop_rate

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """``(N, in_features)`` and ``(N, C)`` to ``(N, C)``."""
        return self.LayerNorm(dropout(self.dense(x), self.drop_rate if self.training else 0.0) + residual)


class SelfAttention(nn.Module):
    """Multi-head attention among the own tokens, with its output layer, residual and norm."""

    def __init__(
        self, hidden_size: int, num_heads: int, drop_rate: float, attn_drop_rate: float, layer_norm_eps: float
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attn_drop_rate = attn_drop_rate
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.output = PostNorm(hidden_size, hidden_size, drop_rate, layer_norm_eps)

    def forward(self, x: Tensor, layout: TokenLayout) -> Tensor:
        """``(N, C) -> (N, C)``."""
        query, key, value = _split_heads(self.qkv(x), layout, 3, self.num_heads)
        rate = self.attn_drop_rate if self.training else 0.0
        attended = attention(query, key, value, layout.mask, layout.causal, rate)
        return self.output(_join_heads(attended, layout), x)


class CrossAttention(nn.Module):
    """Multi-head attention to the tokens of the other modality, with its output layer, residual and norm."""

    def __init__(
        self, hidden_size: int, num_heads: int, drop_rate: float, attn_drop_rate: float, layer_norm_eps: float
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attn_drop_rate = attn_drop_rate
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key_value = nn.Linear(hidden_size, 2 * hidden_size)
        self.output = PostNorm(hidden_size, hidden_size, drop_rate, layer_norm_eps)

    def keys_values(self, context: Tensor, layout: TokenLayout) -> KeysValues:
        """``(M, C)`` to keys and values ``(B, H, S, D)``; they can be kept where the context stays."""
        key, value = _split_heads(self.key_value(context), layout, 2, self.num_heads)
        return key, value

    def forward(self, x: Tensor, layout: TokenLayout, keys_values: KeysValues, context_layout: TokenLayout) -> Tensor:
        """``(N, C) -> (N, C)``."""
        (query,) = _split_heads(self.query(x), layout, 1, self.num_heads)
        rate = self.attn_drop_rate if self.training else 0.0
        attended = attention(query, *keys_values, context_layout.mask, dropout_p=rate)
        return self.output(_join_heads(attended, layout), x)

    def weights(self, x: Tensor, layout: TokenLayout, keys: Tensor, context_layout: TokenLayout) -> Tensor:
        """What :meth:`forward` weights the values with, without dropout: ``(B, H, L, S)``, rows of padding are 0."""
        (query,) = _split_heads(self.query(x), layout, 1, self.num_heads)
        scores = query @ keys.transpose(-2, -1) * query.shape[-1] ** -0.5  # (B, H, L, S)
        if context_layout.mask is not None:
            scores = scores.masked_fill(~context_layout.mask, -torch.inf)
        real = layout.pad(x.new_ones(len(x), 1))[:, None]  # (B, 1, L, 1)
        return scores.softmax(-1) * real


def _split_heads(x: Tensor, layout: TokenLayout, parts: int, num_heads: int) -> tuple[Tensor, ...]:
    """``(N, parts C)`` to ``parts`` tensors ``(B, H, L, D)``."""
    x = layout.pad(x).unflatten(2, (parts, num_heads, -1))  # (B, L, parts C) -> (B, L, parts, H, D)
    return x.permute(2, 0, 3, 1, 4).unbind()  # parts x (B, H, L, D)


def _join_heads(x: Tensor, layout: TokenLayout) -> Tensor:
    return layout.pack(x.transpose(1, 2).flatten(2))  # (B, H, L, D) -> (B, L, C) -> (N, C)


class CoAttentionLayer(nn.Module):
    """One layer of one modality.

    Args:
        hidden_size: C.
        num_heads: H.
        mlp_ratio: hidden width of the MLP in multiples of C.
        drop_rate: dropout before each residual.
        attn_drop_rate: dropout of attention weights.
        layer_norm_eps: 1e-12 in METER and BERT.

    Raises:
        ValueError: ``num_heads`` does not divide ``hidden_size``, or a rate that is none.
    """

    def __init__(
        self,
        hidden_size: int = 768,
        num_heads: int = 12,
        mlp_ratio: float = 4,
        drop_rate: float = 0.1,
        attn_drop_rate: float = 0.1,
        layer_norm_eps: float = 1e-12,
    ) -> None:
        super().__init__()
        if hidden_size % num_heads:
            raise ValueError(f'hidden_size is {hidden_size}, which num_heads={num_heads} does not divide; change one')
        for name, rate in (('drop_rate', drop_rate), ('attn_drop_rate', attn_drop_rate)):
            if not 0 <= rate < 1:
                raise ValueError(f'{name} is {rate}; give at least 0 and less than 1')
        rates = (drop_rate, attn_drop_rate, layer_norm_eps)
        self.attention = SelfAttention(hidden_size, num_heads, *rates)
        self.crossattention = CrossAttention(hidden_size, num_heads, *rates)
        width = int(mlp_ratio * hidden_size)
        self.intermediate = nn.Sequential(OrderedDict(dense=nn.Linear(hidden_size, width), act=nn.GELU()))
        self.output = PostNorm(width, hidden_size, drop_rate, layer_norm_eps)

    def forward(
        self,
        x: Tensor,
        context: Tensor,
        mask: Tensor | None = None,
        context_mask: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """One step of one modality.

        Args:
            x: ``(B, L, C)``, the own tokens.
            context: ``(B, S, C)``, those of the other modality.
            mask: ``(B, L)`` bool, True where a token of ``x`` is real; None where all are.
            context_mask: ``(B, S)``, likewise.
            causal: tokens of ``x`` see themselves and those before them.

        Returns:
            ``(B, L, C)``, zeros where no token is.
        """
        layout, context_layout = _layout(x, mask, causal), _layout(context, context_mask)
        context = self.crossattention.keys_values(context_layout.pack(context), context_layout)
        return layout.pad(self.step(layout.pack(x), layout, context, context_layout))

    def step(
        self, x: Tensor, layout: TokenLayout, context: KeysValues | None, context_layout: TokenLayout | None
    ) -> Tensor:
        """:meth:`forward` on packed tokens, ``(N, C) -> (N, C)``.

        Args:
            x: the own tokens.
            layout: where they lie.
            context: keys and values of :attr:`crossattention`; None leaves this attention out.
            context_layout: where those tokens lie.
        """
        x = self.attention(x, layout)
        if context is not None:
            x = self.crossattention(x, layout, context, context_layout)
        return self._mlp(x)

    def _mlp(self, x: Tensor) -> Tensor:
        if without_autograd(x, self.output.dense.weight) and not self.training:
            x = add_mlp(x.clone(), x, self.intermediate.dense, self.output.dense)
            return self.output.LayerNorm(x)
        return self.output(self.intermediate(x), x)


@dataclass(frozen=True)
class CrossWeights:
    """Cross-attention of one pair of layers; each row sums to 1, rows of padding to 0.

    Attributes:
        text_to_image: ``(B, H, text tokens, image tokens)``.
        image_to_text: ``(B, H, image tokens, text tokens)``.
    """

    text_to_image: Tensor
    image_to_text: Tensor


class CoAttentionStacks(nn.Module):
    """The two stacks.

    Captioning (:meth:`image_contexts`, :meth:`decode`): the text stack looks back only, and the layers of the image
    stack leave their attention to the text out, since a word would otherwise reach earlier ones through the image. What
    the image gives is then the same for every text and every step of decoding.

    Args:
        num_layers: layers of each stack, 6 in METER.
        hidden_size: see :class:`CoAttentionLayer`, as the following.
        num_heads: likewise.
        mlp_ratio: likewise.
        drop_rate: likewise.
        attn_drop_rate: likewise.
        layer_norm_eps: likewise.
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
            text: see :meth:`forward`.
            image: likewise.
            text_mask: likewise.
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
        text_layout, image_layout = _layout(text, text_mask), _layout(image, None)
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
        layout = _layout(image, None)
        x, contexts = layout.pack(image), []
        for number, (for_text, for_image) in enumerate(zip(self.text_layers, self.image_layers, strict=True)):
            contexts.append(for_text.crossattention.keys_values(x, layout))
            if number + 1 < len(self.text_layers):  # what the last image layer gives is read by none
                x = for_image.step(x, layout, None, None)
        return contexts

    def decode(self, text: Tensor, contexts: Sequence[KeysValues], text_mask: Tensor | None = None) -> Tensor:
        """The text stack of captioning: each token sees the image, itself and those before it.

        Args:
            text: ``(B, L, C)``.
            contexts: of :meth:`image_contexts`, of the same B.
            text_mask: ``(B, L)`` bool, True where a token is real; padding behind the tokens.

        Returns:
            ``(B, L, C)`` with zeros where no token is.
        """
        layout = _layout(text, text_mask, causal=True)
        image_layout = TokenLayout(len(text), contexts[0][0].shape[2])
        x = layout.pack(text)
        for layer, context in zip(self.text_layers, contexts, strict=True):
            x = layer.step(x, layout, context, image_layout)
        return layout.pad(x)


def _layout(x: Tensor, mask: Tensor | None, causal: bool = False) -> TokenLayout:
    """The layout of ``x (B, L, C)``."""
    if mask is None:
        return TokenLayout(*x.shape[:2], causal=causal)
    if mask.shape != x.shape[:2]:
        raise ValueError(f'the padding mask has shape {tuple(mask.shape)} and the tokens {tuple(x.shape[:2])}')
    return TokenLayout.of(mask, causal, x.device)


def _cross_weights(
    layer: CoAttentionLayer, x: Tensor, layout: TokenLayout, context: Tensor, context_layout: TokenLayout
) -> Tensor:
    keys, _ = layer.crossattention.keys_values(context, context_layout)
    return layer.crossattention.weights(layer.attention(x, layout), layout, keys, context_layout)
