"""CLIP's image encoder (arXiv 2103.00020, section 2.4), a Vision Transformer with a norm before its blocks, or without.

Parameters are named as in the public code (``CLIP/clip/model.py``, ``open_clip/transformer.py``) without ``visual.``
and ``transformer.``. Its projection is not part of it: ``UniCL`` and fusion models have their own.

Shape legend: ``B`` images, ``C`` channels, ``H, W`` the map of patches, ``L = 1 + H W`` tokens, the class token first.
"""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from florence_mm.models.checkpoints.fitting import fit_on_load
from florence_mm.models.layers.clip_block import PreNormBlock, find_act, init_blocks
from florence_mm.models.layers.token_layout import TokenLayout
from florence_mm.ops.position import resize_token_positions
from florence_mm.registry import MODELS
from florence_mm.utils.nearest import did_you_mean

ARCHS: dict[str, dict[str, Any]] = {
    'micro': {'embed_dims': 64, 'num_layers': 2, 'num_heads': 2, 'patch_size': 8},
    'base-32': {'embed_dims': 768, 'num_layers': 12, 'num_heads': 12, 'patch_size': 32},
    'base-16': {'embed_dims': 768, 'num_layers': 12, 'num_heads': 12, 'patch_size': 16},
    'large-14': {'embed_dims': 1024, 'num_layers': 24, 'num_heads': 16, 'patch_size': 14},
    'large-14-336': {'embed_dims': 1024, 'num_layers': 24, 'num_heads': 16, 'patch_size': 14, 'img_size': 336},
    # open_clip's, trained on LAION-2B; their names there are ViT-H-14, ViT-g-14 and ViT-bigG-14
    'huge-14': {'embed_dims': 1280, 'num_layers': 32, 'num_heads': 16, 'patch_size': 14},
    'giant-14': {'embed_dims': 1408, 'num_layers': 40, 'num_heads': 16, 'patch_size': 14, 'mlp_ratio': 4.3637},
    'gigantic-14': {'embed_dims': 1664, 'num_layers': 48, 'num_heads': 16, 'patch_size': 14, 'mlp_ratio': 4.9231},
}
_REQUIRED = ('embed_dims', 'num_layers', 'num_heads', 'patch_size')
_OPTIONAL = ('mlp_ratio', 'img_size')
OUT_TYPES = ('cls_token', 'raw', 'featmap')


@MODELS.register_module()
class CLIPVisionTower(BaseModule):
    """Image encoder of CLIP: patch embedding, class token, learned positions, pre-norm transformer.

    Arguments and kinds of outputs are named as in mmpretrain's ``VisionTransformer`` where they mean the same.

    Args:
        arch: ``'base-32'``, ``'base-16'``, ``'large-14'``, ``'large-14-336'``, ``'huge-14'``, ``'giant-14'``,
            ``'gigantic-14'``, ``'micro'`` (ours, for tests), or a dict of ``embed_dims``, ``num_layers``,
            ``num_heads`` and ``patch_size``, and optionally ``mlp_ratio`` and ``img_size``.
        img_size: side, or (height, width), of the usual input in pixels, which has a position per patch; default: that
            of the arch, or 224. Positions for inputs of other sizes are interpolated.
        in_channels: channels of the input.
        out_type: what is returned of each block in ``out_indices``: ``'cls_token'``, the class token ``(B, C)``;
            ``'raw'``, all tokens ``(B, L, C)``; ``'featmap'``, the map of patches ``(B, C, H, W)``.
        out_indices: blocks whose output is returned, negative ones count from the last; None: only the last. The
            output of the last block is normalised by ``ln_post``, that of others is not.
        act: ``'quick_gelu'`` (OpenAI's weights) or ``'gelu'`` (most of open_clip's).
        norm_eps: epsilon of the layer norms.
        antialias: smooth when positions are interpolated, as open_clip's ``force_image_size``; False: as transformers
            and METER. It counts for a tensor that is fitted while loading, too.
        layer_scale_init_value: initial value of the layer scales; None: there are none, as in all released CLIPs.
        with_cp: recompute each block in the backward pass instead of keeping its activations.
        frozen_stages: the stem and blocks up to this one are frozen, with the last one ``ln_post`` too; -1: none.
        init_cfg: see mmengine, e.g. ``dict(type='florence_mm.Pretrained', checkpoint=..., prefix='image_encoder.')``.
        pre_norm: a layer norm before the blocks; False: none, as in the plain ViT of DeiT and BLIP.
        patch_bias: a bias of the patch embedding, as in the plain ViT.
        post_norm: have ``ln_post``; False: none, as in BLIP-2, which has a norm of its own behind the tower.

    Attributes:
        num_features (int): C.
        feature_info (list): width, stride and name of each block.

    Raises:
        ValueError: ``arch``, ``act`` or ``out_type`` is unknown, sizes do not fit, or a block does not exist.
    """

    def __init__(
        self,
        arch: str | dict = 'base-16',
        img_size: int | tuple[int, int] | None = None,
        in_channels: int = 3,
        out_type: str = 'cls_token',
        out_indices: Sequence[int] | None = None,
        act: str = 'quick_gelu',
        norm_eps: float = 1e-5,
        antialias: bool = False,
        layer_scale_init_value: float | None = None,
        with_cp: bool = False,
        frozen_stages: int = -1,
        init_cfg: dict | list[dict] | None = None,
        pre_norm: bool = True,
        patch_bias: bool = False,
        post_norm: bool = True,
    ) -> None:
        super().__init__(init_cfg)
        arch = resolve_arch(arch)
        dims, depth, heads, patch = (arch[key] for key in _REQUIRED)
        img_size = arch.get('img_size', 224) if img_size is None else img_size
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        if min(height, width) < patch:
            raise ValueError(f'img_size is {img_size}, less than one patch of {patch} pixels')
        if out_type not in OUT_TYPES:
            raise ValueError(
                f'out_type is {out_type!r}; use one of {", ".join(OUT_TYPES)}{did_you_mean(out_type, OUT_TYPES)}'
            )
        indices = (-1,) if out_indices is None else tuple(out_indices)
        wrong = [i for i in indices if not -depth <= i < depth] + [frozen_stages] * (not -1 <= frozen_stages < depth)
        if wrong:
            raise ValueError(f'block {wrong[0]} in out_indices or frozen_stages, but blocks are 0 to {depth - 1}')
        self.in_channels = in_channels
        self.patch_size = patch
        self.embed_dims = self.num_features = dims
        self.num_layers = depth
        self.out_type = out_type
        self.out_indices = tuple(sorted({i % depth for i in indices}))
        self.act = act
        self.norm_eps = norm_eps
        self.num_heads = heads
        self.antialias = antialias
        self.with_cp = with_cp
        self.frozen_stages = frozen_stages
        self.patches_resolution = (height // patch, width // patch)
        self.feature_info = [{'num_chs': dims, 'reduction': patch, 'module': f'resblocks.{i}'} for i in range(depth)]

        self.conv1 = nn.Conv2d(in_channels, dims, patch, patch, bias=patch_bias)
        tokens = 1 + self.patches_resolution[0] * self.patches_resolution[1]
        self.class_embedding = nn.Parameter(dims**-0.5 * torch.randn(dims))
        self.positional_embedding = nn.Parameter(dims**-0.5 * torch.randn(tokens, dims))
        self.ln_pre = nn.LayerNorm(dims, eps=norm_eps) if pre_norm else nn.Identity()
        hidden, act_layer = int(dims * arch.get('mlp_ratio', 4)), find_act(act)
        self.resblocks = nn.ModuleList(
            PreNormBlock(dims, heads, act_layer, norm_eps, hidden, layer_scale_init_value) for _ in range(depth)
        )
        self.ln_post = nn.LayerNorm(dims, eps=norm_eps) if post_norm else nn.Identity()
        init_blocks(self.resblocks, dims)
        self.register_load_state_dict_pre_hook(fit_on_load)
        self._freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Encode images.

        Args:
            x: ``(B, in_channels, height, width)``, each side at least one patch; pixels of a last patch that is not
                whole are ignored, as in the public code.

        Returns:
            for each block in ``out_indices``, in their order, what ``out_type`` says.

        Raises:
            ValueError: the input has another number of axes or channels, or is smaller.
        """
        if x.ndim != 4 or x.shape[1] != self.in_channels or min(x.shape[2:]) < self.patch_size:
            raise ValueError(
                f'CLIPVisionTower got an input of shape {tuple(x.shape)}; it takes (B, {self.in_channels}, H, W) '
                f'with H and W at least {self.patch_size}'
            )
        x = self.conv1(x)  # (B, C, H, W)
        batch, size = x.shape[0], tuple(x.shape[2:])
        classes = self.class_embedding.to(x.dtype).expand(batch, 1, -1)  # (B, 1, C)
        x = torch.cat([classes, x.flatten(2).transpose(1, 2)], 1)  # (B, L, C)
        positions = resize_token_positions(
            self.positional_embedding, size, self.patches_resolution, self.antialias
        )  # (L, C)
        x = self.ln_pre(x + positions)
        layout = TokenLayout(*x.shape[:2])
        x, outs = layout.pack(x), []  # (B L, C)
        for i, block in enumerate(self.resblocks[: self.out_indices[-1] + 1]):
            # the other tokens of the last block would not be used
            class_only = i == self.out_indices[-1] and self.out_type == 'cls_token'
            if self.with_cp and torch.is_grad_enabled():
                x = checkpoint(block, x, layout, None, class_only, use_reentrant=False)
            else:
                x = block(x, layout, first_only=class_only)
            if i in self.out_indices:
                x_out = x[:, None] if class_only else layout.pad(x)
                outs.append(self._output(x_out, size, last=i == self.num_layers - 1))
        return tuple(outs)

    def _output(self, x: Tensor, size: tuple[int, int], last: bool) -> Tensor:
        """What ``out_type`` says of a block's output ``(B, L, C)``, whose patches are a map of ``size``."""
        if self.out_type == 'cls_token':
            x = x[:, 0]  # (B, C)
        elif self.out_type == 'featmap':
            x = x[:, 1:]  # (B, H W, C)
        x = self.ln_post(x) if last else x
        return x.transpose(1, 2).unflatten(2, size).contiguous() if self.out_type == 'featmap' else x

    def map_size(self, x: Tensor) -> tuple[int, int]:
        """Height and width in patches of the map of an input ``(B, in_channels, height, width)``."""
        return x.shape[2] // self.patch_size, x.shape[3] // self.patch_size

    def train(self, mode: bool = True) -> 'CLIPVisionTower':
        """Set the mode, except that frozen parts stay in evaluation mode."""
        super().train(mode)
        self._freeze()
        return self

    def no_weight_decay(self) -> set[str]:
        """Parameters without weight decay: class token, positions, layer scales, norms, biases."""
        return {name for name, p in self.named_parameters() if p.ndim == 1 or name == 'positional_embedding'}

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Return depth of a parameter and number of depths, for layer-wise learning rates (mmpretrain's interface)."""
        num_depths = self.num_layers + 2
        parts = param_name.removeprefix(prefix).split('.')
        if not param_name.startswith(prefix) or parts[0] == 'ln_post':
            return num_depths - 1, num_depths
        return (int(parts[1]) + 1 if parts[0] == 'resblocks' else 0), num_depths

    def _freeze(self) -> None:
        if self.frozen_stages < 0:
            return
        frozen = [self.conv1, self.ln_pre, *self.resblocks[: self.frozen_stages + 1]]
        frozen += [self.ln_post] if self.frozen_stages == self.num_layers - 1 else []
        for module in frozen:
            module.eval()
            module.requires_grad_(False)
        for parameter in (self.class_embedding, self.positional_embedding):
            parameter.requires_grad_(False)


def resolve_arch(arch: str | dict) -> dict[str, Any]:
    """Look up the sizes of a preset by its name, or check a dict of sizes.

    Raises:
        ValueError: the preset or a key is unknown, a key is missing, or heads do not divide the width.
    """
    if isinstance(arch, str):
        if arch not in ARCHS:
            raise ValueError(f'no image tower named {arch!r}; use one of {", ".join(ARCHS)}{did_you_mean(arch, ARCHS)}')
        return dict(ARCHS[arch])
    known = (*_REQUIRED, *_OPTIONAL)
    for key in arch:
        if key not in known:
            raise ValueError(f'arch has an unknown key {key!r}, known are {", ".join(known)}{did_you_mean(key, known)}')
    if missing := [key for key in _REQUIRED if key not in arch]:
        raise ValueError(f'arch lacks {", ".join(missing)}; give {", ".join(_REQUIRED)}')
    if arch['embed_dims'] % arch['num_heads']:
        raise ValueError(f'embed_dims of arch is {arch["embed_dims"]}, which num_heads={arch["num_heads"]} must divide')
    return dict(arch)
