"""CoSwin for clips (Florence, arXiv 2111.11432, section 2.6): the image model with one axis more.

Blocks, attention and embeddings are those of :mod:`.coswin`; with ``conv_embed=False`` it is Video Swin
(arXiv 2106.13230) with the keys of its public code.

Shapes: ``B`` clips, ``C`` channels, ``T`` frames, then steps in time of a map ``T, H, W``, ``L = T H W`` tokens.
"""

from collections.abc import Sequence

from torch import Tensor

from florence_mm.models.layers.swin import ConvEmbed, PatchEmbed, PatchMerging
from florence_mm.registry import MODELS

from .arch import resolve_arch
from .coswin import MIN_SIDE, WindowPyramid

_LONGEST_WINDOW = 8  # steps in time, Video Swin's


def stage_windows(window_size: Sequence, num_stages: int) -> list[tuple[int, int, int]]:
    """One window ``(t, h, w)`` a stage, of one for all or of a list of them.

    Raises:
        ValueError: neither three whole numbers from 1 nor ``num_stages`` times three.
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
    """Windows of 2, 4, 8, 8 steps and the image model's ``side`` for CoSwin, of 8 steps throughout for Video Swin."""
    longest = [min(2 ** (i + 1), _LONGEST_WINDOW) if conv_embed else _LONGEST_WINDOW for i in range(num_stages)]
    return [(steps, side, side) for steps in longest]


@MODELS.register_module()
class VideoCoSwin(WindowPyramid):
    """CoSwin with 3-D convolutional embeddings and 3-D shifted windows, a backbone of mmaction2's ``Recognizer3D``.

    A checkpoint of the image model, or of Swin, named in ``init_cfg`` is inflated: kernels are repeated over time and
    divided by their extent, bias tables repeated along time. A clip that stands still then gives the image model's
    features, as long as windows have the image model's height and width and no axis of time is padded.

    **Windows.** Their memory grows with the square of their tokens times the number of windows, so early stages, which
    have most windows, want small ones, and late stages can afford long ones ("dynamic window size", section 2.6; the
    paper gives no numbers). The default lets them grow in time alone, which keeps inheritance exact. An axis of the map
    that is not longer than its window becomes one window without shift; one that is not a multiple is padded.

    **Time in the merges.** The paper merges patches by 3-D convolutions and leaves their kernels open. A kernel of 3
    steps in all three merges would add 50M parameters to CoSwin-H, one of 2 steps 25M, while the paper's 647M leave
    room for the longer bias tables alone (inferred). So the default is 1; a longer kernel sees motion between steps.

    Args:
        arch: a preset of CoSwin or a dict of sizes, see :func:`~florence_mm.models.backbones.arch.resolve_arch`.
        in_channels: channels of a frame.
        patch_size: stride of the stem, (frames, height, width); default 2 frames and CoSwin's pixels for the arch.
        stem_temporal_kernel: frames under the stem's kernel; default ``2 * patch_size[0] - 1``, the rule of its height
            and width. Only with ``conv_embed``.
        merge_temporal_kernel: steps under the kernel of the merges, one number or one a merge. Time is never merged:
            their stride in time is 1. More than 1 only with ``conv_embed``.
        window_size: tokens of a window, (steps, height, width), or one such triple a stage; default 2, 4, 8 and 8 steps
            for the stages and CoSwin's side for the arch, without ``conv_embed`` 8 steps for all (Video Swin).
        conv_embed: convolutional embeddings (CoSwin); ``False``: patch embedding and merging (Video Swin).
        drop_rate: dropout after the stem.
        attn_drop_rate: dropout of attention weights.
        drop_path_rate: stochastic depth of the last block, rising linearly from 0 at the first.
        out_indices: stages whose maps are returned; ``None``: the last alone. Norms as in CoSwin.
        with_cp: recompute blocks in the backward pass instead of keeping their activations.
        frozen_stages: last stage that does not learn, the stem and all before it included; -1: all learn.
        layer_scale_init_value: start of CoSwin's optional layer scale; ``None``: no layer scale.
        bias_by_slot: how a window that shrank in height or width reads its bias table: by the slots of the whole window
            as Video Swin's public code, or by the offsets of its tokens as CoSwin; default: as the model it is.
        init_cfg: mmengine's, e.g. ``dict(type='florence_mm.Pretrained', checkpoint=..., prefix='image_encoder.')``.

    Raises:
        ValueError: an arch, stage, window or kernel that does not exist, or an option that ``conv_embed=False`` lacks.
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

        def merge(channels: int, wider: int) -> ConvEmbed | PatchMerging:
            if not conv_embed:
                return PatchMerging(channels)
            return ConvEmbed(channels, wider, (next(kernels), 3, 3), (1, 2, 2))

        super().__init__(
            arch,
            stem,
            merge=merge,
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
        """Feature maps of the stages in ``out_indices``.

        Args:
            x: ``(B, in_channels, T, H, W)``, any number of frames, at least 32 pixels a side.

        Returns:
            ``(B, C_i, T_i, H_i, W_i)`` of the one stage in ``out_indices``, as mmaction2's heads take it, or a tuple of
            them in the order of the stages.

        Raises:
            ValueError: an input of another number of axes or channels, or a smaller one.
        """
        if x.ndim != 5 or x.shape[1] != self.in_channels or min(x.shape[3:]) < MIN_SIDE or not x.shape[2]:
            raise ValueError(
                f'VideoCoSwin got an input of shape {tuple(x.shape)}; it takes (B, {self.in_channels}, T, H, W) '
                f'with T at least 1, H and W at least {MIN_SIDE}'
            )
        x, size = self.patch_embed(x)  # (B, L, C)
        maps = self.run_stages(self.pos_drop(x), size)
        return maps[0] if len(maps) == 1 else tuple(maps)
