"""The runner of florence_mm: mmengine's, whose runs can be stopped at any moment and resumed exactly."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from torch import nn
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.utils.data import DataLoader

from florence_mm.config.check import check_whole_config
from florence_mm.datasets.reading import check_pipelines
from florence_mm.errors import UsageError, raise_if_asked
from florence_mm.models.checkpoints.frozen import leave_out_frozen, put_in_frozen
from florence_mm.models.checkpoints.parts import is_parts
from florence_mm.models.protocol import CountsSteps, unwrap_model
from florence_mm.registry import RUNNERS

from . import accumulation
from .checkpointing import check_resumable, find_latest, read_run_checkpoint
from .data_classes import check_class_order
from .endings import WAIT_FOR_RANKS, WAIT_FOR_WORKERS, ending_in_words, meeting_failed
from .guards import check_module_names, check_run
from .hooks import AtomicCheckpointHook, ClassNamesHook, InvalidLossHook, RunSummaryHook, ThroughputHook
from .hooks.checkpoint import require_finite
from .host_memory import keep_freed_memory
from .loops import EpochTrainLoop, IterTrainLoop
from .parallelize import (
    gather_model_state,
    gather_optimizer_state,
    is_sharded,
    layout_of_parts,
    split_model_state,
    split_optimizer_state,
    unsharded_layout,
    unsharded_names,
)
from .rehearsal import rehearse_validation
from .resuming import ScheduleOfConfig, check_optimizer, check_seed, use_config, use_implementation
from .run_weights import fit_run_weights
from .sharded_checkpoints import read_checkpoint_parts, write_tensors
from .sharding_runner import ShardingRunner
from .work_folder import alone_in_work_dir, dump_beside_log

_EXACT_LOOPS = {
    name: loop
    for parent, loop in ((IterBasedTrainLoop, IterTrainLoop), (EpochBasedTrainLoop, EpochTrainLoop))
    for name in (parent, parent.__name__, f'mmengine.{parent.__name__}')
}
_CHECKPOINT_HOOKS = (CheckpointHook, 'CheckpointHook', 'mmengine.CheckpointHook')


@RUNNERS.register_module()
class FlorenceRunner(ShardingRunner):
    """mmengine's ``Runner`` with exact resuming, for any OpenMMLab config.

    - The config is checked before anything is built (:func:`~florence_mm.config.check.check_whole_config`).
    - Samples, their augmentation and the model's random state depend only on the seed and the iteration, so that a
      resumed run ends with the same weights as an uninterrupted one, with any number of data-loading workers.
      mmengine's two training loops are replaced by :class:`~florence_mm.engine.loops.IterTrainLoop` and
      :class:`~florence_mm.engine.loops.EpochTrainLoop`.
    - Checkpoints are written atomically (:class:`~florence_mm.engine.hooks.AtomicCheckpointHook`), and a loss that
      stays NaN stops the run (:class:`~florence_mm.engine.hooks.InvalidLossHook`).
    - Checkpoints are read without executing code in them; one that does not fit is an error.

    Arguments are those of mmengine's ``Runner``.
    """

    began_at = 0  #: iteration at which this process began
    _resuming = False
    _needs_all = False
    _resumed: dict[str, Any] = {}
    _gathered: dict[str, Any] = {}

    @classmethod
    def from_cfg(cls, cfg: Any) -> 'FlorenceRunner':
        """Check the config and build the runner.

        Raises:
            UsageError: a key or type is unknown.
        """
        cls.check(cfg)
        return super().from_cfg(cfg)

    @staticmethod
    def check(cfg: Any) -> None:
        """Check the config, as :meth:`from_cfg` does first."""
        check_whole_config(cfg)

    def setup_env(self, env_cfg: dict) -> None:
        """Set up mmengine's environment; without an accelerator also keep freed memory for the next step.

        Raises:
            UsageError: the processes of the run do not find each other.
        """
        env_cfg = {**env_cfg, 'dist_cfg': {'timeout': WAIT_FOR_RANKS, **(env_cfg.get('dist_cfg') or {})}}
        try:
            super().setup_env(env_cfg)
        except (torch.distributed.DistNetworkError, torch.distributed.DistStoreError) as error:
            raise meeting_failed(error) from error
        if get_device() == 'cpu':
            keep_freed_memory()

    def register_default_hooks(self, hooks: dict[str, Hook | dict] | None = None) -> None:
        """Register mmengine's default hooks, with atomic checkpoints, and four of ours; None disables one."""
        ours = {
            'invalid_loss': {'type': InvalidLossHook},
            'class_names': {'type': ClassNamesHook},
            'run_summary': {'type': RunSummaryHook},
            'throughput': {'type': ThroughputHook},
        }
        hooks = {**ours, **(hooks or {})}
        checkpoint = hooks.get('checkpoint', {'type': CheckpointHook, 'interval': 1})
        if isinstance(checkpoint, dict) and checkpoint['type'] in _CHECKPOINT_HOOKS:
            hooks['checkpoint'] = {**checkpoint, 'type': AtomicCheckpointHook}
        # mmengine accepts None only for its own hooks
        hooks = {name: hook for name, hook in hooks.items() if hook is not None or name not in ours}
        super().register_default_hooks(hooks)

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build the training loop; mmengine's two are replaced by ours, which resume exactly."""
        if isinstance(loop, dict):
            loop = copy.deepcopy(loop)
            if 'type' not in loop:
                by_epoch = loop.pop('by_epoch', 'max_epochs' in loop)
                loop['type'] = EpochTrainLoop if by_epoch else IterTrainLoop
            loop['type'] = _EXACT_LOOPS.get(loop['type'], loop['type'])
        return super().build_train_loop(loop)

    def dump_config(self) -> None:
        """Write nothing yet: mmengine calls it in the constructor, before the work folder is known to be this run's."""

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        """Build a data loader, whose workers are waited for ``timeout`` seconds, by default 300.

        With a GPU its batches are in pinned memory, from which they are copied while the GPU computes.
        """
        if isinstance(dataloader, dict) and dataloader.get('num_workers'):
            dataloader = {'timeout': WAIT_FOR_WORKERS, 'pin_memory': get_device() == 'cuda', **dataloader}
        if isinstance(dataloader, dict) and isinstance(dataloader.get('collate_fn'), dict):
            # mmengine would give the scope of a config of another package to the function as an argument
            collate = {key: value for key, value in dataloader['collate_fn'].items() if key != '_scope_'}
            dataloader = {**dataloader, 'collate_fn': collate}
        loader = Runner.build_dataloader(dataloader, seed, diff_rank_seed)
        check_pipelines(loader.dataset)
        return loader

    def val(self) -> dict[str, float]:
        """Validate a checkpoint that has all weights, and return the metrics; see :meth:`train` for what ends it."""
        self._needs_all = True
        dump_beside_log(self)
        with ending_in_words(self):
            return super().val()

    def test(self) -> dict[str, float]:
        """Test a checkpoint that has all weights, and return the metrics; see :meth:`train` for what ends it."""
        self._needs_all = True
        dump_beside_log(self)
        with ending_in_words(self):
            return super().test()

    def train(self) -> nn.Module:
        """Train, and return the model.

        Raises:
            UsageError: the work folder is used by another run or has its checkpoints; parts of the run do not fit
                together; the loss or the weights are not finite; the disk is full.
        """
        if self._resume and self._load_from is None and not self._has_loaded:
            self._load_from = find_latest(self.work_dir)
        with alone_in_work_dir(self):
            super().dump_config()
            check_module_names(self)
            with ending_in_words(self):
                model = super().train()
                require_finite(self, 'the run leaves no weights')
        return model

    def load_or_resume(self) -> None:
        """Resume from the given or latest checkpoint, or load weights; before it, check that the parts fit together."""
        check_run(self)
        if self._resume and self._load_from is None and not self._has_loaded:
            self.logger.info(f'{self.work_dir} holds no checkpoint to resume; the run starts at the beginning')
            self._has_loaded = True
        super().load_or_resume()
        self.began_at = self.iter
        if isinstance(self._train_loop, BaseLoop):
            rehearse_validation(self)

    def resume(
        self,
        filename: str,
        resume_optimizer: bool = True,
        resume_param_scheduler: bool = True,
        map_location: str | Callable = 'default',
    ) -> None:
        """Restore the state of a run; settings are those of the config (:mod:`florence_mm.engine.resuming`).

        Raises:
            UsageError: the checkpoint cannot be read, has only weights, is of another model or optimizer, or its state
                does not fit a setting.
        """
        schedule = ScheduleOfConfig(self.optim_wrapper, self.param_schedulers)
        self._resuming = True
        try:
            super().resume(filename, resume_optimizer, resume_param_scheduler, map_location)
        except ValueError as error:
            raise UsageError(f'cannot resume from {filename}: {error}; resume with the config of that run') from error
        finally:
            self._resuming = False
        use_config(self, schedule, **self._resumed)

    def load_checkpoint(
        self,
        filename: str,
        map_location: str | Callable = 'cpu',
        strict: bool = False,
        revise_keys: list = [(r'^module.', '')],  # noqa: B006
    ) -> dict:
        """Load weights; all must match the model when resuming or testing, most of them for a new run.

        Raises:
            UsageError: the file cannot be read, or does not hold enough of the model, see
                :func:`~florence_mm.engine.run_weights.fit_run_weights`.
        """
        model = unwrap_model(self.model)
        checkpoint = self._read_checkpoint(filename, map_location)
        try:
            put_in_frozen(model, checkpoint, filename)
        except ValueError as error:
            raise UsageError(str(error)) from error
        if self._resuming:
            self._check_resumable(filename, checkpoint, model)
            accumulation.restore_gradients(checkpoint, self, model, filename)
        else:
            checkpoint['state_dict'] = fit_run_weights(
                model, checkpoint['state_dict'], filename, self._needs_all, checkpoint.get('meta')
            )
        check_class_order(self, checkpoint, filename)
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        if is_sharded(model):
            checkpoint['state_dict'] = split_model_state(checkpoint['state_dict'], model)
            if self._resuming:
                optimizer = self.optim_wrapper.optimizer
                checkpoint['optimizer'] = split_optimizer_state(checkpoint['optimizer'], optimizer)
        checkpoint = _load_checkpoint_to_model(model, checkpoint, strict, revise_keys=revise_keys)
        self._has_loaded = True
        if not self._resuming and not self._needs_all:  # a new training
            for module in model.modules():
                if isinstance(module, CountsSteps):
                    module.restart()
        if self._resuming:
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
        method, which only the main process calls, would hang. With ``parallelize.sharded_checkpoints`` each process
        writes its rows into ``out_dir``, and ``filename`` gets the rest.
        """
        model = unwrap_model(self.model)
        optimizer = getattr(self.optim_wrapper, 'optimizer', None)
        gathered = {}
        if is_sharded(model) and not self.sharded_checkpoints:
            gathered['state_dict'] = gather_model_state(model)
        split = is_sharded(model) or isinstance(optimizer, ZeroRedundancyOptimizer)
        if save_optimizer and accumulation.counts_of(self.optim_wrapper) > 1:
            gathered[accumulation.KEY] = accumulation.waiting_gradients(self.optim_wrapper, model)
        if self.sharded_checkpoints:
            state = self.optim_wrapper.state_dict() if save_optimizer else None
            if state is not None and is_sharded(model):
                state = gather_optimizer_state(state, optimizer, model, parts=True)
            weights, state = write_tensors(Path(out_dir), layout_of_parts(model), state)
            gathered |= {'state_dict': weights, **({'optimizer': state} if save_optimizer else {})}
        elif save_optimizer and split:
            gathered['optimizer'] = gather_optimizer_state(self.optim_wrapper.state_dict(), optimizer, model)
        if not is_main_process():
            return
        self._gathered = gathered
        super().save_checkpoint(
            out_dir,
            filename,
            file_client_args,
            save_optimizer=save_optimizer and 'optimizer' not in gathered,
            save_param_scheduler=save_param_scheduler,
            meta=meta,
            by_epoch=by_epoch,
            backend_args=backend_args,
        )

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call all hooks; before a checkpoint is saved, they get it with gathered states."""
        if fn_name.endswith('_iter'):
            raise_if_asked()
        if fn_name == 'before_save_checkpoint':
            kwargs['checkpoint'].update(self._gathered)
        super().call_hook(fn_name, **kwargs)
        if fn_name == 'before_save_checkpoint':  # behind hooks, as the one of averaged weights reads the whole state
            leave_out_frozen(unwrap_model(self.model), kwargs['checkpoint'])

    def _read_checkpoint(self, filename: str, map_location: str | Callable) -> dict[str, Any]:
        model = unwrap_model(self.model)
        if not is_parts(filename):
            return read_run_checkpoint(filename, map_location, mmap=is_sharded(model))
        optimizer = self.optim_wrapper.optimizer if self._resuming else None
        return read_checkpoint_parts(filename, model, unsharded_names(model), optimizer)

    def _check_resumable(self, filename: str, checkpoint: dict, model: torch.nn.Module) -> None:
        floating = (weight.is_floating_point() for weight in model.state_dict().values())
        ours = {
            key: (shape, kind) for (key, shape), kind in zip(unsharded_layout(model).items(), floating, strict=True)
        }
        check_resumable(filename, checkpoint, ours, self.param_schedulers is not None)
        check_optimizer(self.optim_wrapper, checkpoint['optimizer'], filename)
        use_implementation(self.optim_wrapper, checkpoint['optimizer'])
        check_seed(self, checkpoint['meta'].get('seed'), filename)
        schedules = checkpoint.get('param_schedulers') or []
        lists = schedules.values() if isinstance(schedules, dict) else [schedules]
        # mmengine would execute a config stored as `config`
        checkpoint['meta'].pop('config', None)
        self._resumed = {'schedules': sum(map(len, lists)), 'text': checkpoint['meta'].get('cfg')}
