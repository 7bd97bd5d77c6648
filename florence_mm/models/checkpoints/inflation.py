"""Inflation of an image model's weights for a video model, so that a clip of equal frames gives the same features.

The rule is that of Video Swin (arXiv 2106.13230, ``inflate_weights`` of the public code), also used by Florence (arXiv
2111.11432, section 2.6): a kernel is repeated over time and divided by its length in time, so that equal frames sum to
the output of one frame; a relative position bias table is repeated over time, so that equal frames get equal weights.
All other tensors are used unchanged.
"""

import math

from torch import Tensor, nn

from florence_mm.ops.position import resize_relative_position_table

from .renaming import StateDict


def inflate_kernel(kernel: Tensor, steps: int) -> Tensor:
    """Repeat a kernel ``(O, I, h, w)`` over time and divide by ``steps``, to ``(O, I, steps, h, w)``."""
    return kernel.unsqueeze(2).repeat(1, 1, steps, 1, 1) / steps


def inflate_table(table: Tensor, window: tuple[int, int, int]) -> Tensor:
    """Inflate the relative position bias table of a 2-D window for a window of (time steps, height, width).

    Args:
        table: ``((2 h - 1)(2 w - 1), heads)``. If its height and width differ from those of ``window`` it is resized
            (bicubic) first, and must be that of a square window.
        window: the 3-D window.

    Returns:
        ``((2 t - 1)(2 h - 1)(2 w - 1), heads)``.
    """
    steps, *space = window
    if len(table) != math.prod(2 * n - 1 for n in space):
        table = resize_relative_position_table(table, tuple(space))
    return table.repeat(2 * steps - 1, 1)


def inflate(model: nn.Module, state: StateDict) -> tuple[StateDict, dict[str, str]]:
    """Inflate the tensors of an image model to those of a video model.

    The tensors are those of an image model if one has four axes where the model has five (a kernel); others are
    returned unchanged.

    Args:
        model: the video model.
        state: tensors under the model's names.

    Returns:
        the tensors, and for each inflated key both shapes. Tensors that cannot be inflated are unchanged.
    """
    own = {key: value for key, value in model.state_dict().items() if key in state}
    kernels = [key for key, value in own.items() if value.ndim == 5 and state[key].ndim == 4]
    if not kernels:
        return state, {}
    state, done = dict(state), {}

    def put(key: str, value: Tensor) -> None:
        done[key] = f'{tuple(state[key].shape)} to {tuple(value.shape)}'
        state[key] = value

    for key in kernels:
        outputs, inputs, steps, *space = own[key].shape
        if state[key].shape == (outputs, inputs, *space):
            put(key, inflate_kernel(state[key], steps))
    for key, value in own.items():
        if not key.endswith('relative_position_bias_table'):
            continue
        window = model.get_submodule(key.rpartition('.')[0]).window_size
        rows, heads = state[key].shape
        square = math.isqrt(rows) ** 2 == rows and rows % 2
        fits = square or rows == math.prod(2 * n - 1 for n in window[1:])
        if len(window) == 3 and heads == value.shape[1] and fits:
            put(key, inflate_table(state[key], window))
    return state, done
