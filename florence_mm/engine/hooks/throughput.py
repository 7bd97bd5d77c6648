"""Samples a second, and the share of the time in which training waits for data."""

from collections import deque
from typing import Any

from mmengine.hooks import Hook, LoggerHook

from florence_mm.registry import HOOKS


@HOOKS.register_module()
class ThroughputHook(Hook):
    """Log ``samples_per_s`` of all processes, and ``waiting``, the share of the time spent on waiting for a batch.

    Both are of the iterations since the last line of the log; checkpoints and validations do not count. ``waiting`` is
    that of the first process: near 0 the data keep up with the model, near 1 they are the bottleneck.
    """

    priority = 'ABOVE_NORMAL'  # before the logger

    def before_train(self, runner: Any) -> None:
        """Take as many iterations together as the logger does."""
        intervals = [hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)]
        self._iterations: deque[tuple[float, float]] = deque(maxlen=intervals[0] if intervals else 10)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Add the iteration's seconds; loops of other packages do not tell them."""
        loader, clock = runner.train_dataloader, getattr(runner.train_loop, 'clock', None)
        if clock is None:
            return
        self._iterations.append((clock.waited, clock.waited + clock.since_batch()))
        waited, total = map(sum, zip(*self._iterations, strict=True))
        size = loader.batch_size or getattr(loader.batch_sampler, 'batch_size', 0)
        samples = size * runner.world_size * len(self._iterations)
        runner.message_hub.update_scalar('train/samples_per_s', samples / total)
        runner.message_hub.update_scalar('train/waiting', waited / total)
