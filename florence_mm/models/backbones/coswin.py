"""CoSwin, the image backbone of Florence (arXiv 2111.11432, section 2.3).

A Swin Transformer (arXiv 2103.14030) whose patch embedding and patch merging are replaced by the convolutional
embeddings of CvT (arXiv 2103.15808). Layers and keys are those of the public ``coswin.py`` of MedImageInsight; with
``conv_embed=False`` it is Swin with the keys of ``swin_transformer.py``, so that Swin's and UniCL's releases load.

:class:`WindowPyramid` is the part shared with :mod:`.video_coswin`: the stages of window blocks.

Shapes: ``B`` batch, ``C`` channels, ``S`` sizes of a map (``H, W`` or ``T, H, W``), ``L`` tokens, the product of ``S``.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from florence_mm.models.checkpoints.fitting import fit_on_load
from florence_mm.models.layers.initialisation import trunc_normal_
from florence_mm.models.layers.swin import ConvEmbed, PatchEmbed, PatchMerging, WindowBlock, to_map
from florence_mm.ops.position import resize_position_embedding
from florence_mm.ops.windows import fix_sizes
from florence_mm.registry import MODELS

from .arch import resolve_arch

MIN_SIDE = 32


class Stage(nn.Module):
    """One stage: blocks with regular and shifted windows in turn, then downsampling.

    Args:
        blocks: the blocks.
        downsample: reduces the map to the resolution of the next stage; ``None`` in the last stage.
    """

    def __init__(self, blocks: Sequence[WindowBlock], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample


class WindowPyramid(BaseModule):
    """Base class of CoSwin and Video CoSwin: patch embedding, stages and output norms.

    Args:
        arch: sizes from :func:`~florence_mm.models.backbones.arch.resolve_arch`.
        stem: the patch embedding.
        make_downsample: builds the downsampling layer after a stage, from the channels of that stage and of the next.
        windows: window size of each stage, in tokens along each axis.
        reduction: stride of the patch embedding in pixels.
        drop_rate: dropout after the stem.
        drop_path_rate: stochastic depth of the last block, rising linearly from 0 at the first.
        out_indices: stages whose maps are returned; ``None``: only the last.
        with_cp: recompute blocks in the backward pass instead of keeping their activations.
        frozen_stages: the stem and stages up to this one are frozen; -1: none.
        init_cfg: see mmengine.
        block_args: further arguments of all :class:`WindowBlock`.

    Raises:
        ValueError: ``out_indices`` or ``frozen_stages`` names a stage that does not exist.
    """

    def __init__(
        self,
        arch: dict[str, Any],
        stem: nn.Module,
        make_downsample: Callable[[int, int], nn.Module],
        windows: Sequence[tuple[int, ...]],
        reduction: int,
        drop_rate: float,
        drop_path_rate: float,
        out_indices: Sequence[int] | None,
        with_cp: bool,
        frozen_stages: int,
        init_cfg: dict | list[dict] | None,
        **block_args: Any,
    ) -> None:
        super().__init__(init_cfg)
        self.embed_dims, self.depths, self.num_heads = (arch[key] for key in ('embed_dims', 'depths', 'num_heads'))
        self.num_layers = len(self.depths)
        self.out_indices = (self.num_layers - 1,) if out_indices is None else tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.with_cp = with_cp
        wrong = [i for i in (*self.out_indices, max(frozen_stages, 0)) if not 0 <= i < self.num_layers]
        if wrong:
            raise ValueError(
                f'stage {wrong[0]} in out_indices or frozen_stages, but stages are 0 to {self.num_layers - 1}'
            )

        widths = [self.embed_dims * 2**i for i in range(self.num_layers)]
        self.patch_embed = stem
        self.pos_drop = nn.Dropout(drop_rate)
        total = sum(self.depths)
        rates = [drop_path_rate * i / max(total - 1, 1) for i in range(total)]
        self.layers = nn.ModuleList()
        for i, (depth, heads, window) in enumerate(zip(self.depths, self.num_heads, windows, strict=True)):
            blocks = [
                WindowBlock(
                    embed_dims=widths[i],
                    num_heads=heads,
                    window_size=window,
                    shift_size=tuple(w // 2 if j % 2 else 0 for w in window),
                    mlp_ratio=arch.get('mlp_ratio', 4.0),
                    drop_path_rate=rates[sum(self.depths[:i]) + j],
                    **block_args,
                )
                for j in range(depth)
            ]
            last = i == self.num_layers - 1
            self.layers.append(Stage(blocks, None if last else make_downsample(widths[i], widths[i + 1])))
        for i in self.out_indices:
            self.add_module(self._norm_name(i), nn.LayerNorm(widths[i]))
        self.num_features = widths[-1]
        self.feature_info = [
            {'num_chs': width, 'reduction': reduction * 2**i, 'module': f'layers.{i}'} for i, width in enumerate(widths)
        ]
        self._init_parameters()
        self.register_load_state_dict_pre_hook(fit_on_load)

    def run_stages(self, x: Tensor, size: tuple[int, ...]) -> list[Tensor]:
        """Run the stages on the stem's tokens ``(B, L, C)``, a map of ``size``; return the maps ``(B, C_i, *S_i)``."""
        outs = []
        for i, stage in enumerate(self.layers):
            for block in stage.blocks:
                if self.with_cp and torch.is_grad_enabled():
                    x = checkpoint(block, x, size, use_reentrant=False)
                else:
                    x = block(x, size)
            if i in self.out_indices:
                out = getattr(self, self._norm_name(i))(x)
                outs.append(to_map(out, size).contiguous())  # (B, C, *S)
            if i == max(self.out_indices):
                break
            if stage.downsample is not None:
                x, size = stage.downsample(x, size)
        return outs

    def train(self, mode: bool = True) -> 'WindowPyramid':
        """Set the mode, except that frozen stages stay in evaluation mode."""
        super().train(mode)
        self._freeze()
        return self

    def last_blocks(self) -> list[nn.Module]:
        """The last block of each stage, whose output is the stage's tokens."""
        return [stage.blocks[-1] for stage in self.layers]

    def no_weight_decay(self) -> set[str]:
        """Parameters without weight decay: bias tables, position embedding, layer scales, norms, biases."""
        return {
            name
            for name, parameter in self.named_parameters()
            if parameter.ndim == 1 or name.endswith(('relative_position_bias_table', 'absolute_pos_embed'))
        }

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Return depth of a parameter and number of depths, for layer-wise learning rates (mmpretrain's interface)."""
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
        """Initialise linear layers with a truncated normal of std 0.02; convolutions keep PyTorch's initialisation."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def _freeze(self) -> None:
        if self.frozen_stages < 0:
            return
        frozen = [self.patch_embed, self.pos_drop, *self.layers[: self.frozen_stages + 1]]
        frozen += [getattr(self, self._norm_name(i)) for i in self.out_indices if i <= self.frozen_stages]
        for module in frozen:
            module.eval()
            module.requires_grad_(False)


@MODELS.register_module()
class CoSwin(WindowPyramid):
    """Swin with convolutional embeddings; returns a pyramid of feature maps.

    Arguments are named as in mmpretrain's ``SwinTransformer`` where they mean the same.

    Args:
        arch: a preset (``micro``, ``tiny``, ``small``, ``base``, ``large``, ``huge``) or a dict with ``embed_dims``,
            ``depths`` and ``num_heads``, and optionally ``patch_size``, ``window_size`` and ``mlp_ratio``.
        img_size: side, or (height, width), of the usual input in pixels. As in the public code, a stage whose map is
            smaller than the window gets a bias table for that smaller window. Inputs of other sizes work too.
        in_channels: channels of the input.
        patch_size: stride of the stem in pixels; default: that of the arch, or 4. The convolution's kernel has
            ``2 * patch_size - 1`` pixels.
        window_size: side of a window in tokens; default: that of the arch, or 7.
        conv_embed: use convolutional embeddings (CoSwin); ``False``: patch embedding and merging (Swin).
        drop_rate: dropout after the stem.
        attn_drop_rate: dropout of attention weights.
        drop_path_rate: stochastic depth of the last block, rising linearly from 0 at the first.
        out_indices: stages whose maps are returned; ``None``: only the last. The norm of the last stage is named
            ``norm``, as in the public code, that of an earlier stage i ``norm{i}``, as in mmdet.
        use_abs_pos_embed: add a learned absolute position embedding after the stem.
        with_cp: recompute blocks in the backward pass instead of keeping their activations.
        frozen_stages: the stem and stages up to this one are frozen; -1: none.
        pad_small_map: pad maps smaller than the window, as mmdet does, instead of shrinking the window.
        layer_scale_init_value: initial value of CoSwin's optional layer scale; ``None``: no layer scale.
        init_cfg: see mmengine, e.g. ``dict(type='florence_mm.Pretrained', checkpoint=...)``.

    Raises:
        ValueError: ``arch`` is unknown or incomplete, or ``out_indices`` names a stage that does not exist.
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
        arch = resolve_arch(arch)
        patch_size = patch_size or arch.get('patch_size', 4)
        window_size = window_size or arch.get('window_size', 7)
        if conv_embed:
            stem = ConvEmbed(in_channels, arch['embed_dims'], (2 * patch_size - 1,) * 2, (patch_size,) * 2)
        else:
            stem = PatchEmbed(in_channels, arch['embed_dims'], (patch_size,) * 2)
        resolution = stem.out_size((img_size, img_size) if isinstance(img_size, int) else tuple(img_size))
        windows, size = [], resolution
        for _ in arch['depths']:
            windows.append(tuple(window_size if pad_small_map else min(s, window_size) for s in size))
            size = tuple(-(-s // 2) for s in size)
        super().__init__(
            arch,
            stem,
            make_downsample=lambda c, wider: ConvEmbed(c, wider, (3, 3), (2, 2)) if conv_embed else PatchMerging(c),
            windows=windows,
            reduction=patch_size,
            drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
            out_indices=out_indices,
            with_cp=with_cp,
            frozen_stages=frozen_stages,
            init_cfg=init_cfg,
            attn_drop_rate=attn_drop_rate,
            layer_scale_init_value=layer_scale_init_value,
            pad_small_map=pad_small_map,
        )
        self.in_channels = in_channels
        self.patches_resolution = resolution
        self.absolute_pos_embed = None
        if use_abs_pos_embed:
            self.absolute_pos_embed = nn.Parameter(torch.zeros(1, resolution[0] * resolution[1], self.embed_dims))
            nn.init.trunc_normal_(self.absolute_pos_embed, std=0.02)
        self._freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the feature maps of the stages in ``out_indices``.

        Args:
            x: ``(B, in_channels, H, W)``, H and W at least 32.

        Returns:
            a map ``(B, C_i, H_i, W_i)`` for each stage in ``out_indices``, in the order of the stages.

        Raises:
            ValueError: the input has another number of axes or channels, or is smaller.
        """
        if x.ndim != 4 or x.shape[1] != self.in_channels or min(x.shape[2:]) < MIN_SIDE:
            raise ValueError(
                f'CoSwin got an input of shape {tuple(x.shape)}; it takes (B, {self.in_channels}, H, W) '
                f'with H and W at least {MIN_SIDE}'
            )
        fix_sizes(x.shape[2:])
        x, size = self.patch_embed(x)  # (B, L, C)
        if self.absolute_pos_embed is not None:
            x = x + resize_position_embedding(self.absolute_pos_embed, size, self.patches_resolution)
        return tuple(self.run_stages(self.pos_drop(x), size))

    def _freeze(self) -> None:
        super()._freeze()
        if self.frozen_stages >= 0 and self.absolute_pos_embed is not None:
            self.absolute_pos_embed.requires_grad_(False)
