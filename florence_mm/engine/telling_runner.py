"""A runner that tells in one sentence which part of a config could not be built."""

from typing import Any

from mmengine.evaluator import Evaluator
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop, Runner
from mmengine.visualization import Visualizer
from torch import nn

from .building import building, tell_failing_steps
from .schedules import without_short


class TellingRunner(Runner):
    """mmengine's ``Runner`` whose builders name the config's key and the class that refuses its settings.

    Steps of pipelines that fail are named too (:class:`~florence_mm.engine.building.TellingPipeline`), and schedules
    shorter than one iteration are left out (:func:`~florence_mm.engine.schedules.without_short`).
    """

    @building('model')
    def build_model(self, model: nn.Module | dict) -> nn.Module:
        """Build the model."""
        return super().build_model(model)

    @building('optim_wrapper')
    def build_optim_wrapper(self, optim_wrapper: OptimWrapper | dict) -> OptimWrapper:
        """Build the optimizer and its wrapper."""
        return super().build_optim_wrapper(optim_wrapper)

    @building('param_scheduler')
    def build_param_scheduler(self, scheduler: Any) -> Any:
        """Build the schedules; those shorter than an iteration are left out."""
        return super().build_param_scheduler(without_short(scheduler, len(self.train_dataloader), self.logger))

    @building('evaluator')
    def build_evaluator(self, evaluator: Any) -> Evaluator:
        """Build the evaluator of a validation or test."""
        return super().build_evaluator(evaluator)

    @building('visualizer')
    def build_visualizer(self, visualizer: Visualizer | dict | None = None) -> Visualizer:
        """Build the visualizer and its backends."""
        return super().build_visualizer(visualizer)

    @building('custom_hooks or default_hooks')
    def register_hooks(self, default_hooks: dict | None = None, custom_hooks: list | None = None) -> None:
        """Build the hooks and register them."""
        super().register_hooks(default_hooks, custom_hooks)

    @building('val_dataloader or val_cfg')
    def build_val_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build the validation loop and its data loader."""
        return _telling(super().build_val_loop(loop))

    @building('test_dataloader or test_cfg')
    def build_test_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build the test loop and its data loader."""
        return _telling(super().build_test_loop(loop))

    @building('train_dataloader or train_cfg')
    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build the training loop and its data loader."""
        return _telling(super().build_train_loop(loop))


def _telling(loop: BaseLoop) -> BaseLoop:
    """A loop whose data name the step of a pipeline that fails."""
    tell_failing_steps(getattr(loop.dataloader, 'dataset', None))
    return loop
