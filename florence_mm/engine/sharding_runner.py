"""A runner whose models may be compiled and split over processes, as ``parallelize`` in the config says."""

from typing import Any

import torch
from mmengine.device import get_device
from mmengine.model import BaseModule, is_model_wrapper
from torch import nn

from florence_mm.errors import UsageError

from .meta_init import ShardedInit, as_on_rank_0
from .parallelize import OF_THE_RUNNER, check_options, is_sharded, keep_whole, parallelize
from .seeding import INIT, base_seed, combine_seeds
from .telling_runner import TellingRunner


class ShardingRunner(TellingRunner):
    """mmengine's ``Runner`` that builds, initialises, compiles and shards a model by the key ``parallelize``."""

    _sharded_init: ShardedInit | None = None

    @property
    def sharded_checkpoints(self) -> bool:
        """Whether checkpoints are folders, to which each process gives its part."""
        return bool((self.cfg.get('parallelize') or {}).get('sharded_checkpoints'))

    def build_model(self, model: nn.Module | dict) -> nn.Module:
        """Build the model; one that will be sharded is split while it is built, unless ``meta_init=False``."""
        options = self.cfg.get('parallelize') or {}
        if not (self._shards(options) and options.get('meta_init', True) and isinstance(model, dict)):
            return super().build_model(model)
        self._sharded_init = ShardedInit()
        with as_on_rank_0(), self._sharded_init:
            return super().build_model(model)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Compile and shard the model as ``parallelize`` in the config says, else wrap it for distributed training."""
        options = self.cfg.get('parallelize')
        if options and not is_model_wrapper(model):
            model = self._parallelize(dict(options), model)
            if is_sharded(model):
                return model
        return super().wrap_model(model_wrapper_cfg, model)

    def _shards(self, options: dict) -> bool:
        return bool(options.get('shard', False)) and self.distributed

    def _parallelize(self, options: dict, model: nn.Module) -> nn.Module:
        check_options(options)
        shard = self._shards(options)
        averaged = any('EMA' in str(hook.get('type')) for hook in self.cfg.get('custom_hooks') or [])
        for key in ('shard', 'sharded_checkpoints'):
            if averaged and (shard if key == 'shard' else options.get(key)):
                raise UsageError(
                    f'parallelize.{key} cannot be used with EMAHook, which copies the model; leave one of them out'
                )
        init = self._sharded_init
        if init is None:
            model = model.to(get_device())
        else:
            init.to(model, get_device())
        if shard:
            # initialisers draw whole tensors, so they run before sharding
            self._init_model_weights()
        self._sharded_init = None
        options = {key: value for key, value in options.items() if key not in ('shard', *OF_THE_RUNNER)}
        return parallelize(model, shard=shard, init=init, **options) if options else model

    def _init_model_weights(self) -> None:
        """Initialise weights depending only on the seed, not on random numbers drawn while building the data."""
        if is_sharded(self.model):
            return
        seed = combine_seeds(base_seed(self), INIT)
        if self._sharded_init is None:
            torch.manual_seed(seed)
            super()._init_model_weights()
        elif isinstance(self.model, BaseModule):
            with as_on_rank_0(), self._sharded_init:
                torch.manual_seed(seed)
                self.model.init_weights()

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call all hooks; the parameters of a sharded model are gathered during evaluation.

        Processes may have different numbers of batches there.
        """
        if fn_name in ('before_val', 'before_test', 'after_val', 'after_test') and is_sharded(self.model):
            keep_whole(self.model, whole=fn_name.startswith('before'))
        super().call_hook(fn_name, **kwargs)
