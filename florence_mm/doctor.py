"""``florence-mm doctor``: what is installed, which gaps are patched and why, and how to fix conflicts."""

import importlib
import importlib.metadata
import platform
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from florence_mm.compat import mmcv_ext
from florence_mm.compat.gap import Gap
from florence_mm.version import __version__

#: distributions whose versions are printed and whose requirements of each other are checked
# fmt: off
STACK = (
    'torch', 'torchvision', 'mmengine', 'mmcv', 'mmcv-lite', 'mmdet', 'mmaction2', 'mmpretrain', 'numpy',
    'opencv-python', 'opencv-contrib-python', 'opencv-python-headless', 'open_clip_torch', 'timm', 'transformers',
    'tokenizers', 'scikit-learn', 'pandas', 'pyarrow', 'safetensors', 'setuptools',
)
# fmt: on
#: modules that must import for the toolbox to work; without the first, none of the others does
MODULES = ('torch', 'torchvision', 'mmcv', 'mmcv.ops', 'mmpretrain.models', 'mmdet.models', 'mmaction.models')
PYTHONS = (3, 10), (3, 13)


@dataclass
class Conflict:
    """A version or import that does not fit, and the exact command that fixes it."""

    problem: str
    command: str


def pip_command(*requirements: str, verb: str = 'install') -> str:
    """Write a command line for this interpreter's pip."""
    return ' '.join([sys.executable, '-m', 'pip', verb, *(f"'{text}'" for text in requirements)])


def installed_versions() -> dict[str, str]:
    """Find the installed distributions of the stack and their versions."""
    versions = {}
    for name in STACK:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def find_conflicts(versions: dict[str, str], python: tuple[int, int] = sys.version_info[:2]) -> Iterator[Conflict]:
    """Find conflicts among ``versions`` (name to version) without importing any of the packages."""
    oldest, newest = PYTHONS
    if not oldest <= python <= newest:
        text = f'Python {python[0]}.{python[1]} is not supported, 3.10 to 3.13 are'
        yield Conflict(text, 'make quickstart PYTHON=python3.11')
    if 'mmcv' in versions and 'mmcv-lite' in versions:
        # both install the module mmcv: uninstalling one removes files of the other, so mmcv is installed again
        uninstall = pip_command('mmcv-lite', verb='uninstall -y')
        restore = pip_command(f'mmcv=={versions["mmcv"]}', verb='install --force-reinstall --no-deps')
        yield Conflict('mmcv and mmcv-lite are both installed and overwrite each other', f'{uninstall} && {restore}')
    elif 'mmcv' not in versions and 'mmcv-lite' not in versions:
        yield Conflict('mmcv is not installed', pip_command('mmcv-lite==2.1.0'))
    for name in ('mmcv', 'mmcv-lite'):
        if name in versions and not Version('2.1') <= Version(versions[name]) < Version('2.2'):
            text = f'{name} {versions[name]} is outside 2.1.x, which mmdet 3.3 and mmaction2 1.2 insist on'
            yield Conflict(text, pip_command(f'{name}==2.1.0'))
    builds = {versions[name] for name in versions if name.startswith('opencv-')}
    if len(builds) > 1:
        newest_build = max(builds, key=Version)
        names = [name for name in versions if name.startswith('opencv-')]
        text = f'{" and ".join(names)} share the module cv2 but have versions {", ".join(sorted(builds))}'
        yield Conflict(text, pip_command(*(f'{name}=={newest_build}' for name in names)))
    yield from _unmet_requirements(versions)


def _unmet_requirements(versions: dict[str, str]) -> Iterator[Conflict]:
    """Requirements of the installed packages and of florence_mm that the installed versions do not meet."""
    canonical = {canonicalize_name(name): version for name, version in versions.items()}
    stack = {canonicalize_name(name) for name in STACK}
    for package in ('florence_mm', *versions):
        try:
            requires = importlib.metadata.requires(package) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for text in requires:
            requirement = Requirement(text)
            name = canonicalize_name(requirement.name)
            if name not in stack or requirement.marker is not None and not requirement.marker.evaluate({'extra': ''}):
                continue
            wanted = f'{requirement.name}{requirement.specifier}'
            if name not in canonical:
                yield Conflict(f'{package} requires {wanted}, which is not installed', pip_command(wanted))
            elif not requirement.specifier.contains(canonical[name], prereleases=True):
                text = f'{package} requires {wanted}, but {canonical[name]} is installed'
                yield Conflict(text, pip_command(wanted))


def failed_imports() -> Iterator[Conflict]:
    """Find the modules of the stack that fail to import although all patches are applied."""
    for module in MODULES:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                importlib.import_module(module)
        except Exception as error:  # any failure of a foreign import is what is to be reported
            package = module.partition('.')[0]
            distribution = {'mmaction': 'mmaction2', 'mmcv': 'mmcv' if mmcv_ext.is_compiled() else 'mmcv-lite'}
            line = (str(error).strip() or type(error).__name__).splitlines()[0]
            command = pip_command(distribution.get(package, package), verb='install --force-reinstall --no-deps')
            yield Conflict(f'{module} does not import: {line}', command)
            if module == MODULES[0]:
                return


def operator_sources() -> dict[str, str]:
    """Say which implementation each group of operators uses."""
    compiled = mmcv_ext.is_compiled()
    provided = ', '.join(sorted(mmcv_ext.PROVIDED)) or 'none'
    return {
        'window attention, contrastive loss': 'florence_mm.ops (torch)',
        'deformable convolution': 'florence_mm.ops (torch)' + (', compiled mmcv on CUDA' if compiled else ''),
        'mmcv.ops': 'compiled mmcv' if compiled else f'stand-in; provided by florence_mm: {provided}',
        'torchvision.ops': 'names only, a call raises' if _vision_is_patched() else 'compiled torchvision',
    }


def advice(versions: dict[str, str]) -> Iterator[str]:
    """Say what works with florence_mm and fails in scripts that do not import it first."""
    if _vision_is_patched():
        command = pip_command(f'torchvision=={versions["torchvision"]}', verb='install --force-reinstall --no-deps')
        yield (
            f'torchvision {versions["torchvision"]} is built for another torch than {versions["torch"]}: a script that '
            'imports torchvision, timm or open_clip before florence_mm fails; import florence_mm first, or install '
            f'torchvision from where torch came: {command} --index-url <that of torch>'
        )


def _vision_is_patched() -> bool:
    return next(gap for gap in _gaps() if gap.name == 'torchvision operators').state == 'patched'


def _gaps() -> list[Gap]:
    """All gaps; their patches need torch, which may be what is missing."""
    from florence_mm.compat.gaps import GAPS

    return GAPS


def _print_patches(versions: dict[str, str]) -> None:
    print('\nGaps of these packages')
    for gap in _gaps():
        print(f'  {gap.name:24} {gap.state:14} {gap.why if gap.state == "patched" else ""}'.rstrip())
    print('\nOperators')
    for name, source in operator_sources().items():
        print(f'  {name:36} {source}')
    for sentence in advice(versions):
        print(f'\nNote: {sentence}')


def run() -> int:
    """Print the report; return 1 if there is a conflict, else 0."""
    versions = installed_versions()
    print(f'florence_mm {__version__}, Python {platform.python_version()}, {platform.platform()}')
    for name, version in versions.items():
        print(f'  {name:24} {version}')
    conflicts = [*find_conflicts(versions), *failed_imports()]
    if MODULES[0] in sys.modules:
        _print_patches(versions)
    if not conflicts:
        print('\nNo conflict found.')
        return 0
    print(f'\n{len(conflicts)} conflict(s)')
    for conflict in conflicts:
        print(f'  {conflict.problem}\n    fix it: {conflict.command}')
    return 1
