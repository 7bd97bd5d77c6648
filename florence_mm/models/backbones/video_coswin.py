"""Video CoSwin, the backbone for clips (Florence, arXiv 2111.11432, section 2.6): CoSwin with an axis of time.

Blocks, attention and embeddings are those of CoSwin; with ``conv_embed=False`` it is Video Swin (arXiv 2106.13230)
with the keys of its public code.

Shapes: ``B`` clips, ``C`` channels, ``T`` frames of the input or time steps of a map ``T, H, W``, ``L = T H W``
tokens.
"""

from collections.abc import Sequence

from torch import Tensor

from florence_mm.ops.windows import fix_sizes
from florence_mm.registry import MODELS

from .arch import resolve_arch
from .coswin import WindowPyramid
from .stages import MIN_SIDE, ConvEmbed, PatchEmbed, PatchMerging

_LONGEST_WINDOW = 8  # time steps, as in Video Swin


def stage_windows(window_size: Sequence, num_stages: int) -> list[tuple[int, int, int]]:
    """Check window sizes and expand one ``(t, h, w)`` for all stages to a list with one per stage.

    Raises:
        ValueError: neither three positive integers nor ``num_stages`` times three.
    """
    windows = [window_size] * num_stages if all(isinstance(w, int) for w in window_size) else list(window_size)
    fits = all(
        isinstance(w, Sequence) and len(w) == 3 and all(isinstance(n, int) and n > 0 for n in w) for w in windows
    )
    if len(windows) != num_stages or not fits:
        raise ValueError(
            f'window_size {window_size} must be (steps, height, width) in tokens, or {num_stages} of these, one a stage'
        )
    return [tuple(window) for window in windows]


def default_windows(side: int, num_stages: int, conv_embed: bool) -> list[tuple[int, int, int]]:
    """Default windows: ``side`` of the image model and 2, 4, 8, 8 time steps (CoSwin) or always 8 (Video Swin)."""
    longest = [min(2 ** (i + 1), _LONGEST_WINDOW) if conv_embed else _LONGEST_WINDOW for i in range(num_stages)]
    return [(steps, side, side) for steps in longest]


@MODELS.register_module()
class VideoCoSwin(WindowPyramid):
    """CoSwin with 3-D convolutional embeddings and 3-D shifted windows, a backbone for mmaction2's ``Recognizer3D``.

    A checkpoint of CoSwin or Swin in ``init_cfg`` is inflated: kernels are repeated over time and divided by their
    length in time, bias tables are repeated over time. A clip of equal frames then gives the features of the image
    model, provided that windows have the height and width of the image model's and time is not padded.

    **Windows.** Memory of attention grows with the number of windows times the square of their tokens. So early stages,
    which have the most windows, need small ones, and late stages can have longer ones ("dynamic window size", section
    2.6; the paper gives no numbers). By default windows grow only in time, which keeps inflation exact. An axis of the
    map that is not longer than the window is one window without shift; one that is not a multiple of it is padded.

    **Temporal kernels of the merges.** The paper merges patches by 3-D convolutions and does not give their kernels. A
    kernel of 3 time steps in all three merges would add 50M parameters to CoSwin-H, one of 2 steps 25M, while the
    paper's 647M leave room only for the longer bias tables (inferred). So the default is 1; a longer kernel combines
    neighbouring time steps.

    Args:
        arch: a preset of CoSwin or a dict of sizes, see :func:`~florence_mm.models.backbones.arch.resolve_arch`.
        in_channels: channels of a frame.
        patch_size: stride of the stem, (frames, height, width); default: 2 frames and CoSwin's stride for the arch.
        stem_temporal_kernel: length in frames of the stem's kernel; default ``2 * patch_size[0] - 1``, the same rule as
            for its height and width. Only with ``conv_embed``.
        merge_temporal_kernel: length in time steps of the kernels of the merges, one number or one per merge. The
            stride in time is always 1. More than 1 only with ``conv_embed``.
        window_size: tokens of a window, (time steps, height, width), or one such triple per stage; default: CoSwin's
            side for the arch, and 2, 4, 8 and 8 time steps, without ``conv_embed`` always 8 (Video Swin).
        conv_embed: use convolutional embeddings (CoSwin); ``False``: patch embedding and merging (Video Swin).
        drop_rate: dropout after the stem.
        attn_drop_rate: dropout of attention weights.
        drop_path_rate: stochastic depth of the last block, rising linearly from 0 at the first.
        out_indices: stages whose maps are returned; ``None``: only the last. Norms are named as in CoSwin.
        with_cp: recompute blocks in the backward pass instead of keeping their activations.
        frozen_stages: the stem and stages up to this one are frozen; -1: none.
        layer_scale_init_value: initial value of CoSwin's optional layer scale; ``None``: no layer scale.
        bias_by_slot: how a window that was shrunk in height or width reads its bias table: by positions in the full
            window, as the public code of Video Swin, or by offsets between its tokens, as CoSwin; default: not
            ``conv_embed``.
        init_cfg: see mmengine, e.g. ``dict(type='florence_mm.Pretrained', checkpoint=..., prefix='image_encoder.')``.

    Raises:
        ValueError: ``arch`` is unknown or incomplete, a stage does not exist, a window or kernel is unusable, or an
            option needs ``conv_embed``.
    """

    def __init__(
        self,
        arch: str | dict = 'tiny',
        in_channels: int = 3,
        patch_size: tuple[int, int, int] | None = None,
        stem_temporal_kernel: int | None = None,
        merge_temporal_kernel: int | Sequence[int] = 1,
        window_size: Sequence | None = None,
        conv_embed: bool = True,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        out_indices: Sequence[int] | None = None,
        with_cp: bool = False,
        frozen_stages: int = -1,
        layer_scale_init_value: float | None = None,
        bias_by_slot: bool | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        arch = resolve_arch(arch)
        num_stages = len(arch['depths'])
        side = arch.get('patch_size', 4)
        patch = (2, side, side) if patch_size is None else tuple(patch_size)
        if len(patch) != 3 or patch[1] != patch[2]:
            raise ValueError(f'patch_size {patch_size} must be (frames, height, width) with height equal to width')
        if window_size is None:
            windows = default_windows(arch.get('window_size', 7), num_stages, conv_embed)
        else:
            windows = stage_windows(window_size, num_stages)
        steps = merge_temporal_kernel
        steps = [steps] * (num_stages - 1) if isinstance(steps, int) else list(steps)
        if len(steps) != num_stages - 1 or min(steps, default=1) < 1:
            raise ValueError(
                f'merge_temporal_kernel {merge_temporal_kernel} must be a number from 1, or {num_stages - 1} of them, '
                f'one a merge'
            )
        if not conv_embed and (stem_temporal_kernel is not None or max(steps, default=1) > 1):
            raise ValueError(
                'stem_temporal_kernel and a merge_temporal_kernel above 1 belong to convolutional embeddings; '
                'give conv_embed=True or leave them out'
            )
        if conv_embed:
            kernel = (stem_temporal_kernel or 2 * patch[0] - 1, *(2 * p - 1 for p in patch[1:]))
            stem = ConvEmbed(in_channels, arch['embed_dims'], kernel, patch)
        else:
            stem = PatchEmbed(in_channels, arch['embed_dims'], patch)
        kernels = iter(steps)

        def make_downsample(channels: int, wider: int) -> ConvEmbed | PatchMerging:
            if not conv_embed:
                return PatchMerging(channels)
            return ConvEmbed(channels, wider, (next(kernels), 3, 3), (1, 2, 2))

        super().__init__(
            arch,
            stem,
            make_downsample=make_downsample,
            windows=windows,
            reduction=patch[1],
            drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
            out_indices=out_indices,
            with_cp=with_cp,
            frozen_stages=frozen_stages,
            init_cfg=init_cfg,
            attn_drop_rate=attn_drop_rate,
            layer_scale_init_value=layer_scale_init_value,
            bias_by_slot=not conv_embed if bias_by_slot is None else bias_by_slot,
        )
        self.in_channels = in_channels
        self._freeze()

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Compute the feature maps of the stages in ``out_indices``.

        Args:
            x: ``(B, in_channels, T, H, W)``, any T from 1, H and W at least 32.

        Returns:
            the map ``(B, C_i, T_i, H_i, W_i)`` if ``out_indices`` is one stage, as mmaction2's heads expect, else a
            tuple of maps in the order of the stages.

        Raises:
            ValueError: the input has another number of axes or channels, or is smaller.
        """
        if x.ndim != 5 or x.shape[1] != self.in_channels or min(x.shape[3:]) < MIN_SIDE or not x.shape[2]:
            raise ValueError(
                f'VideoCoSwin got an input of shape {tuple(x.shape)}; it takes (B, {self.in_channels}, T, H, W) '
                f'with T at least 1, H and W at least {MIN_SIDE}'
            )
        fix_sizes(x.shape[2:])
        x, size = self.patch_embed(x)  # (B, L, C)
        maps = self.run_stages(self.pos_drop(x), size)
        return maps[0] if len(maps) == 1 else tuple(maps)
