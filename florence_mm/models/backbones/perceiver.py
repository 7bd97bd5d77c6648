"""Perceiver and Perceiver IO as image backbones (arXiv 2103.03206 and 2107.14795, there section 4.5 and appendix A).

Every pixel, or every place of a convolution's map, is a token: its values beside a description of its place. Latents
read the tokens (:class:`~florence_mm.models.layers.latent_encoder.LatentEncoder`). The first three inputs are
published; the fourth begins with what another backbone of ours has learned:

===========  =====================================  =================================================================
``inputs``   values of a token                      its place
===========  =====================================  =================================================================
``fourier``  the pixel                              Fourier features
``learned``  the pixel, by a 1x1 convolution        a learned vector of each pixel, by a linear layer
``conv``     7x7 convolution and pooling, stride 4  Fourier features
``map``      the maps of another backbone           Fourier features
===========  =====================================  =================================================================

Shape legend: ``B`` images, ``H, W`` the map of tokens, ``S = H W``, ``N`` latents, ``C`` their channels.
"""

from collections import OrderedDict
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from florence_mm.models.base import build_part
from florence_mm.models.checkpoints.fitting import fit_on_load
from florence_mm.models.layers.initialisation import trunc_normal_
from florence_mm.models.layers.joined_maps import joined_channels, joined_maps
from florence_mm.models.layers.latent_encoder import LatentEncoder
from florence_mm.ops.position import fourier_features, grid_places, resize_position_embedding
from florence_mm.registry import MODELS
from florence_mm.utils.nearest import did_you_mean

ARCHS: dict[str, dict[str, Any]] = {
    'imagenet': {'num_latents': 512, 'embed_dims': 1024, 'depth': 6, 'num_blocks': 8, 'num_heads': 8},
    'micro': {'num_latents': 16, 'embed_dims': 64, 'depth': 2, 'num_blocks': 2, 'num_heads': 4},
}
#: Inputs, and channels of their tokens without place by default.
INPUTS = {'fourier': None, 'learned': 256, 'conv': 64, 'map': None}
OUT_TYPES = ('raw', 'avg')
_STRIDE = 4  # of the convolution and the pooling


@MODELS.register_module()
class Perceiver(BaseModule):
    """Image backbone whose latents read pixels or places.

    Args:
        arch: ``'imagenet'``, ``'micro'`` (ours, for tests), or a dict of arguments of
            :class:`~florence_mm.models.layers.latent_encoder.LatentEncoder` with at least ``num_latents``,
            ``embed_dims`` and ``depth``.
        inputs: ``'fourier'``, ``'learned'``, ``'conv'`` or ``'map'``, see the table of this module.
        stem: with ``'map'``, a backbone, or its config, with ``feature_info`` and ``out_indices``; coarser maps are
            enlarged to the size of the first, and all channels are read.
        img_size: side, or (height, width), of the usual input in pixels. It sets the highest frequencies of Fourier
            features and the number of learned vectors, which are interpolated for inputs of other sizes.
        in_channels: channels of the input.
        stem_channels: channels of a token's values with ``'learned'`` or ``'conv'``; None: 256 or 64, as published.
        num_bands: frequencies of the Fourier features on each axis.
        out_type: ``'raw'``, the latents ``(B, N, C)``; ``'avg'``, their mean ``(B, C)``, which Perceiver classifies by
            a linear layer. Perceiver IO decodes them (:class:`~florence_mm.models.heads.perceiver.PerceiverDecoder`).
        attn_drop_rate: dropout of attention weights.
        with_cp: recompute each layer in the backward pass instead of keeping its activations.
        init_cfg: see mmengine, e.g. ``dict(type='florence_mm.Pretrained', checkpoint=..., prefix='backbone.')``.

    Attributes:
        num_features (int): C.

    Raises:
        ValueError: an argument is unknown, or sizes do not fit.
    """

    def __init__(
        self,
        arch: str | dict = 'imagenet',
        inputs: str = 'fourier',
        img_size: int | tuple[int, int] = 224,
        in_channels: int = 3,
        stem: dict | nn.Module | None = None,
        stem_channels: int | None = None,
        num_bands: int = 64,
        out_type: str = 'raw',
        attn_drop_rate: float = 0.0,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        for name, value, known in (('inputs', inputs, INPUTS), ('out_type', out_type, OUT_TYPES)):
            if value not in known:
                raise ValueError(f'{name} is {value!r}; use one of {", ".join(known)}{did_you_mean(value, known)}')
        if stem_channels is not None and INPUTS[inputs] is None:
            raise ValueError(f'stem_channels is {stem_channels}, which inputs={inputs!r} does not take; leave it out')
        if (stem is None) == (inputs == 'map'):
            raise ValueError(
                f'inputs is {inputs!r} and stem {"left out" if stem is None else "given"}; a stem, a '
                "backbone, belongs to inputs='map'"
            )
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.inputs, self.in_channels, self.num_bands, self.out_type = inputs, in_channels, num_bands, out_type
        channels, stride = stem_channels or INPUTS[inputs] or in_channels, _STRIDE if inputs == 'conv' else 1
        if stem is not None:
            self.stem = build_part(stem)
            channels = joined_channels(self.stem)
            stride = self.stem.feature_info[self.stem.out_indices[0]]['reduction']
        self.patches_resolution = (height // stride, width // stride)
        if inputs == 'conv':
            self.stem = nn.Sequential(
                OrderedDict(
                    conv=nn.Conv2d(in_channels, channels, 7, 2, 3, bias=False),
                    norm=nn.BatchNorm2d(channels),
                    act=nn.ReLU(),
                    pool=nn.MaxPool2d(3, 2),
                )
            )
        if inputs == 'learned':
            self.stem = nn.Conv2d(in_channels, channels, 1)
            places = self.patches_resolution[0] * self.patches_resolution[1]
            self.absolute_pos_embed = nn.Parameter(torch.empty(1, places, channels))
            trunc_normal_(self.absolute_pos_embed, std=0.02)
            self.position_projection = nn.Linear(channels, channels)
        token_dims = channels + (channels if inputs == 'learned' else 2 + 4 * num_bands)
        sizes = {'attn_drop_rate': attn_drop_rate, 'with_cp': with_cp}
        self.encoder = LatentEncoder(token_dims, **_sizes(arch), **sizes)
        self.num_features = self.embed_dims = self.encoder.latents.shape[1]
        self.register_load_state_dict_pre_hook(fit_on_load)

    def no_weight_decay(self) -> set[str]:
        """Parameters without weight decay: latents, learned positions, norms, biases."""
        own = ('encoder.latents', 'absolute_pos_embed')
        return {name for name, parameter in self.named_parameters() if parameter.ndim == 1 or name in own}

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Encode images.

        Args:
            x: ``(B, in_channels, height, width)``.

        Returns:
            one tensor, ``(B, N, C)`` or their mean ``(B, C)``.

        Raises:
            ValueError: the input has another number of axes or channels, or is too small for the convolution.
        """
        least = 5 if self.inputs == 'conv' else 1  # of 5 pixels the convolution makes 3, one pooling window
        if x.ndim != 4 or x.shape[1] != self.in_channels or min(x.shape[2:]) < least:
            raise ValueError(
                f'Perceiver got an input of shape {tuple(x.shape)}; it takes (B, {self.in_channels}, H, W) with H and '
                f'W at least {least}'
            )
        latents = self.encoder(self.tokens(x))
        return (latents if self.out_type == 'raw' else latents.mean(1),)

    def tokens(self, x: Tensor) -> Tensor:
        """Return the tokens ``(B, S, channels)`` of images ``(B, in_channels, height, width)``, places included."""
        if self.inputs != 'fourier':
            x = self.stem(x)
        if self.inputs == 'map':
            x = joined_maps(x)
        size = tuple(x.shape[2:])
        x = x.flatten(2).transpose(1, 2)  # (B, channels, H, W) -> (B, S, channels)
        if self.inputs == 'learned':
            places = resize_position_embedding(self.absolute_pos_embed, size, self.patches_resolution)
            places = self.position_projection(places)[0]
        else:
            places = fourier_features(grid_places(size, x.device), self.num_bands, self.patches_resolution).to(x.dtype)
        return torch.cat([x, places.expand(x.shape[0], -1, -1)], -1)


def _sizes(arch: str | dict) -> dict[str, Any]:
    """Look up the sizes of a preset by its name, or check that a dict has those without a default."""
    if isinstance(arch, str):
        if arch not in ARCHS:
            raise ValueError(f'arch {arch!r} is none of {", ".join(ARCHS)}{did_you_mean(arch, ARCHS)}')
        return ARCHS[arch]
    if missing := [key for key in ('num_latents', 'embed_dims', 'depth') if key not in arch]:
        raise ValueError(f'arch lacks {", ".join(missing)}; give num_latents, embed_dims and depth')
    return dict(arch)
