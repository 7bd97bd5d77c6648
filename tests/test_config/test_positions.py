"""No config, smoke section or command in the docs names a member of a list by its position."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = [*(ROOT / 'configs').rglob('*.py'), *(ROOT / 'projects').glob('*/configs/*.py')]
PAGES = [ROOT / 'README.md', *(ROOT / 'docs').glob('*.md'), *(ROOT / 'configs').rglob('*.md'), *CONFIGS]
PAGES += (ROOT / 'projects').rglob('*.md')
OPTION = re.compile(r'\b[a-z_]\w*(?:\.\w+)*\.-?\d+(?:\.[a-z_]\w*)*=')


def is_number(node):
    """Whether an expression is a whole number, or a slice with one."""
    if isinstance(node, ast.Slice):
        return any(is_number(part) for part in (node.lower, node.upper, node.step))
    if isinstance(node, ast.UnaryOp):
        return is_number(node.operand)
    return isinstance(node, ast.Constant) and isinstance(node.value, int)


def names_position(node):
    if isinstance(node, ast.Subscript):
        return is_number(node.slice)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr in ('insert', 'pop') and bool(node.args) and is_number(node.args[0])
    if isinstance(node, ast.Dict):
        keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
        return any(re.search(r'(^|\.)-?\d+(\.|$)', key) for key in keys if isinstance(key, str))
    return False


def positions(text):
    """Lines of a config that name a position."""
    return sorted({node.lineno for node in ast.walk(ast.parse(text)) if names_position(node)})


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_configs_name_no_position(path):
    # {{_base_.name}} is a set in a set for Python, which is as good here
    assert positions(path.read_text()) == []


def test_commands_name_no_position():
    found = {page.name: OPTION.findall(page.read_text()) for page in PAGES}
    assert {name: keys for name, keys in found.items() if keys} == {}


@pytest.mark.parametrize(
    'line',
    [
        'train_pipeline[1].update(scale=384)',
        "tta_pipeline[-1]['transforms'] = []",
        'train_pipeline = _base_.train_pipeline[2:]',
        'train_pipeline.insert(3, dict())',
        'train_pipeline.pop(-1)',
        "smoke = dict(train_dataloader=dict(dataset=dict(pipeline={'1': dict(clip_len=4)})))",
        "smoke = {'train_dataloader.dataset.pipeline.2.scale': 8}",
    ],
)
def test_what_is_a_position(line):
    assert positions(f'a = 1\n{line}\n') == [2]


def test_what_is_none():
    text = "a = b['c'].pop('d')\nd = {'layer4': 1, 'a.b': 2, 3: 4}\ne = {{_base_.model}}\nf = scales[i]\ng.insert(h, 1)"
    assert positions(text) == []
    assert OPTION.findall('--cfg-options param_scheduler.1.end=5 a.b.-1=2') == ['param_scheduler.1.end=', 'a.b.-1=']
    assert OPTION.findall('--cfg-options model.layer4.a=1 x.Resize.scale=8 torch==2.13.0 lr=1.5') == []
