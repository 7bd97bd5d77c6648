"""Silence what packages say at every start of their own code, and a user cannot change."""

import inspect
import logging
import warnings
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

from .gap import Gap


def _ignore(message: str) -> Callable[[ModuleType], None]:
    """A patch that makes Python ignore the warnings that begin with ``message``, a regular expression."""
    return lambda module: warnings.filterwarnings('ignore', message=message)


def _num_anchors_warns() -> bool:
    from mmdet.models.dense_heads.anchor_head import AnchorHead

    head = SimpleNamespace(prior_generator=SimpleNamespace(num_base_priors=[1]))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        AnchorHead.num_anchors.fget(head)
    return bool(said)


def _buffers_have_a_new_name() -> bool:
    from torch.nn.parallel import DistributedDataParallel

    return 'forward_sync_buffers' in inspect.signature(DistributedDataParallel).parameters


def _sets_threads() -> bool:
    from mmengine.utils.dl_utils import setup_env

    return 'MKL_NUM_THREADS' in inspect.getsource(setup_env)


def _file_client_warns() -> bool:
    from mmengine.fileio import file_client

    return 'print_log' in file_client.FileClient.__new__.__code__.co_names


def _drop_the_notice(module: ModuleType) -> None:
    original = module.print_log

    def print_log(msg: str, logger: Any = None, level: int = logging.INFO) -> None:
        if 'will be deprecated in future' not in str(msg):
            original(msg, logger, level)

    module.print_log = print_log


GAPS = [
    Gap(
        name='mmdet number of anchors',
        package='mmdet',
        why="mmdet's own heads ask for `num_anchors`, which warns that mmdet's heads should not",
        needed=_num_anchors_warns,
        patch=_ignore('DeprecationWarning: `num_anchors` is deprecated'),
        after='mmdet.models.dense_heads.anchor_head',
    ),
    Gap(
        name='mmengine buffers of processes',
        package='mmengine',
        why='mmengine wraps models with an argument that has a new name in torch, which warns of it in every process',
        needed=_buffers_have_a_new_name,
        patch=_ignore('`broadcast_buffers` is deprecated'),
        after='mmengine.model.wrappers.distributed',
    ),
    Gap(
        name='mmengine threads of processes',
        package='mmengine',
        why='mmengine warns in every process that it sets one thread, as torchrun does without a word',
        needed=_sets_threads,
        patch=_ignore('Setting (OMP|MKL)_NUM_THREADS environment variable'),
        after='mmengine.utils.dl_utils.setup_env',
    ),
    Gap(
        name='mmengine file client',
        package='mmengine',
        why="mmengine's checkpoint hook, logger hook and runner use FileClient, which warns that nobody should",
        needed=_file_client_warns,
        patch=_drop_the_notice,
        after='mmengine.fileio.file_client',
    ),
]
