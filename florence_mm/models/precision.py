"""The precision of inference, as asked for or by what the processor has.

In bfloat16 encoders compute in it, and what becomes of their outputs in float32.

Weights of encoders are rounded once. A backbone's maps, a text's features and everything after them, such as a
detector's neck and head, stay in float32: a coordinate of a box above 256 pixels has no bit for single pixels in
bfloat16. So do the fusion and the heads of vision-language models.
"""

import logging
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from florence_mm.config.precision import PRECISIONS
from florence_mm.errors import UsageError, shown
from florence_mm.ops.precision import bfloat16_units

#: Attributes that hold encoders in our models and in those of OpenMMLab.
_ENCODERS = ('backbone', 'image_encoder', 'text_encoder')
_NONE = 'nothing here multiplies faster in bf16'


def set_precision(model: nn.Module, precision: str, device: torch.device) -> str:
    """Let a model infer in a precision, and say in one line of the log which, unless it is fp32 as asked.

    Args:
        model: a model with its weights, in evaluation mode.
        precision: ``'fp32'``; ``'bf16'``, see :func:`use_bfloat16`; or ``'auto'``: bf16
            where the processor multiplies faster in it.
        device: the device of the model.

    Returns:
        ``'fp32'`` or ``'bf16'``.

    Raises:
        UsageError: as of :func:`check_precision`.
    """
    chosen = check_precision(precision, device)
    if chosen == 'bf16':
        use_bfloat16(model)
    if precision != 'fp32':
        units = bfloat16_units(device)
        why = f'as there is {units}' if units else f'as {_NONE}'
        print_log(f'precision: {chosen}, {why}', 'current', logging.INFO)
    return chosen


def check_precision(precision: str, device: torch.device) -> str:
    """Choose ``'fp32'`` or ``'bf16'`` for a device.

    Raises:
        UsageError: there is no such precision, the device has no bf16, or int8 is asked for, which exported files have.
    """
    if precision not in PRECISIONS:
        raise UsageError(f'precision is {shown(precision)}; give one of {", ".join(PRECISIONS)}')
    if precision == 'int8':
        raise UsageError(
            "precision 'int8' needs the ranges of activations that your own pictures show; make a file with "
            '"florence-mm export MODEL model.onnx --precision int8 --calibration PICTURES", and run it by '
            'florence_mm.export.load_exported'
        )
    units = bfloat16_units(device)
    if precision == 'bf16' and units is None:
        raise UsageError(
            f"precision 'bf16' would be slower than 'fp32', as {_NONE} (AVX-512 bf16, AMX or a GPU would); give 'fp32' "
            "or 'auto'"
        )
    return 'bf16' if units is not None and precision in ('bf16', 'auto') else 'fp32'


def use_bfloat16(model: nn.Module) -> None:
    """Let the encoders of a model compute in bfloat16; their outputs are float32. For inference alone.

    Args:
        model: a model of any task, in evaluation mode.

    Raises:
        UsageError: it has no part that is known to be an encoder.
    """
    found = dict.fromkeys(_encoders(model))
    if not found:
        raise UsageError(
            f"a {type(model).__name__} has no {', '.join(_ENCODERS)}, which precision 'bf16' is for; leave it 'fp32'"
        )
    for encoder in found:
        encoder.to(torch.bfloat16)
        encoder.register_forward_pre_hook(_lower, with_kwargs=True)
        encoder.register_forward_hook(_raise)


def _encoders(module: nn.Module) -> Iterator[nn.Module]:
    for name, child in module.named_children():
        if name in _ENCODERS:
            yield child
        else:
            yield from _encoders(child)


def _lower(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    return _cast(args, torch.bfloat16), _cast(kwargs, torch.bfloat16)


def _raise(module: nn.Module, args: tuple, output: Any) -> Any:
    return _cast(output, torch.float32)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Convert floating-point tensors in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, dict):
        return {key: _cast(one, dtype) for key, one in value.items()}
    return type(value)(_cast(one, dtype) for one in value) if type(value) in (tuple, list) else value
