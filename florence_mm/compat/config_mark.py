"""Read configs that begin with a byte-order mark, as editors on Windows write them."""

import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from .gap import Gap


def _refuses_mark() -> bool:
    from mmengine.config import config

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'marked.py'
        path.write_text('x = 1\n', encoding='utf-8-sig')
        try:
            config.Config._validate_py_syntax(str(path))
        except SyntaxError:
            return True
    return False


def _skip_mark(module: ModuleType) -> None:
    def open_without_mark(file: Any, mode: str = 'r', *args: Any, encoding: str | None = None, **kwargs: Any) -> Any:
        if encoding == 'utf-8' and mode == 'r':
            encoding = 'utf-8-sig'  # reads files without a mark too
        return Path(file).open(mode, *args, encoding=encoding, **kwargs)

    module.open = open_without_mark


GAP = Gap(
    name='mmengine configs with a mark',
    package='mmengine',
    why='mmengine reads a byte-order mark as part of a config and calls it a syntax error',
    needed=_refuses_mark,
    patch=_skip_mark,
    after='mmengine.config.config',
)
