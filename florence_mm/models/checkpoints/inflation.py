"""Weights of an image model for the video model of the same sizes: what a still clip leaves as it was.

The rule of Video Swin (arXiv 2106.13230, ``inflate_weights`` of the public code), which Florence uses too (arXiv
2111.11432, section 2.6): a kernel is repeated over time and divided by its extent in time, so that equal frames sum up
to what one frame gave; a relative position table is repeated along time, so that equal frames get equal weights.
Everything else has no axis of time and is inherited.
"""

import math

from torch import Tensor, nn

from florence_mm.ops.position import resize_relative_position_table

from .renaming import StateDict


def inflate_kernel(kernel: Tensor, steps: int) -> Tensor:
    """``(O, I, h, w)`` to ``(O, I, steps, h, w)``, each step the kernel over ``steps``."""
    return kernel.unsqueeze(2).repeat(1, 1, steps, 1, 1) / steps


def inflate_table(table: Tensor, window: tuple[int, int, int]) -> Tensor:
    """A relative position table of an image window for a window of (steps, height, width).

    Args:
        table: ``((2 h - 1)(2 w - 1), heads)``; of another height and width it is resized first (bicubic), and must then
            be of a square window.
        window: the 3-D window.

    Returns:
        ``((2 t - 1)(2 h - 1)(2 w - 1), heads)``.
    """
    steps, *space = window
    if len(table) != math.prod(2 * n - 1 for n in space):
        table = resize_relative_position_table(table, tuple(space))
    return table.repeat(2 * steps - 1, 1)


def inflate(model: nn.Module, state: StateDict) -> tuple[StateDict, dict[str, str]]:
    """Inflate what the model has with an axis of time and the checkpoint without.

    A checkpoint is one of an image model if a kernel that the model has with five axes has four in it; any other one is
    returned as it is.

    Args:
        model: where the tensors shall go.
        state: tensors under the model's names.

    Returns:
        the tensors, and what was done to each one inflated. One that cannot be inflated stays as it is.
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
