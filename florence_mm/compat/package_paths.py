"""Find installed packages by ``importlib`` instead of ``pkg_resources``, which setuptools 82 removed.

mmengine uses these three functions for ``mmdet::`` inheritance, ``hub.get_config`` and inferencers. Ours also find a
package that is installed in editable mode, which misleads ``pkg_resources``, or only on ``PYTHONPATH``.
"""

import importlib.metadata
import importlib.util
from pathlib import Path
from types import ModuleType

from .gap import Gap, replace_everywhere


def is_installed(package: str) -> bool:
    """Whether a distribution or a module has this name."""
    try:
        importlib.metadata.distribution(package)
        return True
    except importlib.metadata.PackageNotFoundError:
        spec = importlib.util.find_spec(package)
        return spec is not None and spec.origin is not None


def package2module(package: str) -> str:
    """Name of the module that a distribution installs.

    Raises:
        ValueError: the distribution names no top-level module.
    """
    names = (importlib.metadata.distribution(package).read_text('top_level.txt') or '').split()
    if not names:
        raise ValueError(f'can not infer the module name of {package}')
    return names[0]


def get_installed_path(package: str) -> str:
    """Folder of the module that a distribution installs, or of the module of this name.

    Raises:
        importlib.metadata.PackageNotFoundError: neither exists.
        RuntimeError: the module is a namespace package.
    """
    spec = importlib.util.find_spec(package)
    if spec is None:
        spec = importlib.util.find_spec(package2module(package))
    if spec.origin is None:
        raise RuntimeError(f'{package} is a namespace package, so it has no installed path')
    return str(Path(spec.origin).parent)


def _replace(module: ModuleType) -> None:
    for function in (is_installed, package2module, get_installed_path):
        replace_everywhere(module, function.__name__, function)


def _editable_or_no_pkg_resources() -> bool:
    # one editable install misleads the original for that package, so it is replaced whenever ours is editable
    if importlib.util.find_spec('pkg_resources') is None:
        return True
    try:
        files = importlib.metadata.files('florence_mm') or []
    except importlib.metadata.PackageNotFoundError:
        return True
    return not any(str(file) == 'florence_mm/__init__.py' for file in files)


GAP = Gap(
    name='mmengine package paths',
    package='mmengine',
    why='pkg_resources is gone or misled by an editable install, so _base_ = "mmdet::..." does not resolve',
    needed=_editable_or_no_pkg_resources,
    patch=_replace,
    after='mmengine.utils.package_utils',
)
