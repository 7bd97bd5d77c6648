"""The part shared by backbones of stages: what comes before, between and after the blocks.

Shapes: ``B`` batch, ``C`` channels, ``S`` sizes of a map (``H, W`` or ``T, H, W``), ``L`` tokens, the product of ``S``.
"""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from florence_mm.models.checkpoints.fitting import fit_on_load
from florence_mm.models.layers.initialisation import trunc_normal_
from florence_mm.models.layers.swin import to_map

#: Fewest pixels of a side of an input.
MIN_SIDE = 32


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
