"""Build script; metadata stays here, tool settings in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r"__version__ = '(.+)'", (HERE / 'florence_mm/version.py').read_text())[1]

setup(
    name='florence_mm',
    version=VERSION,
    description='Florence, a vision foundation model, as an OpenMMLab toolbox',
    license='Apache-2.0',
    python_requires='>=3.10,<3.14',
    packages=find_packages(include=['florence_mm', 'florence_mm.*']),
)
