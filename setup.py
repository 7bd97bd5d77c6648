"""Build script: metadata, dependency ranges and package data. Exact pins are in requirements/constraints.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r"__version__ = '(.+)'", (HERE / 'florence_mm/version.py').read_text())[1]

# florence_mm/.mim holds links to configs, tools and model-index.yml. A wheel gets the files they point to;
# an editable install follows the links.
MIM = [
    str(path.relative_to(HERE / 'florence_mm'))
    for folder in ('configs', 'tools')
    for path in sorted((HERE / 'florence_mm/.mim' / folder).rglob('*'))
    if path.suffix in {'.py', '.yml', '.md', '.sh'}
]

# stage B of the data engine, on one machine and on a cluster
CURATE = ['duckdb>=1.4']
CLUSTER = ['daft>=0.7', 'ray>=2.50']
DEMO = ['gradio>=6.29,<7']
EXPORT = ['onnx>=1.20', 'onnxruntime>=1.22', 'onnxscript>=0.6', 'openvino>=2026.2', 'nncf>=3.2']
SEARCH = ['faiss-cpu>=1.9']
# dependency parses of texts, for the filters of annotations; its models are installed apart
PARSE = ['spacy>=3.8']
DOCS = ['mkdocs-material>=9.7; python_version >= "3.11"', 'mkdocstrings-python>=2; python_version >= "3.11"']
# computes the protocol of LVIS too, which our average precision is compared with; reads the shards that we write
PEERS = ['faster-coco-eval>=1.8,<1.9', 'webdataset>=1']
TEST = ['pytest>=8', 'pytest-timeout>=2.3', 'pytest-xdist>=3.8', 'ruff>=0.6', *PEERS]

setup(
    name='florence_mm',
    version=VERSION,
    description='Florence, a vision foundation model, as an OpenMMLab toolbox',
    long_description=(HERE / 'README.md').read_text(encoding='utf-8') if (HERE / 'README.md').exists() else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10,<3.14',
    packages=find_packages(include=['florence_mm', 'florence_mm.*']),
    entry_points={'console_scripts': ['florence-mm = florence_mm.commands.main:main']},
    package_data={'florence_mm': [*MIM, '.mim/model-index.yml', 'language/clip_prompts.json']},
    install_requires=[
        'torch>=2.7',
        'torchvision',
        'mmengine>=0.10.7,<0.11',
        'mmdet>=3.3.0,<3.4',
        'mmaction2>=1.2.0,<1.3',
        'mmpretrain>=1.2.0,<1.3',
        'av>=17.1',
        'numpy>=1.26',
        'opencv-python>=4.8',
        'ftfy>=6.1',
        'fsspec',
        'ijson>=3.3',
        'matplotlib>=3.8',
        'open_clip_torch>=2.24',
        'packaging>=23',
        'pandas>=2.2',
        'pillow>=10',
        'pyarrow>=15',
        'pyyaml>=6.0',
        'regex>=2023.6.3',
        'safetensors>=0.4',
        'scikit-learn>=1.4',
        'scipy>=1.11',
        'shtab>=1.7',
        'threadpoolctl>=3.1',
        'tokenizers>=0.15',
        'huggingface_hub>=0.23',
        'transformers>=4.40',
    ],
    extras_require={
        # one of the two; never both, they share the module mmcv
        'lite': ['mmcv-lite>=2.1.0,<2.2'],
        'mmcv': ['mmcv>=2.1.0,<2.2'],
        # lower bounds everywhere: without them the pins make pip fall back to old releases silently
        'curate': CURATE,
        'cluster': CLUSTER,
        'demo': DEMO,
        'export': EXPORT,
        'search': SEARCH,
        'parse': PARSE,
        'docs': DOCS,
        # backends of mmengine for logs
        'tensorboard': ['tensorboard>=2.20'],
        'wandb': ['wandb>=0.21'],
        'test': [*CURATE, *CLUSTER, *DEMO, *EXPORT, *SEARCH, *DOCS, *TEST],
        # a test of the page in a browser; the browser is the system's Chromium
        'browser': ['playwright>=1.55'],
    },
)
