"""Gradient-weighted class activation (Grad-CAM, arXiv 1610.02391) of video models, in space and time.

Shapes: ``V`` views, ``T, H, W`` size of a clip, ``t, h, w`` size of a map, ``C`` channels, ``K`` classes.
"""

from typing import Any

import torch
from torch import Tensor, nn

from florence_mm.errors import UsageError
from florence_mm.models.protocol import StagedBackbone, TwoTowerModel


def class_activation(
    model: nn.Module, inputs: Tensor, sample: Any, label: int | None = None, stage: int | None = None
) -> tuple[Tensor, int]:
    """Compute the activation map of a class for one clip.

    The map is ``relu(sum_c w_c A_c)``, where ``A`` is the feature map of a stage, ``(C, t, h, w)``, and ``w_c`` the
    mean over positions of the gradient of the class's logit. For a model with a linear layer on the averaged last map,
    this is the positive contribution of each position to the logit.

    Args:
        model: a recognizer of mmaction2 with a 3-D backbone, or a ``UniCL`` with a video encoder and classes.
        inputs: one view from the pipeline, ``(1, 3, T, H, W)``.
        sample: its data sample.
        label: index of the class; None: the predicted class of this view.
        stage: index of a stage of :class:`VideoCoSwin`, whose last block's output is used; None: the output of the
            backbone.

    Returns:
        the map ``(t, h, w)``, float on the CPU, not normalised, and the index of the class.

    Raises:
        UsageError: the stage or class does not exist, or the feature maps have no axis of time.
    """
    backbone = model.image_encoder if isinstance(model, TwoTowerModel) else model.backbone
    found: list[tuple[tuple, Tensor]] = []
    handle = _hooked_module(backbone, stage).register_forward_hook(
        lambda _, args, out: found.append((args, out[-1] if isinstance(out, tuple | list) else out))
    )
    data = model.data_preprocessor({'inputs': [inputs], 'data_samples': [sample]}, False)
    try:
        with torch.enable_grad():
            # with gradients of the input, as all parameters may be frozen
            logits = _logits(model, data['inputs'].requires_grad_())[0]  # (K,)
            label = int(logits.argmax()) if label is None else label
            if not 0 <= label < len(logits):
                raise UsageError(f'class {label} is outside the {len(logits)} classes of the model')
            args, out = found[0]
            (gradient,) = torch.autograd.grad(logits[label], out)
    finally:
        handle.remove()
    activation, gradient = _as_map(args, out.detach()), _as_map(args, gradient)
    if activation.ndim != 5:
        raise UsageError(f'the maps of {type(backbone).__name__} have no axis of time; use a video model')
    weights = gradient.mean((2, 3, 4), keepdim=True)  # (1, C, 1, 1, 1)
    return (weights * activation).sum(1).relu()[0].float().cpu(), label


def _hooked_module(backbone: nn.Module, stage: int | None) -> nn.Module:
    if stage is None:
        return backbone
    blocks = backbone.last_blocks() if isinstance(backbone, StagedBackbone) else []
    if not 0 <= stage < len(blocks):
        raise UsageError(
            f'{type(backbone).__name__} has no stage {stage}; '
            + (f'stages are 0 to {len(blocks) - 1}' if blocks else 'leave `stage` out')
        )
    return blocks[stage]


def _as_map(args: tuple, out: Tensor) -> Tensor:
    """Reshape tokens of a block ``(1, t h w, C)`` to ``(1, C, t, h, w)``, whose size is in ``args``; keep maps."""
    return out.transpose(1, 2).unflatten(2, args[1]) if out.ndim == 3 and len(args) > 1 else out


def _logits(model: nn.Module, inputs: Tensor) -> Tensor:
    """Compute logits ``(1, K)``."""
    if isinstance(model, TwoTowerModel):
        return model.class_logits(model.extract_image_feat(inputs))
    return model(inputs, mode='tensor', stage='head')
