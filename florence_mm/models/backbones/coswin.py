"""CoSwin, the visual backbone of Florence (arXiv 2111.11432, section 2.3).

Swin Transformer (arXiv 2103.14030) whose patch embedding and patch merging are the convolutional embeddings of CvT
(arXiv 2103.15808). Layers and keys as in the public ``coswin.py`` of MedImageInsight; with ``conv_embed=False`` it is
Swin with the keys of ``swin_transformer.py``, so that Swin's and UniCL's releases load.

Shapes: ``B`` batch, ``C`` channels, ``H, W`` map, ``L = H W`` tokens.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from florence_mm.models.layers.patch_embed import ConvEmbed, PatchEmbed, PatchMerging
from florence_mm.ops.position import resize_position_embedding
from florence_mm.registry import MODELS

from .arch import resolve_arch
from .pyramid import MIN_SIDE, WindowPyramid


@MODELS.register_module()
class CoSwin(WindowPyramid):
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
            merge=lambda c, wider: ConvEmbed(c, wider, (3, 3), (2, 2)) if conv_embed else PatchMerging(c),
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
        return tuple(self.run_stages(self.pos_drop(x), size))

    def _freeze(self) -> None:
        super()._freeze()
        if self.frozen_stages >= 0 and self.absolute_pos_embed is not None:
            self.absolute_pos_embed.requires_grad_(False)
