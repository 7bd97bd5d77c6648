"""The runner of florence_mm: mmengine's, whose runs can be stopped at any moment and resumed exactly."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.evaluator import Evaluator
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from mmengine.visualization import Visualizer
from torch import nn
from torch.distributed.optim import ZeroRedundancyOptimizer

from florence_mm.config.check import check_run
from florence_mm.errors import UsageError
from florence_mm.models.protocol import unwrap_model
from florence_mm.registry import RUNNERS

from .building import building, tell_failing_steps
from .checkpointing import find_latest, read_run_checkpoint
from .hooks import AtomicCheckpointHook, ClassNamesHook, InvalidLossHook, RunSummaryHook
from .host_memory import keep_freed_memory
from .loops import EpochTrainLoop, IterTrainLoop
from .parallelize import (
    check_options,
    gather_model_state,
    gather_optimizer_state,
    is_sharded,
    keep_whole,
    parallelize,
    split_model_state,
    split_optimizer_state,
    unsharded_layout,
)
from .schedules import without_short
from .seeding import INIT, base_seed, combine_seeds

_EXACT_LOOPS = {
    name: loop
    for parent, loop in ((IterBasedTrainLoop, IterTrainLoop), (EpochBasedTrainLoop, EpochTrainLoop))
    for name in (parent, parent.__name__, f'mmengine.{parent.__name__}')
}
_CHECKPOINT_HOOKS = (CheckpointHook, 'CheckpointHook', 'mmengine.CheckpointHook')


@RUNNERS.register_module()
class FlorenceRunner(Runner):
    """mmengine's ``Runner`` with exact resuming, for any OpenMMLab config.

    - The config is checked before anything is built (:func:`~florence_mm.config.check.check_run`).
    - Samples, their augmentation and the model's random state depend only on the seed and the iteration, so that a
      resumed run ends with the same weights as an uninterrupted one, with any number of data-loading workers.
      mmengine's two training loops are replaced by :class:`~florence_mm.engine.loops.IterTrainLoop` and
      :class:`~florence_mm.engine.loops.EpochTrainLoop`.
    - Checkpoints are written atomically (:class:`~florence_mm.engine.hooks.AtomicCheckpointHook`), and a loss that
      stays NaN stops the run (:class:`~florence_mm.engine.hooks.InvalidLossHook`).
    - Checkpoints are read without executing code in them; one that does not fit is an error.

    Arguments are those of mmengine's ``Runner``.
    """

    _resuming = False
    _gathered: dict[str, Any] = {}

    @classmethod
    def from_cfg(cls, cfg: Any) -> 'FlorenceRunner':
        """Check the config and build the runner.

        Raises:
            UsageError: a key or type is unknown.
        """
        check_run(cfg)
        return super().from_cfg(cfg)

    def setup_env(self, env_cfg: dict) -> None:
        """Set up mmengine's environment; without an accelerator also keep freed memory for the next step."""
        super().setup_env(env_cfg)
        if get_device() == 'cpu':
            keep_freed_memory()

    def register_default_hooks(self, hooks: dict[str, Hook | dict] | None = None) -> None:
        """Register mmengine's default hooks, with atomic checkpoints, and three of ours; None disables one."""
        ours = {
            'invalid_loss': {'type': InvalidLossHook},
            'class_names': {'type': ClassNamesHook},
            'run_summary': {'type': RunSummaryHook},
        }
        hooks = {**ours, **(hooks or {})}
        checkpoint = hooks.get('checkpoint', {'type': CheckpointHook, 'interval': 1})
        if isinstance(checkpoint, dict) and checkpoint['type'] in _CHECKPOINT_HOOKS:
            hooks['checkpoint'] = {**checkpoint, 'type': AtomicCheckpointHook}
        # mmengine accepts None only for its own hooks
        hooks = {name: hook for name, hook in hooks.items() if hook is not None or name not in ours}
        super().register_default_hooks(hooks)

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
        """Build the training loop; mmengine's two are replaced by ours, which resume exactly."""
        if isinstance(loop, dict):
            loop = copy.deepcopy(loop)
            if 'type' not in loop:
                by_epoch = loop.pop('by_epoch', 'max_epochs' in loop)
                loop['type'] = EpochTrainLoop if by_epoch else IterTrainLoop
            loop['type'] = _EXACT_LOOPS.get(loop['type'], loop['type'])
        return _telling(super().build_train_loop(loop))

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Compile and shard the model as ``parallelize`` in the config says, else wrap it for distributed training."""
        options = self.cfg.get('parallelize')
        if options and not is_model_wrapper(model):
            model = self._parallelize(dict(options), model)
            if is_sharded(model):
                return model
        return super().wrap_model(model_wrapper_cfg, model)

    def _parallelize(self, options: dict, model: nn.Module) -> nn.Module:
        check_options(options)
        shard = options.pop('shard', False) and self.distributed
        if shard and any('EMA' in str(hook.get('type')) for hook in self.cfg.get('custom_hooks') or []):
            raise UsageError(
                'parallelize.shard cannot be used with EMAHook, which copies the model; leave one of them out'
            )
        model = model.to(get_device())
        if shard:
            # initialisers draw whole tensors, so they run before sharding
            self._init_model_weights()
        return parallelize(model, shard=shard, **options)

    def _init_model_weights(self) -> None:
        """Initialise weights depending only on the seed, not on random numbers drawn while building the data."""
        if not is_sharded(self.model):
            torch.manual_seed(combine_seeds(base_seed(self), INIT))
            super()._init_model_weights()

    def load_or_resume(self) -> None:
        """Resume from the given or latest checkpoint, or load weights."""
        if self._resume and self._load_from is None and not self._has_loaded:
            latest = find_latest(self.work_dir)
            if latest is None:
                self.logger.info(f'{self.work_dir} holds no checkpoint to resume; the run starts at the beginning')
                self._has_loaded = True
                return
            self._load_from = latest
        super().load_or_resume()

    def resume(
        self,
        filename: str,
        resume_optimizer: bool = True,
        resume_param_scheduler: bool = True,
        map_location: str | Callable = 'default',
    ) -> None:
        """Restore weights, EMA, optimizer, schedulers, log history, seed and position in the data.

        Raises:
            UsageError: the checkpoint cannot be read, has only weights, or is of another model or optimizer.
        """
        self._resuming = True
        try:
            super().resume(filename, resume_optimizer, resume_param_scheduler, map_location)
        except ValueError as error:
            raise UsageError(f'cannot resume from {filename}: {error}; resume with the config of that run') from error
        finally:
            self._resuming = False

    def load_checkpoint(
        self,
        filename: str,
        map_location: str | Callable = 'cpu',
        strict: bool = False,
        revise_keys: list = [(r'^module.', '')],  # noqa: B006
    ) -> dict:
        """Load weights; when resuming all must match the model, otherwise mismatches are logged.

        Raises:
            UsageError: the file cannot be read, or no key matches the model.
        """
        checkpoint = read_run_checkpoint(filename, map_location)
        model = unwrap_model(self.model)
        if self._resuming:
            self._check_resumable(filename, checkpoint, model)
        elif not _any_key_fits(checkpoint['state_dict'], model):
            theirs, ours = next(iter(checkpoint['state_dict']), None), next(iter(unsharded_layout(model)), None)
            raise UsageError(
                f'no weight in {filename} belongs to this model (it starts with {theirs!r}, the model with {ours!r}); '
                'load another layout with init_cfg=dict(type="florence_mm.Pretrained", checkpoint=..., prefix=...)'
            )
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        if is_sharded(model):
            checkpoint['state_dict'] = split_model_state(checkpoint['state_dict'], model)
            if self._resuming:
                optimizer = self.optim_wrapper.optimizer
                checkpoint['optimizer'] = split_optimizer_state(checkpoint['optimizer'], optimizer)
        checkpoint = _load_checkpoint_to_model(model, checkpoint, strict, revise_keys=revise_keys)
        self._has_loaded = True
        self.logger.info(f'Loaded the checkpoint {filename}')
        return checkpoint

    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        file_client_args: dict | None = None,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: dict | None = None,
        by_epoch: bool = True,
        backend_args: dict | None = None,
    ) -> None:
        """Write a checkpoint from the main process; every process must call it.

        States that are sharded over processes (FSDP2, ``ZeroRedundancyOptimizer``) are gathered first; mmengine's
        method, which only the main process calls, would hang.
        """
        model = self.model.module if is_model_wrapper(self.model) else self.model
        gathered = {'state_dict': gather_model_state(model)} if is_sharded(model) else {}
        split = is_sharded(model) or isinstance(getattr(self.optim_wrapper, 'optimizer', None), ZeroRedundancyOptimizer)
        if save_optimizer and split:
            state = self.optim_wrapper.state_dict()
            gathered['optimizer'] = gather_optimizer_state(state, self.optim_wrapper.optimizer, model)
        if not is_main_process():
            return
        self._gathered = gathered
        super().save_checkpoint(
            out_dir,
            filename,
            file_client_args,
            save_optimizer=save_optimizer and not split,
            save_param_scheduler=save_param_scheduler,
            meta=meta,
            by_epoch=by_epoch,
            backend_args=backend_args,
        )

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call all hooks; before a checkpoint is saved, they get it with gathered states.

        The parameters of a sharded model are gathered during evaluation, as processes may have different numbers of
        batches.
        """
        if fn_name == 'before_save_checkpoint':
            kwargs['checkpoint'].update(self._gathered)
        if fn_name in ('before_val', 'before_test', 'after_val', 'after_test') and is_sharded(self.model):
            keep_whole(self.model, whole=fn_name.startswith('before'))
        super().call_hook(fn_name, **kwargs)

    def _check_resumable(self, filename: str, checkpoint: dict, model: torch.nn.Module) -> None:
        needed = ['meta', 'message_hub', 'optimizer']
        if self.param_schedulers is not None:
            needed.append('param_schedulers')
        absent = [key for key in needed if key not in checkpoint]
        if absent:
            raise UsageError(
                f'{filename} holds no {", ".join(absent)}, so the run cannot be resumed from it; start a new run from '
                'its weights with load_from'
            )
        theirs, ours = checkpoint['state_dict'], unsharded_layout(model)
        differing = sorted(theirs.keys() ^ ours.keys())
        differing += [key for key in theirs.keys() & ours.keys() if theirs[key].shape != ours[key]]
        if differing:
            raise UsageError(
                f'{filename} is of another model: {len(differing)} weights differ, the first is {differing[0]}; resume '
                'with the config of that run, or start a new run from its weights with load_from'
            )


def _telling(loop: BaseLoop) -> BaseLoop:
    """A loop whose data name the step of a pipeline that fails."""
    tell_failing_steps(getattr(loop.dataloader, 'dataset', None))
    return loop


def _any_key_fits(state_dict: dict, model: torch.nn.Module) -> bool:
    ours = unsharded_layout(model)
    return any(key.removeprefix('module.') in ours for key in state_dict)
