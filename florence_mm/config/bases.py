"""Inheritance of config files: which files a config is made of, found before any of them runs.

mmengine runs the files of a config one inside the other, so that its errors about one do not say which; here a file
that is missing, is not valid Python or inherits from itself is named.
"""

import ast
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from florence_mm.errors import UsageError

from .placeholders import check_expressions

BASE = '_base_'
_SUFFIXES = ('.py', '.yaml', '.yml', '.json')


def config_files(path: str | Path) -> list[Path]:
    """List the files that a config is made of, bases before the files that inherit from them.

    Args:
        path (str or Path): The config file.

    Raises:
        UsageError: a file does not exist, is no text in UTF-8, is not valid Python, has a ``_base_`` that is no path,
            or inherits from itself; the message names the file.
    """
    files: list[Path] = []
    _collect(Path(path), (), files)
    return files


def is_pure_python(path: str | Path) -> bool:
    """Whether a config is of mmengine's pure Python style, which imports its bases as modules.

    A config with ``_base_`` is not, wherever its imports stand; mmengine looks at what comes first.
    """
    path = Path(path)
    if path.suffix != '.py':
        return False
    return not any(_assigns_base(node) for node in _parse(path).body) and Config._is_lazy_import(str(path))


def _collect(path: Path, heirs: Sequence[Path], files: list[Path]) -> None:
    by = f', the {BASE} of {heirs[-1]},' if heirs else ''
    if not path.is_file():
        raise UsageError(f'config {path}{by} does not exist; check the path')
    if path.suffix not in _SUFFIXES:
        raise UsageError(f'config {path}{by} is no {", ".join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]} file; check the path')
    known = [heir.resolve() for heir in heirs]
    if path.resolve() in known:
        circle = [*heirs[known.index(path.resolve()) :], path]
        raise UsageError(f'configs inherit in a circle: {" from ".join(map(str, circle))}; remove one {BASE}')
    for base in _bases(path):
        _collect(base, (*heirs, path), files)
    if path not in files:
        files.append(path)


def _bases(path: Path) -> list[Path]:
    """The files that ``path`` names as its bases."""
    if path.suffix == '.py':
        tree = _parse(path)
        check_expressions(path, tree)
        if not any(_assigns_base(node) for node in tree.body):
            return _imported_bases(path, tree)
    try:
        named: list[Any] = Config._get_base_files(str(path))
    except Exception as error:  # mmengine runs the expression of a base, and reads YAML and JSON
        text = ' '.join(str(error).split())
        raise UsageError(f'config {path} cannot be read: {type(error).__name__}: {text}; correct it') from error
    bases = []
    for base in named:
        if not isinstance(base, str):
            raise UsageError(f'config {path}: {BASE} is the path of a file or a list of paths, not {base!r}')
        if '{{' not in base:  # else mmengine puts in a value when it reads the file
            bases.append(_resolve(base, path))
    return bases


def _resolve(base: str, path: Path) -> Path:
    package = base.partition('::')[0]
    if '::' in base and importlib.util.find_spec(package) is None:
        raise UsageError(f'config {path}: no package {package}, which its {BASE} {base!r} names, is installed')
    try:
        return Path(Config._get_cfg_path(base, str(path))[0])
    except (OSError, ValueError) as error:
        raise UsageError(f'config {path}: its {BASE} {base!r} is not found: {error}; check the path') from error


def _imported_bases(path: Path, tree: ast.Module) -> list[Path]:
    """The files that a config of the pure Python style imports by relative paths in ``with read_base():``."""
    imports = [node for block in tree.body if isinstance(block, ast.With) for node in block.body]
    bases = []
    for node in imports:
        if isinstance(node, ast.ImportFrom) and node.level and node.module:
            folder = path.parent.joinpath(*['..'] * (node.level - 1))
            bases.append(folder / f'{node.module.replace(".", "/")}.py')
    return bases


def _parse(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_text('utf-8-sig'), filename=str(path))
    except SyntaxError as error:
        place = f', line {error.lineno}' if error.lineno else ''
        raise UsageError(f'config {path}{place}: {error.msg}; correct the file') from error
    except UnicodeDecodeError as error:
        raise UsageError(f'config {path} is no text in UTF-8 ({error.reason}); save it as UTF-8') from error
    except (ValueError, RecursionError, MemoryError) as error:  # zero bytes; nesting beyond the parser
        raise UsageError(f'config {path} cannot be read as Python ({error}); correct the file') from error


def _assigns_base(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == BASE
