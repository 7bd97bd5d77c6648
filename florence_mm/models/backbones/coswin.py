"""CoSwin, the visual backbone of Florence (arXiv 2111.11432, section 2.3).

Swin Transformer (arXiv 2103.14030) whose patch embedding and patch merging are the convolutional embeddings of CvT
(arXiv 2103.15808). Layers and keys as in the public ``coswin.py`` of MedImageInsight; with ``conv_embed=False`` it is
Swin with the keys of ``swin_transformer.py``, so that Swin's and UniCL's releases load.

Shapes: ``B`` batch, ``C`` channels, ``H, W`` map, ``L = H W`` tokens.
"""

import difflib
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from florence_mm.ops.position import resize_position_embedding, resize_relative_position_table
from florence_mm.registry import MODELS

from .embeddings import ConvEmbed, PatchEmbed, PatchMerging, to_map
from .window_block import WindowBlock

# Sizes of Swin for tiny to large: the paper gives none. Huge is inferred, not published: it meets the paper's 637M
# parameters and the operation counts reported for X-CLIP's X-Florence (docs/coswin.md). Micro is ours, for tests and
# small pictures.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    'micro': {'embed_dims': 32, 'depths': [2, 2, 2], 'num_heads': [1, 2, 4], 'patch_size': 2, 'window_size': 4},
    'tiny': {'embed_dims': 96, 'depths': [2, 2, 6, 2], 'num_heads': [3, 6, 12, 24]},
    'small': {'embed_dims': 96, 'depths': [2, 2, 18, 2], 'num_heads': [3, 6, 12, 24]},
    'base': {'embed_dims': 128, 'depths': [2, 2, 18, 2], 'num_heads': [4, 8, 16, 32]},
    'large': {'embed_dims': 192, 'depths': [2, 2, 18, 2], 'num_heads': [6, 12, 24, 48]},
    'huge': {'embed_dims': 256, 'depths': [2, 2, 24, 6], 'num_heads': [8, 16, 32, 64]},
}
_REQUIRED = ('embed_dims', 'depths', 'num_heads')
_OPTIONAL = ('patch_size', 'window_size', 'mlp_ratio')
MIN_SIDE = 32


def _nearest(name: str, known: Sequence[str]) -> str:
    match = difflib.get_close_matches(name, known, n=1)
    return f'; did you mean {match[0]!r}?' if match else ''


def resolve_arch(arch: str | dict) -> dict[str, Any]:
    """The sizes behind a preset's name, or a dict of sizes after a check of its keys.

    Raises:
        ValueError: an unknown preset or key, a missing key, or lists of different lengths.
    """
    if isinstance(arch, str):
        if arch not in ARCHITECTURES:
            known = ', '.join(ARCHITECTURES)
            raise ValueError(f'arch {arch!r} is none of {known}{_nearest(arch, list(ARCHITECTURES))}')
        return dict(ARCHITECTURES[arch])
    for key in arch:
        if key not in _REQUIRED + _OPTIONAL:
            known = ', '.join(_REQUIRED + _OPTIONAL)
            raise ValueError(
                f'arch has an unknown key {key!r}, known are {known}{_nearest(key, _REQUIRED + _OPTIONAL)}'
            )
    missing = [key for key in _REQUIRED if key not in arch]
    if missing:
        raise ValueError(f'arch lacks {", ".join(missing)}; give embed_dims, depths and num_heads')
    if len(arch['depths']) != len(arch['num_heads']):
        raise ValueError(
            f'arch has {len(arch["depths"])} depths but {len(arch["num_heads"])} num_heads; give one of each a stage'
        )
    return dict(arch)


class Stage(nn.Module):
    """Blocks at one resolution, plain and shifted windows in turn, then the way to the next stage.

    Args:
        blocks: the stage's blocks.
        downsample: leads to the next stage; ``None`` in the last.
    """

    def __init__(self, blocks: Sequence[WindowBlock], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample


@MODELS.register_module()
class CoSwin(BaseModule):
    """Swin with convolutional embeddings; a pyramid of feature maps.

    Arguments are named as in mmpretrain's ``SwinTransformer`` where they mean the same.

    Args:
        arch: a preset (``micro``, ``tiny``, ``small``, ``base``, ``large``, ``huge``) or a dict with ``embed_dims``,
            ``depths`` and ``num_heads``, and optionally ``patch_size``, ``window_size`` and ``mlp_ratio``.
        img_size: side, or (height, width), of the usual input in pixels. As in the public code a stage whose map is
            smaller than the window gets a bias table for the smaller window. Other inputs work too.
        in_channels: channels of the input.
        patch_size: stride of the stem in pixels, 4 unless the arch says otherwise; the convolution's kernel has
            ``2 * patch_size - 1`` pixels.
        window_size: side of a window in tokens, 7 unless the arch says otherwise.
        conv_embed: convolutional embeddings (CoSwin); ``False``: patch embedding and merging (Swin).
        drop_rate: dropout after the stem.
        attn_drop_rate: dropout of attention weights.
        drop_path_rate: stochastic depth of the last block, rising linearly from 0 at the first.
        out_indices: stages whose maps are returned; ``None``: the last alone. The last stage is normalised by
            ``norm``, as in the public code, stage i before it by ``norm{i}``, as in mmdet.
        use_abs_pos_embed: learned position embedding after the stem.
        with_cp: recompute blocks in the backward pass instead of keeping their activations.
        frozen_stages: last stage that does not learn, the stem and all before it included; -1: all learn.
        pad_small_map: pad maps smaller than the window (mmdet) instead of shrinking the window to them.
        layer_scale_init_value: start of CoSwin's optional layer scale; ``None``: no layer scale.
        init_cfg: mmengine's, e.g. ``dict(type='florence_mm.Pretrained', checkpoint=...)``.

    Raises:
        ValueError: an arch or ``out_indices`` that do not exist.
    """

    def __init__(
        self,
        arch: str | dict = 'tiny',
        img_size: int | tuple[int, int] = 224,
        in_channels: int = 3,
        patch_size: int | None = None,
        window_size: int | None = None,
        conv_embed: bool = True,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        out_indices: Sequence[int] | None = None,
        use_abs_pos_embed: bool = False,
        with_cp: bool = False,
        frozen_stages: int = -1,
        pad_small_map: bool = False,
        layer_scale_init_value: float | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        arch = resolve_arch(arch)
        self.embed_dims, self.depths, self.num_heads = (arch[key] for key in _REQUIRED)
        self.num_layers = len(self.depths)
        patch_size = patch_size or arch.get('patch_size', 4)
        window_size = window_size or arch.get('window_size', 7)
        self.in_channels = in_channels
        self.out_indices = (self.num_layers - 1,) if out_indices is None else tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.with_cp = with_cp
        wrong = [i for i in (*self.out_indices, max(frozen_stages, 0)) if not 0 <= i < self.num_layers]
        if wrong:
            raise ValueError(
                f'stage {wrong[0]} in out_indices or frozen_stages, but stages are 0 to {self.num_layers - 1}'
            )

        widths = [self.embed_dims * 2**i for i in range(self.num_layers)]
        if conv_embed:
            self.patch_embed = ConvEmbed(in_channels, widths[0], 2 * patch_size - 1, patch_size)
        else:
            self.patch_embed = PatchEmbed(in_channels, widths[0], patch_size)
        size = self.patch_embed.out_size((img_size, img_size) if isinstance(img_size, int) else tuple(img_size))
        self.patches_resolution = size
        self.absolute_pos_embed = None
        if use_abs_pos_embed:
            self.absolute_pos_embed = nn.Parameter(torch.zeros(1, size[0] * size[1], widths[0]))
        self.pos_drop = nn.Dropout(drop_rate)

        total = sum(self.depths)
        rates = [drop_path_rate * i / max(total - 1, 1) for i in range(total)]
        self.layers = nn.ModuleList()
        for i, (depth, heads) in enumerate(zip(self.depths, self.num_heads, strict=True)):
            window = tuple(window_size if pad_small_map else min(s, window_size) for s in size)
            blocks = [
                WindowBlock(
                    embed_dims=widths[i],
                    num_heads=heads,
                    window_size=window,
                    shift_size=tuple(w // 2 if j % 2 else 0 for w in window),
                    mlp_ratio=arch.get('mlp_ratio', 4.0),
                    attn_drop_rate=attn_drop_rate,
                    drop_path_rate=rates[sum(self.depths[:i]) + j],
                    layer_scale_init_value=layer_scale_init_value,
                    pad_small_map=pad_small_map,
                )
                for j in range(depth)
            ]
            downsample = None
            if i < self.num_layers - 1:
                downsample = ConvEmbed(widths[i], widths[i + 1], 3, 2) if conv_embed else PatchMerging(widths[i])
                size = downsample.out_size(size)
            self.layers.append(Stage(blocks, downsample))

        for i in self.out_indices:
            self.add_module(self._norm_name(i), nn.LayerNorm(widths[i]))
        self.num_features = widths[-1]
        self.feature_info = [
            {'num_chs': width, 'reduction': patch_size * 2**i, 'module': f'layers.{i}'}
            for i, width in enumerate(widths)
        ]
        self._init_parameters()
        self.register_load_state_dict_pre_hook(_fit_state_dict)
        self._freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of the stages in ``out_indices``.

        Args:
            x: ``(B, in_channels, H, W)``, at least 32 pixels a side.

        Returns:
            one ``(B, C_i, H_i, W_i)`` a stage in ``out_indices``, in the order of the stages.

        Raises:
            ValueError: an input of another number of axes or channels, or a smaller one.
        """
        if x.ndim != 4 or x.shape[1] != self.in_channels or min(x.shape[2:]) < MIN_SIDE:
            raise ValueError(
                f'CoSwin got an input of shape {tuple(x.shape)}; it takes (B, {self.in_channels}, H, W) '
                f'with H and W at least {MIN_SIDE}'
            )
        x, size = self.patch_embed(x)  # (B, L, C)
        if self.absolute_pos_embed is not None:
            x = x + resize_position_embedding(self.absolute_pos_embed, size, self.patches_resolution)
        x = self.pos_drop(x)
        outs = []
        for i, stage in enumerate(self.layers):
            for block in stage.blocks:
                if self.with_cp and torch.is_grad_enabled():
                    x = checkpoint(block, x, size, use_reentrant=False)
                else:
                    x = block(x, size)
            if i in self.out_indices:
                out = getattr(self, self._norm_name(i))(x)
                outs.append(to_map(out, size).contiguous())  # (B, C, H, W)
            if i == max(self.out_indices):
                break
            if stage.downsample is not None:
                x, size = stage.downsample(x, size)
        return tuple(outs)

    def train(self, mode: bool = True) -> 'CoSwin':
        """As any module's, but frozen stages stay in evaluation mode."""
        super().train(mode)
        self._freeze()
        return self

    def no_weight_decay(self) -> set[str]:
        """Parameters not to be decayed: bias tables, position embedding, layer scales, norms, biases."""
        return {
            name
            for name, parameter in self.named_parameters()
            if parameter.ndim == 1 or name.endswith(('relative_position_bias_table', 'absolute_pos_embed'))
        }

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter and the number of depths, for layer-wise learning rates (mmpretrain's interface)."""
        num_depths = sum(self.depths) + 2
        parts = param_name.removeprefix(prefix).split('.')
        if not param_name.startswith(prefix) or parts[0].startswith('norm'):
            return num_depths - 1, num_depths
        if parts[0] != 'layers':
            return 0, num_depths
        stage = int(parts[1])
        if parts[2] == 'downsample':
            return sum(self.depths[: stage + 1]), num_depths
        return sum(self.depths[:stage]) + int(parts[3]) + 1, num_depths

    def _norm_name(self, stage: int) -> str:
        return 'norm' if stage == self.num_layers - 1 else f'norm{stage}'

    def _init_parameters(self) -> None:
        """Truncated normal of std 0.02 for linear layers and the position embedding; PyTorch's own for convolutions."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if self.absolute_pos_embed is not None:
            nn.init.trunc_normal_(self.absolute_pos_embed, std=0.02)

    def _freeze(self) -> None:
        if self.frozen_stages < 0:
            return
        frozen = [self.patch_embed, self.pos_drop, *self.layers[: self.frozen_stages + 1]]
        frozen += [getattr(self, self._norm_name(i)) for i in self.out_indices if i <= self.frozen_stages]
        for module in frozen:
            module.eval()
            module.requires_grad_(False)
        if self.absolute_pos_embed is not None:
            self.absolute_pos_embed.requires_grad_(False)


def _fit_state_dict(model: CoSwin, state_dict: dict, prefix: str, *_: Any) -> None:
    """Before loading: leave out buffers we compute and fit bias tables of another window (the public rule)."""
    for key in [k for k in state_dict if k.startswith(prefix) and k.endswith(('relative_position_index', 'attn_mask'))]:
        del state_dict[key]
    for name, module in model.named_modules():
        key = f'{prefix}{name}.relative_position_bias_table'
        table = state_dict.get(key)
        own = getattr(module, 'relative_position_bias_table', None)
        if own is None or table is None or table.shape == own.shape or table.shape[1] != own.shape[1]:
            continue
        state_dict[key] = resize_relative_position_table(table, module.window_size)
