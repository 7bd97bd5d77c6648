"""Bad inputs: config files that do not load, and arguments of tools that work with configs."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from florence_mm.config import arguments, load
from florence_mm.config.load import load_config
from florence_mm.errors import UsageError

from .case import BadInput

AREA = 'config files'
BASE = {'base.py': 'size = 3\nmodel = dict(type="UniCL")\n'}
CIRCLE = {'a.py': "_base_ = 'b.py'\n", 'b.py': "_base_ = ['c.py']\n", 'c.py': "_base_ = './a.py'\n"}
PURE = 'from mmengine.config import read_base\nwith read_base():\n    from .{} import *\n'

#: Files by name (a.py is loaded, or the first), and what the sentence says.
REFUSED: dict[str, tuple[dict[str, str | bytes], tuple[str, ...]]] = {
    'an empty file': ({'a.py': ''}, ('a.py', 'empty')),
    'comments alone': ({'a.py': '# to do\n'}, ('a.py', 'empty')),
    'a base that is missing': ({'a.py': "_base_ = ['nowhere.py']\n"}, ('nowhere.py', 'a.py', 'does not exist')),
    'a base of a base that is missing': (
        {'a.py': "_base_ = 'b.py'\n", 'b.py': "_base_ = 'nowhere.py'\n"},
        ('nowhere.py', 'b.py'),
    ),
    'bases in a circle': (CIRCLE, ('circle', 'a.py', 'b.py', 'c.py')),
    'a base that is the file itself': ({'a.py': "_base_ = 'a.py'\n"}, ('circle', 'a.py')),
    'modules in a circle': ({'a.py': PURE.format('b'), 'b.py': PURE.format('a')}, ('circle', 'a.py', 'b.py')),
    'a base that is a number': ({'a.py': '_base_ = 3\n'}, ('a.py', '_base_', '3')),
    'a base that is a dict': ({'a.py': '_base_ = dict(a=1)\n'}, ('a.py', '_base_')),
    'a base that is a name': ({'a.py': '_base_ = nothing\n'}, ('a.py', 'nothing')),
    'a base of a package that is not there': ({'a.py': "_base_ = 'no_package::x.py'\n"}, ('a.py', 'no_package')),
    'a base that a package lacks': ({'a.py': "_base_ = 'mmdet::no/such.py'\n"}, ('a.py', 'no/such.py')),
    'a folder as base': ({'a.py': "_base_ = '.'\n"}, ('a.py', 'does not exist')),
    'a base in another format': ({'a.py': "_base_ = 'b.txt'\n", 'b.txt': 'x = 1'}, ('b.txt', '.yaml')),
    'a bracket that is not closed': ({'a.py': 'x = 1\ny = dict(\n'}, ('a.py', 'line 2')),
    'a bracket that is not closed in a base': ({'a.py': "_base_ = 'b.py'\n", 'b.py': 'y = [\n'}, ('b.py', 'line 1')),
    'tabs and blanks': ({'a.py': 'if True:\n\tx = 1\n        y = 2\n'}, ('a.py', 'line 3')),
    'UTF-16': ({'a.py': 'x = 1\n'.encode('utf-16')}, ('a.py', 'UTF-8')),
    'Latin-1': ({'a.py': 'x = "é"\n'.encode('latin-1')}, ('a.py', 'UTF-8')),
    'a NUL character': ({'a.py': 'x = 1\0\n'}, ('a.py', 'null')),
    'bytes of a checkpoint': ({'a.py': b'PK\x03\x04\xff\xfe' * 9}, ('a.py', 'UTF-8')),
    'an error while it runs': ({'a.py': 'x = 1\ny = x / 0\n'}, ('a.py', 'division by zero', 'line 2')),
    'a name that is not there': ({'a.py': 'x = dict(a=missing)\n'}, ('a.py', 'missing')),
    'it ends the program': ({'a.py': 'import sys\nsys.exit(0)\n'}, ('a.py', 'line 2', 'exit')),
    'a base ends the program': ({'a.py': "_base_ = 'b.py'\n", 'b.py': 'raise SystemExit(1)\n'}, ('b.py', 'line 1')),
    'it never ends': ({'a.py': 'x = 0\nwhile True:\n    x += 1\n'}, ('a.py', 'not done', 'line')),
    'it sleeps': ({'a.py': 'import time\ntime.sleep(99)\n'}, ('a.py', 'not done', 'line 2')),
    'a base value times two': (BASE | {'a.py': "_base_ = 'base.py'\nx = {{_base_.size}} * 2\n"}, ('size', 'line 2')),
    'a base value in a condition': (
        BASE | {'a.py': "_base_ = 'base.py'\nx = 1 if {{_base_.size}} else 2\n"},
        ('size', 'line 2'),
    ),
    'a base value as an argument': (BASE | {'a.py': "_base_ = 'base.py'\nx = max({{_base_.size}}, 2)\n"}, ('size',)),
    'a base value in a text': (BASE | {'a.py': "_base_ = 'base.py'\nx = '{{_base_.size}} px'\n"}, ('x', 'size')),
    'a base value in a list in a list': (
        BASE | {'a.py': "_base_ = 'base.py'\nx = dict(a=[(1, {{_base_.size}} + 1)])\n"},
        ('size', 'line 2'),
    ),
    'a base value that is not there': (BASE | {'a.py': "_base_ = 'base.py'\nx = {{_base_.sice}}\n"}, ('a.py', 'sice')),
    'a placeholder that is none': (
        {'a.py': "x = dict(folder='data/{{ fileBaseName }}')\n"},
        ('x.folder', 'fileBasename'),
    ),
    'JSON that is cut': ({'a.json': '{"model": {'}, ('a.json',)),
    'YAML that is none': ({'a.yaml': 'a: [1\nb: }\n'}, ('a.yaml',)),
    'no config at all': ({'a.txt': 'x = 1\n'}, ('a.txt', '.py')),
    'custom_imports is a text': (
        {'a.py': "custom_imports = 'module'\n"},
        ('custom_imports', "'module'", 'dict(imports'),
    ),
    'custom_imports is a list': ({'a.py': "custom_imports = ['module']\n"}, ('custom_imports', 'dict(imports')),
    'custom_imports of numbers': ({'a.py': 'custom_imports = dict(imports=[3])\n'}, ('custom_imports', '3')),
    'custom_imports misspelt': ({'a.py': "custom_imports = dict(import_=['x'])\n"}, ('custom_imports', 'import_')),
    'custom_imports of nothing': (
        {'a.py': "custom_imports = dict(imports=['no_module'])\n"},
        ('no_module', 'PYTHONPATH'),
    ),
}
#: Files, the key that is looked at, and its value.
READ: dict[str, tuple[dict[str, str | bytes], str, Any]] = {
    'a byte-order mark': ({'a.py': b'\xef\xbb\xbfx = 1\n'}, 'x', 1),
    'a byte-order mark in a base': ({'a.py': "_base_ = 'b.py'\ny = 1\n", 'b.py': b'\xef\xbb\xbfx = 2\n'}, 'x', 2),
    'lines of Windows': ({'a.py': b"_base_ = 'base.py'\r\nx = 1\r\n", **BASE}, 'size', 3),
    'an import above the base': (
        {'a.py': "import numpy\n_base_ = 'base.py'\n", **BASE},
        'size',
        3,
    ),
    'an import in a base': ({'a.py': "_base_ = 'b.py'\n", 'b.py': 'import torch\nx = torch.finfo().bits\n'}, 'x', 32),
    'a base value by itself': (BASE | {'a.py': "_base_ = 'base.py'\nx = [{{_base_.size}}]\n"}, 'x', [3]),
    'a base value without braces': (BASE | {'a.py': "_base_ = 'base.py'\nx = _base_.size * 2\n"}, 'x', 6),
    'the name of the file': ({'a.py': "x = '{{fileBasenameNoExtension}}'\n"}, 'x', 'a'),
    'braces of a prompt': ({'a.py': "x = 'a photo of a {}.'\n"}, 'x', 'a photo of a {}.'),
    'braces that a format keeps': ({'a.py': "x = '{{}} and {}'\n"}, 'x', '{{}} and {}'),
    'one base twice': (
        {'a.py': "_base_ = ['b.py', 'c.py']\n", 'b.py': 'x = 1\n', 'c.py': "_base_ = 'd.py'\n", 'd.py': 'y = 2\n'},
        'y',
        2,
    ),
    'a module beside the config': (
        {'a.py': "custom_imports = dict(imports=['beside'])\nx = 1\n", 'beside.py': 'VALUE = 1\n'},
        'x',
        1,
    ),
}
#: Arguments of tools: the type, and texts that it refuses.
ARGUMENTS: dict[str, tuple[Callable[[str], Any], tuple[str, ...]]] = {
    'a count': (arguments.positive_int, ('0', '-1', '1.5', 'two', 'nan', '')),
    'a start': (arguments.non_negative_int, ('-1', '0.5', 'inf')),
    'a share': (arguments.probability, ('-0.1', '1.01', 'nan', 'half')),
    'a seed': (arguments.seed, ('-1', '4294967296', '1e3', 'x')),
    'a rate': (arguments.positive_float, ('0', '-1', 'nan', 'inf', 'x')),
    'a device': (arguments.device, ('foo', 'cuda:77', 'cuda:x', '', 'gpu')),
}


def _loaded(files: dict[str, str | bytes], key: str | None = None) -> Callable[[Path], Any]:
    def run(folder: Path) -> Any:
        for name, content in files.items():
            (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        load.TIME_LIMIT = 1.0
        first = 'a.py' if 'a.py' in files else next(iter(files))
        cfg = load_config(folder / first)
        return cfg if key is None else cfg[key]

    return run


def _argument(convert: Callable[[str], Any], text: str) -> Callable[[Path], Any]:
    def run(folder: Path) -> Any:
        parser = argparse.ArgumentParser(exit_on_error=False)
        parser.add_argument('--option', type=convert)
        try:
            return parser.parse_args([f'--option={text}']).option
        except argparse.ArgumentError as error:  # a tool prints it and ends with status 2
            raise UsageError(str(error)) from error

    return run


def cases() -> list[BadInput]:
    """All rows."""
    rows = [BadInput(words, _loaded(files), says=says) for words, (files, says) in REFUSED.items()]
    rows += [BadInput(words, _loaded(files, key), gives=value) for words, (files, key, value) in READ.items()]
    rows.append(BadInput('a path that is not there', lambda folder: load_config('no.py'), says='no.py'))
    rows.append(BadInput('a folder', lambda folder: load_config(folder), says='does not exist'))
    rows.append(
        BadInput('a package that is not there', lambda folder: load_config('no_package::a.py'), says='no_package')
    )
    for what, (convert, texts) in ARGUMENTS.items():
        rows += [BadInput(f'{what}: {text!r}', _argument(convert, text), says=f'{text!r}') for text in texts]
    return rows
