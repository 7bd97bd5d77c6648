"""Let mmengine keep logged values on an accelerator until one is read.

mmengine turns each value of each iteration into a number, and the norm of the gradients too: five to ten waits for the
device a step, in which it gets no more work.
"""

import functools
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .gap import Gap

#: Most values that wait; more are read, for a run that never logs.
MOST_WAITING = 4096


def is_away(value: Any) -> bool:
    """Whether a value is a tensor whose number would be waited for."""
    return isinstance(value, Tensor) and type(value).__name__ != 'DTensor' and value.device.type != 'cpu'


def read_numbers(values: Sequence[Tensor]) -> list[int | float]:
    """Read tensors of one element each, with one wait for each type and device among them."""
    places: dict[tuple, list[int]] = {}
    for place, value in enumerate(values):
        places.setdefault((value.dtype, value.device), []).append(place)
    numbers: list[int | float] = [0.0] * len(values)
    for own in places.values():
        read = torch.stack([values[place].reshape(()) for place in own]).tolist()
        for place, number in zip(own, read, strict=True):
            numbers[place] = number
    return numbers


def _reads_each() -> bool:
    from mmengine.logging.message_hub import MessageHub

    class Value:
        """A number that notes that it was read."""

        read = False

        def numel(self) -> int:
            return 1

        def item(self) -> float:
            Value.read = True
            return 0.0

    MessageHub('florence_mm_feature_test').update_scalar('value', Value())
    return Value.read


def _keep_values(module: ModuleType) -> None:
    hub = module.MessageHub
    update, lookup, state, load = hub.update_scalar, hub.get_scalar, hub.state_dict, hub.load_state_dict

    def settle(self: Any) -> None:
        waiting = self.__dict__.pop('_waiting', [])
        for (key, _, count, resumed), number in zip(waiting, read_numbers([one[1] for one in waiting]), strict=True):
            update(self, key, number, count, resumed)

    @functools.wraps(update)
    def update_scalar(self: Any, key: str, value: Any, count: int = 1, resumed: bool = True) -> None:
        waiting = self.__dict__.setdefault('_waiting', [])
        if is_away(value) and value.numel() == 1:
            # a copy, as a model may log a tensor that its next step changes
            waiting.append((key, value.detach().clone(), count, resumed))
            if len(waiting) >= MOST_WAITING:
                settle(self)
            return
        if any(key == other[0] for other in waiting):
            settle(self)
        update(self, key, value, count, resumed)

    @functools.wraps(lookup)
    def get_scalar(self: Any, key: str) -> Any:
        # the timer asks for its own numbers in every iteration
        if any(key == other[0] for other in self.__dict__.get('_waiting', ())):
            settle(self)
        return self._log_scalars[key] if key in self._log_scalars else lookup(self, key)

    def log_scalars(self: Any) -> Any:
        settle(self)
        return self._log_scalars

    @functools.wraps(state)
    def state_dict(self: Any) -> dict:
        settle(self)
        return state(self)

    @functools.wraps(load)
    def load_state_dict(self: Any, state_dict: Any) -> None:
        settle(self)
        load(self, state_dict)

    hub.update_scalar, hub.get_scalar, hub.state_dict, hub.load_state_dict = (
        update_scalar,
        get_scalar,
        state_dict,
        load_state_dict,
    )
    hub.log_scalars = property(log_scalars, doc=hub.log_scalars.__doc__)


def _reads_the_norm() -> bool:
    from mmengine.optim.optimizer.optimizer_wrapper import OptimWrapper

    return 'float' in OptimWrapper._clip_grad.__code__.co_names


def _keep_the_norm(module: ModuleType) -> None:
    original = module.OptimWrapper._clip_grad

    @functools.wraps(original)
    def _clip_grad(self: Any) -> None:
        clip = self.clip_func
        norms: list[Any] = []

        def kept(*args: Any, **kwargs: Any) -> Any:
            norms.append(clip(*args, **kwargs))
            return None if is_away(norms[0]) else norms[0]

        self.clip_func = kept
        try:
            original(self)
        finally:
            self.clip_func = clip
        if norms and is_away(norms[0]):
            self.message_hub.update_scalar(f'train/{self.grad_name}', norms[0])

    module.OptimWrapper._clip_grad = _clip_grad


GAPS = [
    Gap(
        name='mmengine logged values',
        package='mmengine',
        why='MessageHub waits for an accelerator at each logged value of each iteration',
        needed=_reads_each,
        patch=_keep_values,
        after='mmengine.logging.message_hub',
    ),
    Gap(
        name='mmengine norm of gradients',
        package='mmengine',
        why='OptimWrapper waits for an accelerator at each norm of the gradients, to log it',
        needed=_reads_the_norm,
        patch=_keep_the_norm,
        after='mmengine.optim.optimizer.optimizer_wrapper',
    ),
]
