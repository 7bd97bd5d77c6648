"""CoSwin, the image backbone of Florence (arXiv 2111.11432, section 2.3).

A Swin Transformer (arXiv 2103.14030) whose patch embedding and patch merging are replaced by the convolutional
embeddings of CvT (arXiv 2103.15808). Layers and keys are those of the public ``coswin.py`` of MedImageInsight; with
``conv_embed=False`` it is Swin with the keys of ``swin_transformer.py``, so that Swin's and UniCL's releases load.

:class:`WindowPyramid` is the part shared with :mod:`.video_coswin`: the stages of window blocks. :mod:`.stages`
has what is around the blocks.

Shapes: ``B`` batch, ``C`` channels, ``S`` sizes of a map (``H, W`` or ``T, H, W``), ``L`` tokens, the product of ``S``.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from florence_mm.models.layers.swin import WindowBlock
from florence_mm.ops.position import resize_position_embedding
from florence_mm.ops.windows import fix_sizes
from florence_mm.registry import MODELS

from .arch import drop_path_rates, resolve_arch
from .stages import MIN_SIDE, ConvEmbed, PatchEmbed, PatchMerging, Pyramid, Stage


class WindowPyramid(Pyramid):
    """Base class of CoSwin and Video CoSwin: stages of blocks with regular and shifted windows in turn.

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
        depths, num_heads = arch['depths'], arch['num_heads']
        widths = [arch['embed_dims'] * 2**i for i in range(len(depths))]
        rates = drop_path_rates(drop_path_rate, depths)
        stages = []
        for i, (heads, window) in enumerate(zip(num_heads, windows, strict=True)):
            blocks = [
                WindowBlock(
                    embed_dims=widths[i],
                    num_heads=heads,
                    window_size=window,
                    shift_size=tuple(w // 2 if j % 2 else 0 for w in window),
                    mlp_ratio=arch.get('mlp_ratio', 4.0),
                    drop_path_rate=rate,
                    **block_args,
                )
                for j, rate in enumerate(rates[i])
            ]
            last = i == len(depths) - 1
            stages.append(Stage(blocks, None if last else make_downsample(widths[i], widths[i + 1])))
        super().__init__(stem, stages, widths, reduction, drop_rate, out_indices, with_cp, frozen_stages, init_cfg)
        self.embed_dims, self.num_heads = arch['embed_dims'], num_heads


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
