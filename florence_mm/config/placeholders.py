"""Placeholders of mmengine's configs, ``{{ _base_.x }}`` and others, where mmengine does not replace them.

mmengine puts a random text in the place of ``{{ _base_.x }}``, and the value in the place of that text once the file
has run. An expression with it would work with the random text.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from florence_mm.errors import UsageError

_BASE_VALUE = re.compile(r'\{\{\s*_base_\.([\w.]+)\s*\}\}')
_PLACEHOLDER = re.compile(r'\{\{\s*[\'"]?\s*[$\w][\w.:/ -]*[\'"]?\s*\}\}')


def check_expressions(file: Path, tree: ast.Module) -> None:
    """Refuse ``{{ _base_.x }}`` in an expression of a config file.

    Raises:
        UsageError: it is an operand, an argument, or part of anything but lists, tuples and dicts.
    """
    for parent in ast.walk(tree):
        allowed = _values(parent)
        for node in ast.iter_child_nodes(parent):
            name = _base_value(node)
            if name is not None and not any(node is value for value in allowed):
                raise UsageError(f'config {file}, line {node.lineno}: {_in_expression(name)}')


def check_placeholders(path: str | Path, files: list[Path], cfg: Config) -> None:
    """Refuse texts of a config that has been read in which a placeholder was not replaced.

    Args:
        path (str or Path): The config, for the message.
        files (list[Path]): Its files.
        cfg (Config): What mmengine made of them.

    Raises:
        UsageError: a text has ``{{ }}``, or what stands for it until it is replaced.
    """
    source = '\n'.join(file.read_text('utf-8-sig') for file in files)
    names = {name: re.compile(rf'_{re.escape(name)}_[0-9a-f]{{6}}') for name in _BASE_VALUE.findall(source)}
    for key, text in _texts(cfg._cfg_dict):
        name = next((name for name, pattern in names.items() if pattern.search(text)), None)
        if name is not None:
            raise UsageError(f'config {path}: {key} is {text!r}, because {_in_expression(name)}')
        if _PLACEHOLDER.search(text):
            raise UsageError(
                f'config {path}: {key} is {text!r}, in which {{{{ }}}} was not replaced; mmengine knows fileDirname, '
                'fileBasename, fileBasenameNoExtension, fileExtname, $VARIABLE:default and _base_.key'
            )


def _in_expression(name: str) -> str:
    return (
        f'{{{{_base_.{name}}}}} stands in an expression or text, where mmengine does not replace it; write '
        f'_base_.{name} there, without the braces'
    )


def _base_value(node: ast.AST) -> str | None:
    """``x.y`` if the node is ``{{_base_.x.y}}``, which Python reads as a set of a set."""
    for _ in range(2):
        if not isinstance(node, ast.Set) or len(node.elts) != 1:
            return None
        node = node.elts[0]
    text = ast.unparse(node)
    return text.removeprefix('_base_.') if text.startswith('_base_.') else None


def _values(parent: ast.AST) -> list[ast.AST | None]:
    """The children of a node whose value is stored in the config as it is."""
    if isinstance(parent, (ast.List, ast.Tuple)):
        return list(parent.elts)
    if isinstance(parent, ast.Dict):
        return list(parent.values)
    if isinstance(parent, (ast.Assign, ast.AnnAssign, ast.keyword)):
        return [parent.value]
    return []


def _texts(node: Any, path: str = '') -> Iterator[tuple[str, str]]:
    """Yield all texts of a config, keys included, with their dotted position."""
    if isinstance(node, str):
        yield path, node
    elif isinstance(node, (Mapping, list, tuple)):
        items = node.items() if isinstance(node, Mapping) else enumerate(node)
        for key, value in items:
            place = f'{path}.{key}' if path else str(key)
            if isinstance(key, str):
                yield place, key
            yield from _texts(value, place)
