"""The rules of the house, read off every import: where things live and what may know what."""

import ast
import re
import runpy
from collections import Counter
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent
house = runpy.run_path(str(ROOT / 'tools/misc/house.py'))
Import, ORDER = house['Import'], house['ORDER']
folder_of, find_imports, find_modules = (house[name] for name in ('folder_of', 'find_imports', 'find_modules'))

#: What a folder must never import, whatever the order allows. '*' is every other folder.
NEVER = {
    'compat': ('*',),
    'models': ('datasets', 'formats', 'engine', 'evaluation', 'visualization'),
    'datasets': ('models', 'engine'),
    'visualization': ('models',),
    '*': ('apis', 'protocols', 'smoke', 'commands'),
}
#: All that code outside ``models`` may name of it: protocols, what works with any of their kind, reading of weights.
OPEN = (
    'models.precision',
    'models.protocol',
    'models.multimodal.protocol',
    'models.tokenizers.protocol',
    'models.tokenizers.words',
    'models.checkpoints',
)
#: Variables that hold a model or a part of one.
MODEL_NAMES = ('model', 'backbone', 'detector', 'image_encoder', 'text_encoder', 'retriever', 'matcher', 'head')

#: Tests that import nothing of the folder whose tests they lie among, and what they reach it by.
BY_OTHER_WAYS = {
    'test_commands/test_start.py': 'florence-mm and tools/ in other processes',
    'test_datasets/test_transforms/test_video_transforms.py': 'the registry of transforms',
    'test_engine/test_resume.py': 'tools/train.py in another process',
    'test_evaluation/test_metrics/test_recognition_metric.py': 'the registry of metrics',
    'test_models/test_compiled_wholes.py': 'engine/compiling.py, on the models of instances.py beside it',
    'test_models/test_coswin_in_openmmlab.py': 'the registry of models',
    'test_models/test_mmdet_models.py': 'configs of mmdet',
    'test_models/test_zero_shot_detector.py': 'coloured_boxes.py beside it',
}
#: Tests of what is no module of the package and no folder of the repository.
OF_THE_WHOLE = (
    'test_bad_inputs.py',
    'test_examples.py',
    'test_github.py',
    'test_house.py',
    'test_packaging.py',
    'test_page_commands.py',
    'test_scores.py',
    'test_tutorials.py',
)


def upward_arrows(imports):
    """Rule 1: a folder imports what stands below it in the order."""
    return {
        f'{source} imports {target}'
        for source, target, _ in imports
        if ORDER.index(folder_of(target)) > ORDER.index(folder_of(source))
    }


def circles(imports):
    """Rule 1: no file reaches itself."""
    return {f'{", ".join(circle)} import each other' for circle in house['find_circles'](imports)}


def forbidden_arrows(imports):
    """Rule 2: what never knows what."""
    return {
        f'{source} imports {target}'
        for source, target, _ in imports
        for kind in {source.partition('.')[0], '*'}
        # the entries from the shell use all that only users do otherwise
        if kind != '*' or source.partition('.')[0] not in ('commands', '__main__')
        for never in NEVER.get(kind, ())
        if target.partition('.')[0] != source.partition('.')[0] and never in ('*', target.partition('.')[0])
    }


def families_named(imports):
    """Rule 4: outside models, code names protocols and no family of models."""
    return {
        f'{source} imports {target}'
        for source, target, _ in imports
        if not _within(source, 'models') and _within(target, 'models') and not any(_within(target, o) for o in OPEN)
    }


def attributes_asked_for(root):
    """Rule 4: outside models, nobody asks a model whether it has an attribute; a protocol says it."""
    found = set()
    for path in [p for folder in ('florence_mm', 'tools', 'projects') for p in sorted((root / folder).rglob('*.py'))]:
        name = path.relative_to(root).as_posix()
        if name.startswith(('florence_mm/models/', 'florence_mm/compat/')):  # compat patches models of other packages
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Call) and getattr(node.func, 'id', '') in ('hasattr', 'getattr'):
                asked = ast.unparse(node.args[0])
                if asked.rpartition('.')[2].lstrip('_') in MODEL_NAMES:
                    found.add(f'{name} asks {node.func.id}({asked}, ...)')
    return found


def _within(module, package):
    return f'{module}.'.startswith(f'{package}.')


IMPORT_RULES = (upward_arrows, circles, forbidden_arrows, families_named)


def broken_rules(root):
    """All that breaks a rule in a checkout."""
    imports = find_imports(root / 'florence_mm')
    return set().union(*(rule(imports) for rule in IMPORT_RULES), attributes_asked_for(root))


def test_the_house_keeps_its_rules():
    assert broken_rules(ROOT) == set()


def test_every_folder_has_its_place_in_the_order():
    modules = find_modules()
    assert {folder_of(module) for module in modules} == set(ORDER)
    # a folder of models counts as one even where it has an __init__.py alone
    folders = {name for name, path in modules.items() if path.name == '__init__.py' and name.count('.') <= 1}
    assert {name for name in folders if '.' not in name or name.startswith('models.')} <= set(ORDER)


def test_the_page_shows_the_house():
    page = (ROOT / 'docs/architecture.md').read_text(encoding='utf-8')
    assert house['put_between'](page, house['make_table']()) == page, 'run python tools/misc/house.py --write'


def write(root, **files):
    """A package of these modules (dots as double underscores), each with its source, and what they need."""
    for name in [*files, *{entry for entry in ORDER if entry}]:
        path = root / 'florence_mm' / (name.replace('__', '/').replace('.', '/') + '.py')
        if name in ORDER and (ROOT / 'florence_mm' / name.replace('.', '/')).is_dir():
            path = path.with_suffix('') / '__init__.py'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files.get(name, ''), encoding='utf-8')
    (root / 'florence_mm/__init__.py').write_text('')
    return root


def test_each_kind_of_import_is_seen(tmp_path):
    source = '''"""florence_mm.ops.docstring is no import, nor is florence_mm.utils"""
import florence_mm.errors
import florence_mm.registry as own, torch
from florence_mm.language import labels, PROMPTS
from . import base
from .base import Thing
from .. import version
from ..formats.coco import read
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from florence_mm.utils.files import write
def late():
    """florence_mm.engine"""
    # florence_mm.apis
    from florence_mm import __version__
    name = 'florence_mm.ops.boxes:nms'
    text = 'florence_mm.engine is a folder'
    other = ['florence_mm.UniCL', 'florence_mm.smoke.run', 'florence_mm', 'mmdet.models', f'florence_mm.{name}']
__getattr__ = moved_names(__name__, {'A': 'florence_mm.models.detectors'})
'''
    files = {'datasets__one': source, 'datasets__base': '', 'language__labels': '', 'formats__coco': ''}
    write(tmp_path, **files, utils__files='', ops__boxes='', smoke__run='', engine__loops='')
    found = find_imports(tmp_path / 'florence_mm')
    assert [(line, target) for source, target, line in found if source == 'datasets.one'] == [
        (2, 'errors'),
        (3, 'registry'),
        (4, 'language'),
        (4, 'language.labels'),
        (5, 'datasets.base'),
        (6, 'datasets.base'),
        (7, 'version'),
        (8, 'formats.coco'),
        (11, 'utils.files'),
        (15, ''),
        (16, 'ops.boxes'),
        (18, 'smoke.run'),
    ]


def test_each_rule_sees_what_breaks_it(tmp_path):
    assert broken_rules(write(tmp_path)) == set()
    files = {
        'models__layers__block': 'from florence_mm.models.backbones import coswin',
        'models__backbones__coswin': '',
        'ops__deform': 'from florence_mm.compat import stand_in',
        'compat__stand_in': "NAME = 'florence_mm.ops.deform'",
        'utils__a': 'import florence_mm.utils.b',
        'utils__b': 'from .c import x',
        'utils__c': 'def late(): from . import a',
        'visualization__boxes': 'from florence_mm.models.protocol import ZeroShotModel',
        'apis__first_hour': 'from florence_mm.smoke import run\nfrom florence_mm.models.backbones.coswin import CoSwin',
        'engine__hook': "def run(self): hasattr(self.runner.model, 'x'), getattr(data, 'y', 0), hasattr(backbone, 'z')",
        'models__protocol': "def ask(model): return hasattr(model, 'x')",
    }
    assert broken_rules(write(tmp_path, **files)) == {
        'models.layers.block imports models.backbones.coswin',
        'compat.stand_in imports ops.deform',
        'compat.stand_in, ops.deform import each other',
        'utils.a, utils.b, utils.c import each other',
        'visualization.boxes imports models.protocol',
        'apis.first_hour imports smoke',
        'apis.first_hour imports models.backbones.coswin',
        'florence_mm/engine/hook.py asks hasattr(self.runner.model, ...)',
        'florence_mm/engine/hook.py asks hasattr(backbone, ...)',
    }


def test_files_are_short():
    lengths = {path: len(path.read_text(encoding='utf-8').splitlines()) for path in find_modules().values()}
    assert {path.relative_to(ROOT).as_posix(): length for path, length in lengths.items() if length > 360} == {}


def test_pages_name_files_by_the_place_they_have():
    inside = {entry.partition('.')[0] for entry in ORDER if (ROOT / 'florence_mm' / entry).is_dir()}
    outside = {'florence_mm', 'tools', 'tests', 'docs'}
    known = {path.name for folder in (*outside, 'configs', 'projects') for path in (ROOT / folder).rglob('*.py')}
    missing = []
    folders = [ROOT / folder for folder in ('docs', 'configs', 'projects')]
    for page in [*ROOT.glob('*.md'), *(page for folder in folders for page in folder.rglob('*.md'))]:
        for path in re.findall(r'(?<![\w./-])[\w-]+/[\w./-]*\w', page.read_text(encoding='utf-8')):
            start = path.partition('/')[0]
            if start in inside | outside and not (ROOT / ('florence_mm' if start in inside else '') / path).exists():
                missing.append(f'{page.relative_to(ROOT)}: {path}')
        for name in re.findall(r'`([a-z][\w-]*\.py)`', page.read_text(encoding='utf-8')):
            if name not in known:
                missing.append(f'{page.relative_to(ROOT)}: {name}')
    assert missing == []


def test_test_files_have_different_names():
    # of two with one name, pytest collects only the first and fails
    names = Counter(path.name for path in TESTS.rglob('test_*.py'))
    assert not [name for name, count in names.items() if count > 1]


def test_tests_lie_where_the_package_has_what_they_test():
    modules, elsewhere = find_modules(), set()
    for path in sorted(TESTS.rglob('test_*.py')):
        name = path.relative_to(TESTS).as_posix()
        folder = '/'.join(part.removeprefix('test_') for part in Path(name).parts[:-1])
        if not folder:
            tested = path.stem.removeprefix('test_')
            assert name in OF_THE_WHOLE or tested in modules or (ROOT / tested).is_dir(), f'{name} tests no module'
        elif folder == 'tools':
            continue
        else:
            assert (ROOT / 'florence_mm' / folder).is_dir(), f'{name} lies in a folder that the package does not have'
            named = {named for named, _, _ in house['_named'](ast.parse(path.read_text(encoding='utf-8')), ())}
            if not any(_within(other, f'florence_mm.{folder.replace("/", ".")}') for other in named):
                elsewhere.add(name)
    assert elsewhere == set(BY_OTHER_WAYS)


def test_the_table_goes_between_the_comments():
    begin, end, put = house['BEGIN'], house['END'], house['put_between']
    page = f'# x\n\n{begin}\nx\n{end}\n\nmore x\n'
    assert put(page, '| y |\n| z |') == f'# x\n\n{begin}\n| y |\n| z |\n{end}\n\nmore x\n'
    for wrong in ('', begin, f'{end}\n{begin}\n', page + page):
        with pytest.raises(ValueError, match=r'architecture.md must have the lines <!-- made by .* and <!-- end of'):
            put(wrong, '')
