"""Atomic saving of checkpoints."""

import logging
from collections import deque
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_reduce, is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook

from florence_mm.engine.checkpointing import remove_unfinished
from florence_mm.engine.guards import not_finite
from florence_mm.engine.sharded_checkpoints import replacing_folder, restore_aside
from florence_mm.errors import UsageError
from florence_mm.models.checkpoints.parts import STATE
from florence_mm.registry import HOOKS
from florence_mm.utils.files import replacing, write_atomic


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """Save checkpoints so that a kill at any moment leaves a usable one; arguments are those of ``CheckpointHook``.

    A checkpoint is written to a temporary file and renamed; then ``last_checkpoint`` is updated; only then older
    checkpoints of this run are deleted. Weights that are not finite are never saved, so that they cannot replace good
    ones.

    Raises:
        UsageError: a checkpoint is due and the weights are not finite, so that the run cannot go on; or ``save_best``
            names a metric that the validation does not have.
    """

    def before_train(self, runner: Any) -> None:
        """Prepare the folder, and delete temporary files of a killed run."""
        # mmengine's method creates a file client, which warns of its own deprecation, even if the config has none
        if self.file_client_args is None:
            runner.logger.addFilter(_no_deprecation)
        try:
            super().before_train(runner)
        finally:
            runner.logger.removeFilter(_no_deprecation)
        if isinstance(self.file_backend, LocalBackend) and is_main_process():
            remove_unfinished(self.out_dir)
            restore_aside(self.out_dir)
        if getattr(runner, 'sharded_checkpoints', False):
            self._write_folders()
        # in a resumed run a new best is followed by a checkpoint that records it, as in an uninterrupted run
        self.last_ckpt = runner.message_hub.get_info('last_ckpt', self.last_ckpt)

    def _write_folders(self) -> None:
        """Name checkpoints without ``.pth``, as they are folders.

        Raises:
            UsageError: a setting is for single files.
        """
        if not isinstance(self.file_backend, LocalBackend):
            raise UsageError(
                f'parallelize.sharded_checkpoints needs a folder that all processes share, and out_dir {self.out_dir} '
                'is a store; give a local one'
            )
        if self.published_keys:
            raise UsageError(
                'default_hooks.checkpoint.published_keys is for checkpoints of one file; leave it out with '
                'parallelize.sharded_checkpoints, and export with florence-mm convert'
            )
        self.filename_tmpl = self.filename_tmpl.removesuffix('.pth')

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict) -> None:
        """Save a checkpoint, update ``last_checkpoint``, delete old checkpoints."""
        name = self.filename_tmpl.format(step)
        require_finite(runner, f'checkpoint {name} is not written')
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        limited = self.max_keep_ckpts > 0
        if limited:
            kept = [*(old for old in self.keep_ckpt_ids if old != step), step]
            # if a kill prevents the deletions below, before_train of the resumed run makes them
            runner.message_hub.update_info('keep_ckpt_ids', kept)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        self._save(runner, name, meta, self.save_optimizer, self.save_param_scheduler, self.by_epoch)
        if is_main_process():
            write_atomic(Path(runner.work_dir) / 'last_checkpoint', self.last_ckpt)
        if limited:
            for old in kept[: -self.max_keep_ckpts]:
                self._remove(self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old)))
            self.keep_ckpt_ids = deque(kept[-self.max_keep_ckpts :], self.max_keep_ckpts)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))

    def _save_best_checkpoint(self, runner: Any, metrics: dict) -> None:
        """Save a new best and a checkpoint that records it, then delete the previous best."""
        if not self.save_best:
            return
        if 'auto' in self.key_indicators:
            self._init_rule(self.rules, [next(iter(metrics))])
        now = runner.epoch if self.by_epoch else runner.iter
        meta = {'epoch': runner.epoch, 'iter': runner.iter}
        improved, outdated = False, []
        several = len(self.key_indicators) > 1
        for key, rule in zip(self.key_indicators, self.rules, strict=True):
            if key not in metrics:
                raise UsageError(
                    f'default_hooks.checkpoint.save_best={key!r} is no metric of the validation; it gives '
                    f'{", ".join(metrics)}'
                )
            suffix = f'_{key}' if several else ''
            best = runner.message_hub.get_info(f'best_score{suffix}', self.init_value_map[rule])
            if metrics[key] is None or not self.is_better_than[key](metrics[key], best):
                continue
            before = self.best_ckpt_path_dict.get(key) if several else self.best_ckpt_path
            name = f'best_{key}_{self.filename_tmpl.format(now)}'.replace('/', '_')
            path = self.file_backend.join_path(self.out_dir, name)
            require_finite(runner, f'checkpoint {name} is not written')
            runner.message_hub.update_info(f'best_score{suffix}', metrics[key])
            runner.message_hub.update_info(f'best_ckpt{suffix}', path)
            self._save(runner, name, meta, optimizer=False, schedulers=False, by_epoch=False)
            improved = True
            if several:
                self.best_ckpt_path_dict[key] = path
            else:
                self.best_ckpt_path = path
            if before and before != path:
                outdated.append(before)
            runner.logger.info(f'New best {key} {metrics[key]:.4f}: {name}')
        # the last checkpoint must record the new best, or a resumed run would not replace it
        if improved and self.last_ckpt is not None:
            self._save_checkpoint_with_step(runner, now, meta)
        for path in outdated:
            self._remove(path)

    def _save(self, runner: Any, name: str, meta: dict, optimizer: bool, schedulers: bool, by_epoch: bool) -> None:
        """Write one file. All ranks must call it."""
        kwargs = dict(
            save_optimizer=optimizer,
            save_param_scheduler=schedulers,
            meta=meta,
            by_epoch=by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if not isinstance(self.file_backend, LocalBackend):
            runner.save_checkpoint(self.out_dir, name, self.file_client_args, **kwargs)
        elif getattr(runner, 'sharded_checkpoints', False):
            with replacing_folder(Path(self.out_dir) / name) as folder:
                runner.save_checkpoint(str(folder), STATE, self.file_client_args, **kwargs)
        elif is_main_process():
            with replacing(Path(self.out_dir) / name) as temporary:
                runner.save_checkpoint(self.out_dir, temporary.name, self.file_client_args, **kwargs)
        else:
            runner.save_checkpoint(self.out_dir, name, self.file_client_args, **kwargs)

    def _remove(self, path: str) -> None:
        """Delete a checkpoint of this run; one in another folder is that of the run from which it was resumed."""
        if not is_main_process() or Path(path).parent.resolve() != Path(self.out_dir).resolve():
            return
        if self.file_backend.isdir(path):
            self.file_backend.rmtree(path)
        elif self.file_backend.isfile(path):
            self.file_backend.remove(path)


def _no_deprecation(record: logging.LogRecord) -> bool:
    return 'deprecated' not in record.getMessage()


def require_finite(runner: Any, consequence: str) -> None:
    """Raise if a weight is NaN or infinite, which no further training mends; every process must call it.

    Args:
        runner: the runner.
        consequence: what does not happen because of it, for the message.

    Raises:
        UsageError: a weight is not finite.
    """
    broken = not_finite(runner.model)
    # processes that have shards of the weights must agree
    count = torch.tensor(len(broken), device=next(runner.model.parameters()).device)
    all_reduce(count)
    if count:
        last = runner.message_hub.get_info('last_ckpt', None)
        good = f'go on from {last} with --resume' if last else 'start again, as there is no earlier checkpoint'
        raise UsageError(
            f'{consequence} because {", ".join(broken[:3]) or "a weight"} is not finite; '
            f'lower the learning rate, clip gradients (optim_wrapper.clip_grad) or train without float16, '
            f'and {good}'
        )
