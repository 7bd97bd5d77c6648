"""Check that requirements/constraints.txt resolves on every supported Python without installing anything.

First, that no pin can silently drag an old release in: pip takes an older release of what an extra names where a pin
excludes the newer ones and no lower bound stops it. So each requirement of an extra has a lower bound and a pin above
it.

Then, for each version, pip finds a wheel for each pin, and what the pinned packages require of each other is compared
with the pins. torch is left out of the download (its default wheel is gigabytes); its own requirements are read from
the installed one. Usage: python tools/misc/check_pins.py [3.10 3.12 ...]
"""

import argparse
import importlib.metadata
import json
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

import setuptools
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / 'requirements/constraints.txt'
#: What a user builds: it has no wheel to pin.
OWN_BUILDS = ('mmcv',)
PYTHONS = ('3.10', '3.11', '3.12', '3.13')


def environment_of(python: str) -> dict[str, str]:
    """Values that markers of requirements are evaluated with, on another Python."""
    return {**default_environment(), 'python_version': python, 'python_full_version': f'{python}.0', 'extra': ''}


def pins_for(python: str) -> dict[str, Requirement]:
    """Pins whose marker holds on ``python``, by canonical name."""
    environment = environment_of(python)
    pins = {}
    for line in CONSTRAINTS.read_text().splitlines():
        if line and not line.startswith('#'):
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate(environment):
                pins[canonicalize_name(requirement.name)] = requirement
    return pins


def wheel_requirements(python: str, pins: dict[str, Requirement]) -> dict[str, list[str]]:
    """What each pinned package requires, as pip reports it; raises RuntimeError where a pin has no wheel."""
    with tempfile.TemporaryDirectory() as folder:
        # fmt: off
        command = [
            sys.executable, '-m', 'pip', 'install', '-q', '--dry-run', '--no-deps', '--ignore-installed',
            # pip compares some packages with its own Python rather than with the named one: compared below
            '--only-binary=:all:', '--ignore-requires-python', '--python-version', python,
            '--target', folder, '--report', f'{folder}/report.json',
            *(f'{pin.name}{pin.specifier}' for name, pin in pins.items() if name != 'torch'),
        ]
        # fmt: on
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            errors = [line for line in result.stderr.splitlines() if line.startswith('ERROR')]
            raise RuntimeError(errors[-1] if errors else result.stderr[-300:])
        report = json.loads(Path(folder, 'report.json').read_text())
    metadata = [item['metadata'] for item in report['install']]
    for item in metadata:
        if f'{python}.0' not in SpecifierSet(item.get('requires_python', '')):
            raise RuntimeError(f'{item["name"]} {item["version"]} requires Python {item["requires_python"]}')
    requires = {canonicalize_name(item['name']): item.get('requires_dist', []) for item in metadata}
    requires['torch'] = importlib.metadata.requires('torch') or []
    return requires


def conflicts(python: str) -> list[str]:
    """One sentence for each pin that contradicts or lacks what another package requires."""
    pins = pins_for(python)
    environment = environment_of(python)
    found = []
    for package, requirements in wheel_requirements(python, pins).items():
        for text in requirements:
            requirement = Requirement(text)
            if requirement.marker is not None and not requirement.marker.evaluate(environment):
                continue
            pin = pins.get(canonicalize_name(requirement.name))
            if pin is None:
                if canonicalize_name(requirement.name) != 'pip':
                    found.append(f'{package} requires {requirement}, which has no pin')
            elif not requirement.specifier.contains(str(pin.specifier).removeprefix('=='), prereleases=True):
                found.append(f'{package} requires {requirement}, but the pin is {pin}')
    return found


def extras_of_setup() -> dict[str, list[str]]:
    """Requirements of each extra in setup.py."""
    arguments: dict = {}
    before, setuptools.setup = setuptools.setup, arguments.update
    try:
        runpy.run_path(str(ROOT / 'setup.py'))
    finally:
        setuptools.setup = before
    return arguments['extras_require']


def old_releases(extras: dict[str, list[str]], pins: dict[str, Requirement], python: str) -> list[str]:
    """One sentence for each requirement of an extra that could be met by an old release.

    Args:
        extras: requirements by extra.
        pins: see :func:`pins_for`.
        python: version, for markers.
    """
    environment = environment_of(python)
    found = {}
    for extra, texts in extras.items():
        for text in texts:
            requirement = Requirement(text)
            if requirement.marker is not None and not requirement.marker.evaluate(environment):
                continue
            name, pin = canonicalize_name(requirement.name), pins.get(canonicalize_name(requirement.name))
            if not any(bound.operator in ('>=', '>', '==', '===', '~=') for bound in requirement.specifier):
                found[name] = f'{extra} requires {text} without a lower bound'
            elif name in OWN_BUILDS:
                continue
            elif pin is None:
                found[name] = f'{extra} requires {text}, which has no pin'
            elif not requirement.specifier.contains(str(pin.specifier).removeprefix('=='), prereleases=True):
                found[name] = f'{extra} requires {text}, but the pin is {pin.name}{pin.specifier}'
    return list(found.values())


def main() -> int:
    """Print a line for each Python; exit status 1 where a pin does not resolve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('pythons', nargs='*', default=PYTHONS)
    failed, extras = False, extras_of_setup()
    for python in parser.parse_args().pythons:
        try:
            problems = [*old_releases(extras, pins_for(python), python), *conflicts(python)]
        except RuntimeError as error:
            problems = [str(error)]
        failed |= bool(problems)
        print(f'Python {python}: ' + ('; '.join(problems) or f'{len(pins_for(python))} pins resolve'), flush=True)
    return int(failed)


if __name__ == '__main__':
    sys.exit(main())
