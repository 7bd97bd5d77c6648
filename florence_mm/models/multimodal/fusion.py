"""Everything of METER between the encoders and the heads (``METER/meter/modules/meter_module.py``).

Shape legend: ``B`` pairs, ``L`` text tokens, ``S`` image tokens, ``C`` hidden size.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from florence_mm.models.layers.initialisation import init_bert_weights

from .co_attention import CoAttentionStacks
from .protocol import Fused


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
