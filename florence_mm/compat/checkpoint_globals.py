"""Put mmengine's ``HistoryBuffer`` on torch's allow-list: its checkpoints hold the log history.

``weights_only=True`` stays on. The history pickles its own methods through ``builtins.getattr``, which is replaced by a
function that returns methods of ``HistoryBuffer`` and nothing else.
"""

from types import ModuleType
from typing import Any

import numpy as np
import torch

from .gap import Gap


def _history_method(owner: Any, name: str) -> Any:
    from mmengine.logging import HistoryBuffer

    HistoryBuffer()  # the first instance registers the statistics of the class; a resuming process has none yet
    if owner is not HistoryBuffer or name not in HistoryBuffer._statistics_methods:
        raise ValueError(f'the checkpoint asks for {name!r} of {owner!r}; only statistics of HistoryBuffer are allowed')
    return HistoryBuffer._statistics_methods[name]


def _allow(module: ModuleType) -> None:
    reconstruct = np.empty(0).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    dtypes = {type(np.dtype(name)) for name in ('bool', 'uint8', 'int32', 'int64', 'float16', 'float32', 'float64')}
    names = [(reconstruct, f'numpy.{core}.multiarray._reconstruct') for core in ('core', '_core')]
    names += [(scalar, f'numpy.{core}.multiarray.scalar') for core in ('core', '_core')]
    torch.serialization.add_safe_globals(
        [module.HistoryBuffer, np.ndarray, np.dtype, slice, *dtypes, *names, (_history_method, 'builtins.getattr')]
    )


def _refused() -> bool:
    return not any(
        getattr(entry, '__name__', '') == 'HistoryBuffer' for entry in torch.serialization.get_safe_globals()
    )


GAP = Gap(
    name='mmengine checkpoints',
    package='mmengine',
    why='torch.load(weights_only=True) refuses the log history that mmengine stores, so nothing resumes',
    needed=_refused,
    patch=_allow,
    after='mmengine.logging.history_buffer',
)
