"""Add florence_mm to mmengine's table of scopes, which ``_base_ = 'scope::...'`` and inferencers look up."""

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
    patch=_add,
    after='mmengine.config.utils',
)
