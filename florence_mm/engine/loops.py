"""Training loops that resume exactly: same samples, same augmentation, same random state of the model."""

from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any

from mmengine.dist import all_gather_object
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop
from mmengine.runner.utils import calc_dynamic_intervals
from torch.utils.data import DataLoader

from florence_mm.errors import UsageError
from florence_mm.registry import LOOPS

from .accumulation import begin_sums
from .dataloading import BatchClock, resumable, sampler_of, start_loader_at
from .resuming import Position, keep_order, keep_position
from .schedules import check_followed
from .seeding import base_seed, seed_step


def _build_loader(runner: Any, dataloader: DataLoader | dict, infinite: bool) -> DataLoader:
    if isinstance(dataloader, DataLoader):
        return dataloader
    return runner.build_dataloader(resumable(dataloader, infinite), seed=base_seed(runner))


def _no_batch(runner: Any, loader: DataLoader) -> UsageError:
    size = loader.batch_size or getattr(loader.batch_sampler, 'batch_size', 'unknown')
    return UsageError(
        f'The training data give no batch: {len(loader.dataset)} samples do not fill one of size {size} on each of '
        f'{runner.world_size} processes; use a smaller batch_size or drop_last=False'
    )


def _position(runner: Any, loader: DataLoader, unit: str) -> Position:
    size = loader.batch_size or getattr(loader.batch_sampler, 'batch_size', 0)
    return Position(unit, len(loader.dataset), size * runner.world_size, len(loader) if unit == 'epochs' else 0)


def _require_equal_batches(runner: Any, loader: DataLoader) -> None:
    """Refuse processes with different numbers of batches, of which some would wait for ever; all must call it.

    Raises:
        UsageError: the numbers differ.
    """
    counts = all_gather_object(len(loader))
    if len(set(counts)) > 1:
        raise UsageError(
            f'the training data give the {runner.world_size} processes different numbers of batches, {counts}, and '
            'those with more would wait for the others; use round_up=True of the sampler or drop_last=True of the data '
            'loader'
        )


def _validate_if_missed(loop: Any) -> None:
    """Run the validation that a resumed run missed, because it stopped between a checkpoint and its validation."""
    done = loop.runner.message_hub.get_info('resume/validated_iter')
    if loop._iter and loop._val_is_due() and done != loop._iter:
        _validate(loop)


def _validate(loop: Any) -> None:
    # set first, as a checkpoint written during the validation (a new best) must record that it took place
    loop.runner.message_hub.update_info('resume/validated_iter', loop._iter)
    metrics = loop.runner.val_loop.run()
    if isinstance(metrics, dict):
        check_followed(loop.runner.param_schedulers, metrics)


@LOOPS.register_module()
class IterTrainLoop(IterBasedTrainLoop):
    """Training loop by iterations that resumes exactly.

    Batches are always full and continue across epochs. In a resumed run, iteration ``i`` has the same samples,
    augmentation and random state of the model as in a run that was not stopped.

    Args:
        runner (Runner): The runner.
        dataloader (DataLoader or dict): Data loader or its config; only with a config, resuming does not read the
            earlier data again.
        max_iters (int): Number of iterations.
        val_begin (int): First iteration after which validation may run. Defaults to 1.
        val_interval (int): Iterations between validations. Defaults to 1000.
        dynamic_intervals (list[tuple[int, int]], optional): Pairs (iteration, ``val_interval`` from there on).
    """

    def __init__(
        self,
        runner: Any,
        dataloader: DataLoader | dict,
        max_iters: int,
        val_begin: int = 1,
        val_interval: int = 1000,
        dynamic_intervals: list[tuple[int, int]] | None = None,
    ) -> None:
        # The parent's __init__ would start the workers at draw 0 before the position to resume from is known, so
        # its fields are set here instead.
        BaseLoop.__init__(self, runner, _build_loader(runner, dataloader, infinite=True))
        self.clock = BatchClock()
        if int(max_iters) != max_iters:
            raise ValueError(f'train_cfg.max_iters must be an integer, got {max_iters!r}')
        self._max_iters = int(max_iters)
        self._max_epochs = 1
        self._epoch = 0
        self._iter = 0
        self.val_begin = val_begin
        self.val_interval = val_interval
        self.stop_training = False
        runner.visualizer.dataset_meta = getattr(self.dataloader.dataset, 'metainfo', None)
        self.dynamic_milestones, self.dynamic_intervals = calc_dynamic_intervals(val_interval, dynamic_intervals)

    def run(self) -> Any:
        """Train to ``max_iters`` and return the model."""
        runner = self.runner
        begin_sums(runner.optim_wrapper)
        keep_position(runner, _position(runner, self.dataloader, 'iterations'))
        keep_order(runner, sampler_of(self.dataloader))
        runner.call_hook('before_train')
        runner.call_hook('before_train_epoch')
        self.dataloader_iterator = self._data_from_here()
        self._decide_current_val_interval()
        _validate_if_missed(self)
        # ends the workers now; the garbage collector might do so later and delay other work
        with closing(self.dataloader_iterator):
            while self._iter < self._max_iters and not self.stop_training:
                runner.model.train()
                self.run_iter(next(self.dataloader_iterator))
                self._decide_current_val_interval()
                if self._val_is_due():
                    _validate(self)
        runner.call_hook('after_train_epoch')
        runner.call_hook('after_train')
        return runner.model

    def run_iter(self, data_batch: Sequence[dict]) -> None:
        """Run one iteration, seeded by its number."""
        self.runner.message_hub.update_info('resume/data_position', self._position)
        seed_step(base_seed(self.runner), self._iter, self.runner.rank)
        super().run_iter(data_batch)

    def _val_is_due(self) -> bool:
        at_interval = self._iter % self.val_interval == 0 or self._iter == self._max_iters
        return self.runner.val_loop is not None and self._iter >= self.val_begin and at_interval

    def _data_from_here(self) -> Generator[Any, None, None]:
        """Yield batches from the current iteration on; if the batch size changed, from the next unused sample on."""
        loader, seed = self.dataloader, base_seed(self.runner)
        batch_size = loader.batch_size or getattr(loader.batch_sampler, 'batch_size', 0)
        draws_per_batch = batch_size * self.runner.world_size
        # only finite samplers of other packages end a pass; ours is infinite and stays in epoch 0
        epoch, batch, draw = 0, self._iter, self._iter * draws_per_batch
        if self._iter:
            epoch, batch, draw = self.runner.message_hub.get_info('resume/data_position', [epoch, batch, draw])
        while True:
            first = batch
            for data in self.clock.timed(start_loader_at(loader, seed, batch, epoch, draw)):
                batch, draw = batch + 1, draw + draws_per_batch
                self._position = [epoch, batch, draw]
                yield data
            if batch == first == 0:
                raise _no_batch(self.runner, loader)
            epoch, batch, draw = epoch + 1, 0, 0


@LOOPS.register_module()
class EpochTrainLoop(EpochBasedTrainLoop):
    """Training loop by epochs that resumes exactly, also in the middle of an epoch.

    Args:
        runner (Runner): The runner.
        dataloader (DataLoader or dict): Data loader or its config; only with a config, resuming does not read the
            earlier data of the epoch again.
        max_epochs (int): Number of epochs.
        val_begin (int): First epoch after which validation may run. Defaults to 1.
        val_interval (int): Epochs between validations. Defaults to 1.
        dynamic_intervals (list[tuple[int, int]], optional): Pairs (epoch, ``val_interval`` from there on).
    """

    def __init__(
        self,
        runner: Any,
        dataloader: DataLoader | dict,
        max_epochs: int,
        val_begin: int = 1,
        val_interval: int = 1,
        dynamic_intervals: list[tuple[int, int]] | None = None,
    ) -> None:
        loader = _build_loader(runner, dataloader, infinite=False)
        if len(loader) == 0:
            raise _no_batch(runner, loader)
        super().__init__(runner, loader, max_epochs, val_begin, val_interval, dynamic_intervals)
        self.clock = BatchClock()

    def run(self) -> Any:
        """Train to ``max_epochs`` and return the model."""
        runner = self.runner
        begin_sums(runner.optim_wrapper)
        keep_position(runner, _position(runner, self.dataloader, 'epochs'))
        _require_equal_batches(runner, self.dataloader)
        keep_order(runner, sampler_of(self.dataloader))
        runner.call_hook('before_train')
        skip = self._batches_done()
        self._decide_current_val_interval()
        if skip == 0:
            _validate_if_missed(self)
        while self._epoch < self._max_epochs and not self.stop_training:
            self._run_rest_of_epoch(skip)
            skip = 0
            self._decide_current_val_interval()
            if self._val_is_due():
                _validate(self)
        runner.call_hook('after_train')
        return runner.model

    def run_epoch(self) -> None:
        """Run one whole epoch."""
        self._run_rest_of_epoch(skip=0)

    def run_iter(self, idx: int, data_batch: Sequence[dict]) -> None:
        """Run one iteration, seeded by its number."""
        seed_step(base_seed(self.runner), self._iter, self.runner.rank)
        super().run_iter(idx, data_batch)

    def _run_rest_of_epoch(self, skip: int) -> None:
        runner = self.runner
        runner.message_hub.update_info('resume/batches_per_epoch', len(self.dataloader))
        runner.call_hook('before_train_epoch')
        runner.model.train()
        if skip < len(self.dataloader):
            batches = start_loader_at(self.dataloader, base_seed(runner), skip, self._epoch)
            told, index = len(self.dataloader), skip - 1
            for index, batch in enumerate(self.clock.timed(batches), start=skip):
                if index == told and runner.world_size > 1:
                    break
                self.run_iter(index, batch)
            if index + 1 != told and runner.world_size > 1:
                given = 'more' if index == told else index + 1
                raise UsageError(
                    f'the data loader of rank {runner.rank} gave {given} batches instead of {told}, its length, so '
                    'that processes would wait for each other; correct the __len__ of its sampler or data set'
                )
        runner.call_hook('after_train_epoch')
        self._epoch += 1

    def _val_is_due(self) -> bool:
        at_interval = self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs
        return self.runner.val_loop is not None and self._epoch >= self.val_begin and at_interval

    def _batches_done(self) -> int:
        """Number of batches of the current epoch that were trained before the checkpoint."""
        now = len(self.dataloader)
        then = self.runner.message_hub.get_info('resume/batches_per_epoch', now) if self._iter else now
        done = self._iter - self._epoch * then
        if done == 0 or (now == then and 0 < done <= now):
            return done
        raise UsageError(
            f'The checkpoint stopped after batch {done} of an epoch of {then} batches, but the training data now give '
            f'{now} a process; resume with the data, batch size and number of processes of that run, or start a '
            'new run from its weights with load_from'
        )
