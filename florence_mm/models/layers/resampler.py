"""Flamingo's resampler: learned latents read the tokens of a picture or video (arXiv 2204.14198, section 2.1).

Shape legend: ``U`` pictures, ``F`` frames, ``S`` tokens of a frame, ``R`` latents, ``C`` channels.
"""

import torch
from torch import Tensor, nn

from .latent_attention import LatentAttention


class Resampler(nn.Module):
    """A number of latents that does not depend on the picture's size or the number of frames, for any tokens.

    Keys and values are those of the tokens and of the latents. Frames have a learned vector each; tokens have no other
    positions than those which the image encoder gave them.

    Args:
        embed_dims: C, of the tokens and of the latents.
        num_latents: R.
        num_layers: number of layers.
        num_heads: heads of each layer.
        head_dims: channels of a head.
        mlp_ratio: hidden width of the MLPs in multiples of C.
        act: activation of the MLPs, ``'squared_relu'`` as in the paper or ``'gelu'`` as in open_flamingo.
        num_frames: most frames of a video; 0: pictures alone, without learned vectors.
        init_std: standard deviation of the initial latents and vectors of frames.

    Raises:
        ValueError: a number is out of range, or the activation is unknown.
    """

    def __init__(
        self,
        embed_dims: int,
        num_latents: int = 64,
        num_layers: int = 6,
        num_heads: int = 8,
        head_dims: int = 64,
        mlp_ratio: float = 4,
        act: str = 'squared_relu',
        num_frames: int = 0,
        init_std: float = 1.0,
    ) -> None:
        super().__init__()
        if num_latents < 1 or num_layers < 1 or num_frames < 0:
            raise ValueError(
                f'num_latents={num_latents} and num_layers={num_layers} of the resampler must be at least 1, and '
                f'num_frames={num_frames} at least 0'
            )
        self.latents = nn.Parameter(torch.randn(num_latents, embed_dims) * init_std)
        self.frame_embeddings = nn.Parameter(torch.randn(num_frames, embed_dims) * init_std) if num_frames else None
        self.layers = nn.ModuleList(
            LatentAttention(
                embed_dims,
                num_heads,
                token_dims=embed_dims,
                qk_channels=num_heads * head_dims,
                mlp_ratio=mlp_ratio,
                reads_itself=True,
                bias=False,
                act=act,
            )
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(embed_dims)

    @property
    def num_frames(self) -> int:
        """Most frames of a video; 0: it takes pictures alone."""
        return 0 if self.frame_embeddings is None else len(self.frame_embeddings)

    def forward(self, tokens: Tensor) -> Tensor:
        """Read pictures ``(U, S, C)``, or videos ``(U, F, S, C)``, to latents ``(U, R, C)``.

        A picture is a video of one frame, if there are vectors of frames.

        Raises:
            ValueError: a video has more frames than ``num_frames``.
        """
        frames = tokens if tokens.ndim == 4 else tokens[:, None]  # (U, F, S, C)
        if tokens.ndim == 4 and frames.shape[1] > self.num_frames:
            raise ValueError(
                f'a video has {frames.shape[1]} frames and num_frames of the resampler is {self.num_frames}; sample '
                'fewer or raise it'
            )
        if self.frame_embeddings is not None:
            frames = frames + self.frame_embeddings[: frames.shape[1], None]
        tokens = frames.flatten(1, 2)  # (U, F, S, C) -> (U, F S, C)
        latents = self.latents.expand(len(tokens), -1, -1)  # (U, R, C)
        for layer in self.layers:
            latents = layer(latents, tokens)
        return self.norm(latents)
