"""mmengine resolves ``_base_ = 'scope::...'`` and inferencers only for scopes of a table of its own."""

from types import ModuleType

from .gap import Gap


def _unknown() -> bool:
    from mmengine.config.utils import MODULE2PACKAGE

    return 'florence_mm' not in MODULE2PACKAGE


def _add(module: ModuleType) -> None:
    module.MODULE2PACKAGE['florence_mm'] = 'florence_mm'


GAP = Gap(
    name='mmengine package table',
    package='mmengine',
    why='florence_mm is not in mmengine.config.utils.MODULE2PACKAGE, so _base_ = "florence_mm::..." is refused',
    needed=_unknown,
    mend=_add,
    after='mmengine.config.utils',
)
