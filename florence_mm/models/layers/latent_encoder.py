"""The encoder of Perceiver (arXiv 2103.03206) and Perceiver IO (arXiv 2107.14795).

Learned latents read an array of tokens of any length, then themselves in many layers. The work is linear in the number
of tokens, and what follows the cross-attend does not depend on it.

Shape legend: ``B`` inputs, ``S`` tokens, ``N`` latents, ``C`` channels of a latent.
"""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .initialisation import init_bert_weights, trunc_normal_
from .latent_attention import LatentAttention


class LatentEncoder(nn.Module):
    """Latents that read tokens once, or before several of their blocks.

    Args:
        token_dims: channels of the tokens.
        num_latents: N.
        embed_dims: C.
        depth: self-attend layers of a block.
        num_blocks: times that the block is applied, each with the same weights.
        num_reads: blocks before which the latents read the tokens: 1 in Perceiver IO; more in Perceiver, where all
            cross-attends but the first share their weights (section 3.1 of its paper).
        num_heads: heads of self-attends.
        cross_heads: heads of cross-attends; they divide ``qk_channels``, or without it ``token_dims``.
        qk_channels: channels of queries and keys; None: C, in the cross-attend ``token_dims``, as published.
        v_channels: channels of values; None: those of the keys.
        mlp_ratio: hidden width of MLPs in multiples of C; 1 as published.
        attn_drop_rate: dropout of attention weights.
        with_cp: recompute each layer in the backward pass instead of keeping its activations.
        init_std: standard deviation of the initial weights of linear layers.

    Raises:
        ValueError: a number of heads does not divide channels, or there are more reads than blocks, or none.
    """

    def __init__(
        self,
        token_dims: int,
        num_latents: int,
        embed_dims: int,
        depth: int,
        num_blocks: int = 1,
        num_reads: int = 1,
        num_heads: int = 8,
        cross_heads: int = 1,
        qk_channels: int | None = None,
        v_channels: int | None = None,
        mlp_ratio: float = 1,
        attn_drop_rate: float = 0.0,
        with_cp: bool = False,
        init_std: float = 0.02,
    ) -> None:
        super().__init__()
        if not 1 <= num_reads <= num_blocks:
            raise ValueError(
                f'num_reads is {num_reads} for num_blocks={num_blocks}; give at least 1 and at most as many'
            )
        self.num_blocks, self.num_reads, self.with_cp = num_blocks, num_reads, with_cp
        shared = {'mlp_ratio': mlp_ratio, 'attn_drop_rate': attn_drop_rate, 'v_channels': v_channels}
        self.latents = nn.Parameter(torch.empty(num_latents, embed_dims))
        reads = [
            LatentAttention(embed_dims, cross_heads, token_dims, qk_channels=qk_channels or token_dims, **shared)
            for _ in range(min(num_reads, 2))
        ]
        self.cross_attend = reads[0]
        self.next_cross_attend = reads[1] if num_reads > 1 else None
        self.self_attends = nn.ModuleList(
            LatentAttention(embed_dims, num_heads, qk_channels=qk_channels, **shared) for _ in range(depth)
        )
        trunc_normal_(self.latents, std=0.02)
        init_bert_weights(self, init_std)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Encode tokens.

        Args:
            tokens: ``(B, S, token_dims)``.
            mask: ``(B, S)`` bool, True where a token is real; None: all are.

        Returns:
            ``(B, N, C)``.
        """
        x = self._run(self.cross_attend, self.latents[None], tokens, mask)  # (1, N, C) -> (B, N, C)
        for block in range(self.num_blocks):
            if 0 < block < self.num_reads:
                x = self._run(self.next_cross_attend, x, tokens, mask)
            for layer in self.self_attends:
                x = self._run(layer, x)
        return x

    def _run(self, layer: LatentAttention, *args: Tensor | None) -> Tensor:
        if self.with_cp and self.training and torch.is_grad_enabled():
            return checkpoint(layer, *args, use_reentrant=False)
        return layer(*args)
