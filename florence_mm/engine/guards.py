"""Checks that the parts of a run fit together, which the runner makes whatever hooks a config has."""

from collections.abc import Iterator
from typing import Any

import torch
from mmengine.hooks import CheckpointHook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import BaseLoop, EpochBasedTrainLoop
from torch import nn
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor import DTensor

from florence_mm.errors import UsageError
from florence_mm.models.protocol import WholeBatchLoss, unwrap_model
from florence_mm.utils.nearest import did_you_mean

from .accumulation import counts_of
from .data_classes import check_classes, check_same_order
from .parallelize import is_sharded


def check_run(runner: Any) -> None:
    """Check the head and all built data for the same classes, and the loss against gradient accumulation.

    Raises:
        UsageError: they do not fit.
    """
    datasets = {f'{key}_dataloader': loop.dataloader.dataset for key, loop in _built_loops(runner)}
    for dataset in datasets.values():
        check_classes(runner.model, dataset)
    check_same_order(runner.model, datasets)
    if isinstance(runner._train_loop, BaseLoop):
        check_accumulation(runner.model, runner.optim_wrapper)
        _check_optimizer_splits(runner)
        _check_sharded_accumulation(runner)


def check_module_names(runner: Any) -> None:
    """Check that the parts of the model that ``activation_checkpointing`` and ``efficient_conv_bn_eval`` name exist.

    Raises:
        UsageError: there is no such part.
    """
    there = dict(unwrap_model(runner.model).named_modules())
    for key in ('activation_checkpointing', 'efficient_conv_bn_eval'):
        names = runner.cfg.get(key) or ()
        for name in [names] if isinstance(names, str) else names:
            if name not in there:
                top = sorted({other.partition('.')[0] for other in there if other})
                hint = did_you_mean(name, there, f'; its parts are {", ".join(top)} and those in them')
                raise UsageError(f'{key}: the model has no part {name!r}{hint}')


def check_accumulation(model: nn.Module, optim_wrapper: Any) -> None:
    """Refuse gradient accumulation with a loss that compares the samples of a batch with each other.

    Raises:
        UsageError: the mean of the losses of small batches is not the loss of the whole batch.
    """
    counts = counts_of(optim_wrapper)
    model = unwrap_model(model)
    advice = model.whole_batch_advice() if isinstance(model, WholeBatchLoss) else None
    if counts > 1 and advice:
        raise UsageError(
            f'optim_wrapper.accumulative_counts={counts} would compare samples within each small batch only, as the '
            f'loss of {type(model).__name__} is over all pairs of a batch; leave it at 1 and {advice}'
        )


def _check_sharded_accumulation(runner: Any) -> None:
    """Refuse checkpoints between two updates of a sharded model, whose gradients are sharded too."""
    counts, loop = counts_of(runner.optim_wrapper), runner._train_loop
    if counts == 1 or not is_sharded(runner.model):
        return
    places = {f'train_cfg.val_interval={loop.val_interval}': loop.val_interval}
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook) and not hook.by_epoch and hook.interval > 0:
            places[f'default_hooks.checkpoint.interval={hook.interval}'] = hook.interval
    if isinstance(loop, EpochBasedTrainLoop):
        places = {f'an epoch of {len(loop.dataloader)} iterations': len(loop.dataloader)}
    for place, interval in places.items():
        if interval % counts:
            raise UsageError(
                f'{place} is no multiple of optim_wrapper.accumulative_counts={counts}, and with parallelize.shard a '
                'checkpoint cannot hold summed gradients; make it one'
            )


def _check_optimizer_splits(runner: Any) -> None:
    """Refuse several optimizers with split weights or checkpoints, and ZeRO of split weights.

    Raises:
        UsageError: they do not go together.
    """
    wrapper, sharded = runner.optim_wrapper, is_sharded(runner.model)
    if isinstance(wrapper, OptimWrapperDict) and (sharded or getattr(runner, 'sharded_checkpoints', False)):
        key = 'shard' if sharded else 'sharded_checkpoints'
        raise UsageError(
            f'parallelize.{key} is for one optimizer, and optim_wrapper has {len(wrapper.optim_wrappers)}, '
            f'{", ".join(wrapper.optim_wrappers)}; leave it out, or train with one'
        )
    optimizer = getattr(wrapper, 'optimizer', None)
    if sharded and isinstance(optimizer, ZeroRedundancyOptimizer):
        raise UsageError(
            'parallelize.shard splits moments with the weights, and ZeroRedundancyOptimizer cannot share out split '
            f'weights; take {type(optimizer.optim).__name__} itself as optim_wrapper.optimizer.type'
        )


def not_finite(model: nn.Module) -> list[str]:
    """Names of the parameters with a value that is NaN or infinite; of a sharded model those in this process's part."""
    module = unwrap_model(model)
    return [name for name, value in module.named_parameters() if not torch.isfinite(_local(value)).all()]


def _local(value: torch.Tensor) -> torch.Tensor:
    return value.to_local() if isinstance(value, DTensor) else value


def _built_loops(runner: Any) -> Iterator[tuple[str, BaseLoop]]:
    for key in ('train', 'val', 'test'):
        loop = getattr(runner, f'_{key}_loop')
        if isinstance(loop, BaseLoop):
            yield key, loop
