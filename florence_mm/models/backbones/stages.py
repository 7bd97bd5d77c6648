"""The part shared by backbones of stages: what comes before, between and after the blocks.

Patch embedding and merging are Swin's, or CoSwin's convolutions instead (Florence, section 2.3; layers as in CvT, arXiv
2103.15808). Keys are those of Swin's ``swin_transformer.py``, and for convolutions of CoSwin's ``coswin.py``
(MedImageInsight).

Shapes: ``B`` batch, ``C`` channels, ``S`` sizes of a map (``H, W`` or ``T, H, W``), ``L`` tokens, the product of ``S``.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from florence_mm.models.checkpoints.fitting import fit_on_load
from florence_mm.models.layers.initialisation import trunc_normal_
from florence_mm.ops.inference import convolve
from florence_mm.ops.recomputed import norm_linear, recomputing_allowed
from florence_mm.ops.windows import to_map, to_tokens

#: Fewest pixels of a side of an input.
MIN_SIDE = 32

_CONV = {2: nn.Conv2d, 3: nn.Conv3d}
# channels last: the norm can read the convolution's output as tokens without a copy
_CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


class PatchEmbed(nn.Module):
    """Patch embedding of Swin and Video Swin: a convolution of non-overlapping patches, then LayerNorm.

    Every axis is padded with zeros at its end to a multiple of the patch. Keys: ``proj``, ``norm``.

    Args:
        in_channels: channels of the input.
        embed_dims: channels of a token.
        patch_size: size of a patch along each axis, in frames and pixels.
    """

    def __init__(self, in_channels: int, embed_dims: int, patch_size: tuple[int, ...]) -> None:
        super().__init__()
        self.patch_size = tuple(patch_size)
        self.proj = _CONV[len(patch_size)](in_channels, embed_dims, self.patch_size, self.patch_size)
        self.norm = nn.LayerNorm(embed_dims)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Embed ``(B, 3, *S)``; returns tokens ``(B, L, C)`` and the size of their map."""
        missing = [-s % p for s, p in zip(x.shape[2:], self.patch_size, strict=True)]
        if any(missing):
            x = F.pad(x, [n for m in reversed(missing) for n in (0, m)])
        x = self.proj(x.contiguous(memory_format=_CHANNELS_LAST[len(missing)]))  # (B, C, *(S / patch))
        return self.norm(to_tokens(x)), tuple(x.shape[2:])

    def out_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Size of the map for an input of ``size``."""
        return tuple(-(-s // p) for s, p in zip(size, self.patch_size, strict=True))


class PatchMerging(nn.Module):
    """Patch merging of Swin: four neighbours become one token by LayerNorm over ``4 C`` and a linear layer to ``2 C``.

    Time steps are not merged (Video Swin). Neighbours are in the order of the public code: upper left, lower left,
    upper right, lower right. Odd sizes are padded with zeros at their end. Keys: ``norm``, ``reduction``.

    Args:
        in_channels: ``C``.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * in_channels)
        self.reduction = nn.Linear(4 * in_channels, 2 * in_channels, bias=False)

    def forward(self, x: Tensor, size: tuple[int, ...]) -> tuple[Tensor, tuple[int, ...]]:
        """Merge tokens ``(B, L, C)`` of a map of ``size``; returns ``(B, L / 4, 2 C)`` and the new size."""
        height, width = size[-2:]
        x = x.unflatten(1, size)  # (B, *S, C)
        if height % 2 or width % 2:
            x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        x = x.unflatten(-2, (-1, 2)).unflatten(-4, (-1, 2))  # (B, [T,] H / 2, row, W / 2, column, C)
        x = x.movedim(-4, -2).flatten(-3)  # (B, [T,] H / 2, W / 2, 4 C)
        tokens, size = x.flatten(1, -2), tuple(x.shape[1:-1])
        if self.training and recomputing_allowed(x, self, self.norm, self.reduction):
            return norm_linear(tokens, self.norm, self.reduction.weight, None), size
        return self.reduction(self.norm(tokens)), size


class ConvEmbed(nn.Module):
    """Convolutional embedding of CoSwin: a convolution of overlapping patches, then LayerNorm; keys ``proj``, ``norm``.

    In space, zero padding follows from kernel and stride: 2 for CoSwin's stem (7, 4), 1 for its merges (3, 2). In time,
    the first and last frame are repeated, so that a clip of equal frames gives equal time steps; ``T`` frames become
    ``ceil(T / stride)`` time steps.

    Args:
        in_channels: channels of the input.
        embed_dims: channels of the output.
        kernel_size: size of the kernel along each axis.
        stride: stride along each axis.
        padding: zeros on both sides of each axis in space; default: what follows from kernel and stride.
    """

    def __init__(
        self,
        in_channels: int,
        embed_dims: int,
        kernel_size: tuple[int, ...],
        stride: tuple[int, ...],
        padding: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        if padding is None:
            padding = [(k - s + 1) // 2 for k, s in zip(kernel_size, stride, strict=True)]
        padding = list(padding)
        padding[:-2] = [0] * (len(padding) - 2)  # time is padded by _pad_time
        self.proj = _CONV[len(padding)](in_channels, embed_dims, tuple(kernel_size), tuple(stride), tuple(padding))
        self.norm = nn.LayerNorm(embed_dims)

    def forward(self, x: Tensor, size: tuple[int, ...] | None = None) -> tuple[Tensor, tuple[int, ...]]:
        """Embed an input ``(B, 3, *S)``, or tokens ``(B, L, C)`` of a map of ``size``; returns tokens and map size."""
        if size is not None:
            x = to_map(x, size)
        if x.ndim == 5:
            x = self._pad_time(x)
        x = convolve(self.proj, x)  # (B, C, *(S / stride))
        return self.norm(to_tokens(x)), tuple(x.shape[2:])

    def _pad_time(self, x: Tensor) -> Tensor:
        """Repeat the first and last frame of ``(B, C, T, H, W)`` as far as the kernel reaches."""
        length, kernel, stride = x.shape[2], self.proj.kernel_size[0], self.proj.stride[0]
        before = max(kernel - stride + 1, 0) // 2
        after = (-(-length // stride) - 1) * stride + kernel - length - before
        if before <= 0 and after <= 0:
            return x
        index = torch.arange(-before, length + max(after, 0), device=x.device).clamp(0, length - 1)
        return x.index_select(2, index)

    def out_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Size of the map for an input of ``size``."""
        axes = zip(
            size[-2:], *(v[-2:] for v in (self.proj.kernel_size, self.proj.stride, self.proj.padding)), strict=True
        )
        space = tuple((s + 2 * padding - kernel) // stride + 1 for s, kernel, stride, padding in axes)
        return tuple(-(-s // self.proj.stride[0]) for s in size[:-2]) + space


class Stage(nn.Module):
    """One stage: its blocks, then downsampling.

    Args:
        blocks: the blocks, from tokens ``(B, L, C)`` and the size of their map to tokens of the same shape.
        downsample: from tokens and size to tokens and size of the next stage; ``None`` in the last stage.
    """

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample


class Pyramid(BaseModule):
    """Base class of CoSwin, Video CoSwin and DaViT: patch embedding, stages and output norms.

    Args:
        stem: the patch embedding.
        stages: the stages.
        widths: channels of each stage.
        reduction: stride of the patch embedding in pixels.
        drop_rate: dropout after the stem.
        out_indices: stages whose maps are returned; ``None``: only the last.
        with_cp: recompute blocks in the backward pass instead of keeping their activations.
        frozen_stages: the stem and stages up to this one are frozen; -1: none.
        init_cfg: see mmengine.
        out_norm: whether returned maps are normalised, each by a LayerNorm of its own.

    Raises:
        ValueError: ``out_indices`` or ``frozen_stages`` names a stage that does not exist.
    """

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[Stage],
        widths: Sequence[int],
        reduction: int,
        drop_rate: float,
        out_indices: Sequence[int] | None,
        with_cp: bool,
        frozen_stages: int,
        init_cfg: dict | list[dict] | None,
        out_norm: bool = True,
    ) -> None:
        super().__init__(init_cfg)
        self.depths = [len(stage.blocks) for stage in stages]
        self.num_layers = len(stages)
        self.out_indices = (self.num_layers - 1,) if out_indices is None else tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.with_cp = with_cp
        wrong = [i for i in (*self.out_indices, max(frozen_stages, 0)) if not 0 <= i < self.num_layers]
        if wrong:
            raise ValueError(
                f'stage {wrong[0]} in out_indices or frozen_stages, but stages are 0 to {self.num_layers - 1}'
            )
        self.patch_embed = stem
        self.pos_drop = nn.Dropout(drop_rate)
        self.layers = nn.ModuleList(stages)
        for i in self.out_indices if out_norm else ():
            self.add_module(self._norm_name(i), nn.LayerNorm(widths[i]))
        self.num_features = widths[-1]
        self.feature_info = [
            {'num_chs': width, 'reduction': reduction * 2**i, 'module': f'layers.{i}'} for i, width in enumerate(widths)
        ]
        self._init_parameters()
        self.register_load_state_dict_pre_hook(fit_on_load)

    def run_stages(self, x: Tensor, size: tuple[int, ...], normalised: bool = True) -> list[Tensor]:
        """Run the stages on the stem's tokens ``(B, L, C)``, a map of ``size``; return the maps ``(B, C_i, *S_i)``.

        Without ``normalised`` they are those of the blocks, before the output norms.
        """
        outs = []
        for i, stage in enumerate(self.layers):
            for block in stage.blocks:
                if self.with_cp and torch.is_grad_enabled():
                    x = checkpoint(block, x, size, use_reentrant=False)
                else:
                    x = block(x, size)
            if i in self.out_indices:
                norm = getattr(self, self._norm_name(i), None) if normalised else None
                out = x if norm is None else norm(x)
                outs.append(to_map(out, size).contiguous())  # (B, C, *S)
            if i == max(self.out_indices):
                break
            if stage.downsample is not None:
                x, size = stage.downsample(x, size)
        return outs

    def train(self, mode: bool = True) -> 'Pyramid':
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
        norms = (getattr(self, self._norm_name(i), None) for i in self.out_indices if i <= self.frozen_stages)
        frozen += [norm for norm in norms if norm is not None]
        for module in frozen:
            module.eval()
            module.requires_grad_(False)
