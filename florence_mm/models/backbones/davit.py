"""DaViT, the image backbone of Florence-2 (arXiv 2204.03645, 2311.06242).

Blocks attend in turn within windows of tokens and between channels, where all tokens take part, so that a window needs
no shift. A depthwise convolution before each attention and each MLP tells positions; there is no table of positions.
Names of stages are CoSwin's.

Shapes: ``B`` batch, ``H, W`` sizes of a map, ``L = H W`` tokens, ``C`` channels.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from florence_mm.models.layers.dual_block import DualBlock, NormConvEmbed
from florence_mm.ops.windows import fix_sizes
from florence_mm.registry import MODELS
from florence_mm.utils.numbers import is_whole

from .arch import DAVIT_ARCHITECTURES, drop_path_rates, resolve_arch
from .stages import MIN_SIDE, ConvEmbed, Pyramid, Stage

CHANNEL_SCALES = ('tokens', 'channels')
OUT_NORMS = ('map', 'pooled')
_OPTIONAL = ('num_groups', 'patch_size', 'window_size', 'mlp_ratio')


@MODELS.register_module()
class FlorenceDaViT(Pyramid):
    """Dual attention vision transformer; returns a pyramid of feature maps.

    The defaults are those of Florence-2's image tower, whose map is not normalised. DaViT's classifiers of ImageNet
    need ``window_size=7, merge_kernel=2, channel_scale='channels', out_norm='pooled'``.

    Args:
        arch: a preset (``micro``, ``tiny``, ``small``, ``base``, ``large``) or a dict with ``depths`` and ``num_heads``
            and ``embed_dims``, each a list of one number a stage, and optionally ``num_groups`` (default: as many as
            heads), ``patch_size``, ``window_size`` and ``mlp_ratio``.
        in_channels: channels of the input.
        patch_size: stride of the stem in pixels; default: that of the arch, or 4. The convolution's kernel has
            ``2 * patch_size - 1`` pixels.
        window_size: side of a window in tokens; default: that of the arch, or 12.
        merge_kernel: side of the convolutions between stages: 3, or 2 for patches that do not overlap.
        channel_scale: scores between channels are divided by the square root of the number of ``'tokens'`` or of
            ``'channels'`` in a group.
        drop_rate: dropout after the stem.
        drop_path_rate: stochastic depth of the last block, rising linearly from 0 at the first.
        out_indices: stages whose maps are returned; ``None``: only the last.
        out_norm: ``'map'``: LayerNorm of each returned map, named as in :class:`CoSwin`, for detectors; ``'pooled'``:
            the mean of the last map is returned, normalised; ``None``: maps as they are.
        with_cp: recompute blocks in the backward pass instead of keeping their activations.
        frozen_stages: the stem and stages up to this one are frozen; -1: none.
        init_cfg: see mmengine, e.g. ``dict(type='florence_mm.Pretrained', checkpoint=...)``.

    Raises:
        ValueError: ``arch`` is unknown, incomplete or does not divide, an option has no such value, or a size is no
            whole number from 1.
    """

    def __init__(
        self,
        arch: str | dict = 'base',
        in_channels: int = 3,
        patch_size: int | None = None,
        window_size: int | None = None,
        merge_kernel: int = 3,
        channel_scale: str = 'tokens',
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        out_indices: Sequence[int] | None = None,
        out_norm: str | None = None,
        with_cp: bool = False,
        frozen_stages: int = -1,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        arch = _check(resolve_arch(arch, DAVIT_ARCHITECTURES, _OPTIONAL))
        last = len(arch['depths']) - 1
        for name, value, known in (
            ('merge_kernel', merge_kernel, (2, 3)),
            ('channel_scale', channel_scale, CHANNEL_SCALES),
            ('out_norm', out_norm, (None, *OUT_NORMS)),
        ):
            if value not in known:
                raise ValueError(f'{name} is {value!r}; give one of {", ".join(map(repr, known))}')
        if out_norm == 'pooled' and out_indices is not None and tuple(out_indices) != (last,):
            raise ValueError(
                f"out_norm='pooled' gives one vector of the last stage, and out_indices is {tuple(out_indices)}; leave "
                f"out_indices out, or give out_norm='map'"
            )
        patch_size = arch.get('patch_size', 4) if patch_size is None else patch_size
        window_size = arch.get('window_size', 12) if window_size is None else window_size
        for name, value in (('patch_size', patch_size), ('window_size', window_size), ('in_channels', in_channels)):
            if not is_whole(value) or value < 1:
                raise ValueError(f'{name} is {value!r}; give a whole number from 1')
        widths = arch['embed_dims']
        rates = iter(drop_path_rates(drop_path_rate, [2] * sum(arch['depths'])))
        stages = []
        for i, (width, depth) in enumerate(zip(widths, arch['depths'], strict=True)):
            blocks = [
                DualBlock(
                    width,
                    arch['num_heads'][i],
                    arch['num_groups'][i],
                    window_size,
                    arch.get('mlp_ratio', 4.0),
                    next(rates),
                    channel_scale,
                )
                for _ in range(depth)
            ]
            stages.append(Stage(blocks, None if i == last else NormConvEmbed(width, widths[i + 1], merge_kernel)))
        stem = ConvEmbed(
            in_channels, widths[0], (2 * patch_size - 1,) * 2, (patch_size,) * 2, padding=(patch_size - 1,) * 2
        )
        norms = out_norm is not None
        super().__init__(
            stem, stages, widths, patch_size, drop_rate, out_indices, with_cp, frozen_stages, init_cfg, norms
        )
        self.embed_dims, self.num_heads, self.num_groups = (arch[k] for k in ('embed_dims', 'num_heads', 'num_groups'))
        self.window_size = window_size
        self.in_channels, self.out_norm, self.channel_scale = in_channels, out_norm, channel_scale
        self._freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the feature maps of the stages in ``out_indices``.

        Args:
            x: ``(B, in_channels, H, W)``, H and W at least 32.

        Returns:
            a map ``(B, C_i, H_i, W_i)`` for each stage in ``out_indices``, in the order of the stages; with
            ``out_norm='pooled'`` one feature ``(B, C)``.

        Raises:
            ValueError: the input has another number of axes or channels, or is smaller.
        """
        if x.ndim != 4 or x.shape[1] != self.in_channels or min(x.shape[2:]) < MIN_SIDE:
            raise ValueError(
                f'DaViT got an input of shape {tuple(x.shape)}; it takes (B, {self.in_channels}, H, W) '
                f'with H and W at least {MIN_SIDE}'
            )
        fix_sizes(x.shape[2:])
        x, size = self.patch_embed(x)  # (B, L, C)
        x = self.pos_drop(x)
        if self.out_norm != 'pooled':
            return tuple(self.run_stages(x, size))
        (last,) = self.run_stages(x, size, normalised=False)
        return (self.norm(last.mean((2, 3))),)


def _check(arch: dict[str, Any]) -> dict[str, Any]:
    """Return sizes with ``num_groups``, if each stage has its own width and heads and groups divide it."""
    arch = {'num_groups': arch['num_heads'], **arch}
    if isinstance(arch['embed_dims'], int):
        raise ValueError(
            f'embed_dims of DaViT is {arch["embed_dims"]}; give a list of the channels of each of the '
            f'{len(arch["depths"])} stages'
        )
    for width, heads, groups in zip(arch['embed_dims'], arch['num_heads'], arch['num_groups'], strict=True):
        if min(width, heads, groups) < 1 or width % heads or width % groups:
            raise ValueError(
                f'{width} channels do not divide into {heads} heads and {groups} groups; change embed_dims, num_heads '
                f'or num_groups of arch'
            )
    return arch
