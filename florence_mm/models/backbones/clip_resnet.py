"""CLIP's image encoder of convolutions (arXiv 2103.00020, section 2.4), a ResNet that is pooled by attention.

Its stem has three convolutions, its strides are average pools, and its last map is pooled by attention whose query is
the mean of the map. Parameters are named as in the public code (``CLIP/clip/model.py``, ``open_clip``'s
``modified_resnet.py``) without ``visual.``. The pooling projects into the space that texts share, with a bias, so that
``UniCL`` takes it with ``image_projection=False``.

Shape legend: ``B`` images, ``C`` channels of the last map, ``H, W`` its size, ``D`` width of the shared space.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from florence_mm.models.checkpoints.fitting import fit_on_load
from florence_mm.ops.attention import attention
from florence_mm.ops.position import resize_token_positions
from florence_mm.registry import MODELS
from florence_mm.utils.nearest import did_you_mean

ARCHS: dict[str, dict[str, Any]] = {
    'resnet50': {'depths': (3, 4, 6, 3), 'width': 64, 'out_dims': 1024},
    'resnet101': {'depths': (3, 4, 23, 3), 'width': 64, 'out_dims': 512},
    'resnet50x4': {'depths': (4, 6, 10, 6), 'width': 80, 'out_dims': 640, 'img_size': 288},
    'resnet50x16': {'depths': (6, 8, 18, 8), 'width': 96, 'out_dims': 768, 'img_size': 384},
    'resnet50x64': {'depths': (3, 15, 36, 10), 'width': 128, 'out_dims': 1024, 'img_size': 448},
}
_REQUIRED = ('depths', 'width', 'out_dims')
OUT_TYPES = ('pooled', 'featmap')
_STAGES = 4
_EXPANSION = 4
_HEAD_DIMS = 64
_STRIDE = 32


class Bottleneck(nn.Module):
    """Residual block of convolutions of 1, 3 and 1 pixels, whose stride is an average pool before the last one.

    Args:
        in_channels: channels of its input.
        channels: channels of its inner convolutions, a quarter of those of its output.
        stride: 1 or 2.
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        out = channels * _EXPANSION
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3 = nn.Conv2d(channels, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample = None
        if stride > 1 or in_channels != out:
            parts = {'0': nn.Conv2d(in_channels, out, 1, bias=False), '1': nn.BatchNorm2d(out)}
            self.downsample = nn.Sequential(OrderedDict({'-1': nn.AvgPool2d(stride), **parts}))

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block, ``(B, in_channels, H, W)`` to ``(B, 4 channels, H / stride, W / stride)``."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(self.pool(out)))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class AttentionPool(nn.Module):
    """Pooling by multi-head attention whose query is the mean of the map.

    Args:
        size: (height, width) of the usual map, which has a position per place. Those for other maps are interpolated.
        embed_dims: C.
        out_dims: D.
        antialias: smooth when positions are interpolated.
    """

    def __init__(self, size: tuple[int, int], embed_dims: int, out_dims: int, antialias: bool) -> None:
        super().__init__()
        self.patches_resolution = size
        self.antialias = antialias
        self.num_heads = embed_dims // _HEAD_DIMS
        std = embed_dims**-0.5
        self.positional_embedding = nn.Parameter(std * torch.randn(1 + size[0] * size[1], embed_dims))
        self.k_proj, self.q_proj, self.v_proj = (nn.Linear(embed_dims, embed_dims) for _ in range(3))
        self.c_proj = nn.Linear(embed_dims, out_dims)
        for layer in (self.k_proj, self.q_proj, self.v_proj, self.c_proj):
            nn.init.normal_(layer.weight, std=std)

    def forward(self, x: Tensor) -> Tensor:
        """Pool a map ``(B, C, H, W)`` to ``(B, D)``."""
        size = tuple(x.shape[2:])
        x = x.flatten(2).transpose(1, 2)  # (B, H W, C)
        x = torch.cat([x.mean(1, keepdim=True), x], 1)  # (B, 1 + H W, C)
        x = x + resize_token_positions(self.positional_embedding, size, self.patches_resolution, self.antialias)
        query, key, value = self.q_proj(x[:, :1]), self.k_proj(x), self.v_proj(x)
        heads = (part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in (query, key, value))
        return self.c_proj(attention(*heads).transpose(1, 2).flatten(1))  # (B, heads, 1, 64) to (B, C) to (B, D)


@MODELS.register_module()
class CLIPResNet(BaseModule):
    """Image encoder of CLIP's ResNets, ``RN50`` to ``RN50x64``.

    Args:
        arch: ``'resnet50'``, ``'resnet101'``, ``'resnet50x4'``, ``'resnet50x16'``, ``'resnet50x64'``, or a dict of
            ``depths`` (blocks of each of four stages), ``width`` (channels of the stem, a multiple of 2; 32 times as
            many, which 64 must divide, are those of the last map) and ``out_dims``, D, and optionally ``img_size``.
        img_size: side, or (height, width), of the usual input in pixels; default: that of the arch, or 224. Positions
            for inputs of other sizes are interpolated.
        in_channels: channels of the input.
        out_type: ``'pooled'``, the pooled feature ``(B, D)``; ``'featmap'``, maps ``(B, C_i, H_i, W_i)`` of stages,
            without the pooling.
        out_indices: stages whose maps are returned, for ``out_type='featmap'``.
        antialias: smooth when positions are interpolated, as open_clip's ``force_image_size``. It counts for a tensor
            that is fitted while loading, too.
        norm_eval: the batch norms keep their statistics in training, so that an image's feature does not hang on the
            others of its batch or, with ``micro_batch`` of ``UniCL``, of a part of it.
        init_cfg: see mmengine, e.g. ``dict(type='florence_mm.Pretrained', checkpoint=..., prefix='image_encoder.')``.

    Attributes:
        num_features (int): D, of maps C.
        feature_info (list): width, stride and name of each stage.

    Raises:
        ValueError: ``arch`` or ``out_type`` is unknown, sizes do not fit, or a stage does not exist.
    """

    def __init__(
        self,
        arch: str | dict = 'resnet50',
        img_size: int | tuple[int, int] | None = None,
        in_channels: int = 3,
        out_type: str = 'pooled',
        out_indices: Sequence[int] = (3,),
        antialias: bool = False,
        norm_eval: bool = True,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        arch = resolve_arch(arch)
        depths, width, out_dims = (arch[key] for key in _REQUIRED)
        img_size = arch.get('img_size', 224) if img_size is None else img_size
        height, side = (img_size, img_size) if isinstance(img_size, int) else img_size
        if min(height, side) < _STRIDE:
            raise ValueError(f'img_size is {img_size}, less than the stride of {_STRIDE} pixels')
        if out_type not in OUT_TYPES:
            raise ValueError(
                f'out_type is {out_type!r}; use one of {", ".join(OUT_TYPES)}{did_you_mean(out_type, OUT_TYPES)}'
            )
        if wrong := [i for i in out_indices if not 0 <= i < _STAGES]:
            raise ValueError(f'stage {wrong[0]} in out_indices, but stages are 0 to {_STAGES - 1}')
        self.in_channels = in_channels
        self.out_type = out_type
        self.norm_eval = norm_eval
        self.out_indices = tuple(sorted(set(out_indices)))
        widths = [width * _EXPANSION * 2**i for i in range(_STAGES)]
        self.num_features = out_dims if out_type == 'pooled' else widths[-1]
        self.feature_info = [
            {'num_chs': channels, 'reduction': 4 * 2**i, 'module': f'layer{i + 1}'} for i, channels in enumerate(widths)
        ]
        self.conv1 = nn.Conv2d(in_channels, width // 2, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width // 2)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.avgpool = nn.AvgPool2d(2)
        channels = width
        for i, (depth, out) in enumerate(zip(depths, widths, strict=True)):
            first = Bottleneck(channels, out // _EXPANSION, 1 if i == 0 else 2)
            rest = (Bottleneck(out, out // _EXPANSION) for _ in range(depth - 1))
            self.add_module(f'layer{i + 1}', nn.Sequential(first, *rest))
            channels = out
        if out_type == 'pooled':
            self.attnpool = AttentionPool((height // _STRIDE, side // _STRIDE), channels, out_dims, antialias)
        self.register_load_state_dict_pre_hook(fit_on_load)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Encode images.

        Args:
            x: ``(B, in_channels, height, width)``, each side at least 32.

        Returns:
            what ``out_type`` says, maps in the order of ``out_indices``.

        Raises:
            ValueError: the input has another number of axes or channels, or is smaller.
        """
        if x.ndim != 4 or x.shape[1] != self.in_channels or min(x.shape[2:]) < _STRIDE:
            raise ValueError(
                f'CLIPResNet got an input of shape {tuple(x.shape)}; it takes (B, {self.in_channels}, H, W) with H and '
                f'W at least {_STRIDE}'
            )
        for conv, norm in ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)):
            x = F.relu(norm(conv(x)))
        x, maps = self.avgpool(x), []
        for i in range(_STAGES):
            x = self.get_submodule(f'layer{i + 1}')(x)
            if self.out_type == 'featmap' and i in self.out_indices:
                maps.append(x)
        return tuple(maps) if self.out_type == 'featmap' else (self.attnpool(x),)

    def train(self, mode: bool = True) -> 'CLIPResNet':
        """Set the mode, except that with ``norm_eval`` the batch norms stay in evaluation mode."""
        super().train(mode)
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def no_weight_decay(self) -> set[str]:
        """Parameters without weight decay: positions, norms, biases."""
        return {n for n, p in self.named_parameters() if p.ndim == 1 or n.endswith('positional_embedding')}


def resolve_arch(arch: str | dict) -> dict[str, Any]:
    """Look up the sizes of a preset by its name, or check a dict of sizes.

    Raises:
        ValueError: the preset or a key is unknown, a key is missing, or a size does not fit.
    """
    if isinstance(arch, str):
        if arch not in ARCHS:
            raise ValueError(
                f'no ResNet of CLIP named {arch!r}; use one of {", ".join(ARCHS)}{did_you_mean(arch, ARCHS)}'
            )
        return dict(ARCHS[arch])
    known = (*_REQUIRED, 'img_size')
    for key in arch:
        if key not in known:
            raise ValueError(f'arch has an unknown key {key!r}, known are {", ".join(known)}{did_you_mean(key, known)}')
    if missing := [key for key in _REQUIRED if key not in arch]:
        raise ValueError(f'arch lacks {", ".join(missing)}; give {", ".join(_REQUIRED)}')
    if len(arch['depths']) != _STAGES:
        raise ValueError(f'arch has {len(arch["depths"])} depths; give the blocks of each of {_STAGES} stages')
    if arch['width'] % 2:
        raise ValueError(f'width of arch is {arch["width"]}; give an even number')
    return dict(arch)
