"""Models by name: the entries of ``configs/*/metafile.yml``.

The form is that of OpenMMLab's model index. An entry of ``Models`` has, in YAML,

    - Name: clip_vit-b-32_openai            # unique; without weights of others it is the stem of the config's name
      In Collection: CLIP
      Config: configs/clip/clip_vit-b-32.py
      Metadata:
        Task: zero-shot-classification      # one of TASKS
        Parameters: 151277313
        FLOPs: 4363845632                   # multiply-adds (MACs), as in OpenMMLab's metafiles
        FLOPs Input: one image of 224 x 224 # of which it is the count
        Weights SHA256: 40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af
        Weights Licence: MIT
        Weights Layout: clip                # name of the checkpoint format; left out for our own
        Weights Source: https://github.com/openai/CLIP
      Weights: https://...                  # or hf://OWNER/REPO/FILE@REVISION, or 'embedded'
      Results:
        - Task: Zero-Shot Image Classification
          Dataset: ImageNet-1k
          Metrics: {Top 1 Accuracy: 63.3}

``Weights: embedded`` are those that ``make zoo`` trains and publishes on this machine.
"""

import fnmatch
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from florence_mm.errors import UsageError, shown
from florence_mm.utils.nearest import did_you_mean

#: ``configs``, ``tools`` and ``model-index.yml`` of the package, in a checkout links to them.
_ROOT = Path(__file__).resolve().parents[1] / '.mim'
EMBEDDED = 'embedded'
#: What a model does, as one of its entries' ``Task`` says.
TASKS = (
    'classification',
    'zero-shot-classification',
    'image-retrieval',
    'detection',
    'zero-shot-detection',
    'video-classification',
    'video-retrieval',
    'image-text-pretraining',
    'visual-question-answering',
    'captioning',
    'reranked-retrieval',
    'vision-tasks',
    'text-pretraining',
)
_CONFIG_SUFFIXES = ('.py', '.yaml', '.yml', '.json')


@dataclass(frozen=True)
class Weights:
    """The published weights of a model.

    Attributes:
        url: ``https://...``, ``hf://OWNER/REPO/FILE@REVISION``, or :data:`EMBEDDED`, published on this machine.
        sha256: hash of the file.
        licence: licence of the weights.
        layout: name of the checkpoint format; None for that of this package.
        source: page of their publisher.
    """

    url: str
    sha256: str | None = None
    licence: str | None = None
    layout: str | None = None
    source: str | None = None

    @property
    def embedded(self) -> bool:
        """Whether they are trained on embedded data and published on this machine."""
        return self.url == EMBEDDED


@dataclass(frozen=True)
class ModelEntry:
    """A model of a metafile.

    Attributes:
        name: its name.
        task: what it does, one of :data:`TASKS`.
        config: its config file.
        weights: its published weights; None without.
        results: its scores, as ``Task``, ``Dataset`` and ``Metrics`` of the metafile.
        parameters: number of its parameters.
        macs: multiply-adds of one call with ``macs_input``, half its FLOPs.
        macs_input: the input of that call, as in "one image of 224 x 224".
        collection: name of its family.
        metafile: the file that the entry is from.
    """

    name: str
    task: str
    config: Path
    weights: Weights | None
    results: tuple[Mapping[str, Any], ...]
    parameters: int | None
    macs: int | None
    macs_input: str | None
    collection: str
    metafile: Path


@functools.cache
def model_entries() -> dict[str, ModelEntry]:
    """Read the entries of all metafiles, by name."""
    found = {}
    for file in _read(_ROOT / 'model-index.yml')['Import']:
        metafile = _ROOT / file
        for model in _read(metafile)['Models']:
            found[model['Name']] = _entry(model, metafile)
    return found


def model_entry(name: str) -> ModelEntry:
    """Find the entry of a model.

    Raises:
        UsageError: there is none of that name.
    """
    entries = model_entries()
    if not isinstance(name, str) or name not in entries:
        raise UsageError(
            f'no model has the name {str(name)!r}{did_you_mean(str(name), entries)}; list_models() gives the names'
        )
    return entries[name]


def list_models(pattern: str | None = None, task: str | None = None, pretrained: bool | None = None) -> list[str]:
    """List the names of models, sorted.

    Args:
        pattern: a glob such as ``'*coswin-t*'``, or a part of the name; None: all.
        task: one of :data:`TASKS`; None: all.
        pretrained: only those with published weights (True), or without (False); None: both. Weights of embedded tasks
            count, which :func:`~florence_mm.apis.get_model` finds once ``make zoo`` has published them.

    Raises:
        UsageError: there is no such task, or another argument is of a wrong type.
    """
    if task is not None and task not in TASKS:
        raise UsageError(f'task {str(task)!r} is none of {", ".join(TASKS)}{did_you_mean(str(task), TASKS)}')
    if pattern is not None and not isinstance(pattern, str):
        raise UsageError(f'pattern is {shown(pattern)}; give a glob, as in "*coswin-t*", or a part of the name')
    if pretrained not in (None, True, False):
        raise UsageError(f'pretrained is {shown(pretrained)}; give True, False or None')
    glob = pattern if pattern is None or any(sign in pattern for sign in '*?[') else f'*{pattern}*'
    return sorted(
        entry.name
        for entry in model_entries().values()
        if (glob is None or fnmatch.fnmatchcase(entry.name.lower(), glob.lower()))
        and (task is None or entry.task == task)
        and (pretrained is None or (entry.weights is not None) == pretrained)
    )


def is_model_name(config: Any) -> bool:
    """Whether a config is given by the name of a model: a text that is neither a file nor looks like one."""
    if not isinstance(config, str) or '::' in config or '/' in config or config.endswith(_CONFIG_SUFFIXES):
        return False
    return config in model_entries() or not Path(config).exists()


def _read(path: Path) -> Any:
    # the loader in C is ten times as fast
    return yaml.load(path.read_text(encoding='utf-8'), getattr(yaml, 'CSafeLoader', yaml.SafeLoader))


def _entry(model: Mapping[str, Any], metafile: Path) -> ModelEntry:
    data = model.get('Metadata') or {}
    weights = None
    if model.get('Weights'):
        said = {key: data.get(f'Weights {name}') for key, name in _WEIGHTS.items()}
        weights = Weights(model['Weights'], **said)
    return ModelEntry(
        name=model['Name'],
        task=data['Task'],
        config=(_ROOT / model['Config']).resolve(),
        weights=weights,
        results=tuple(model.get('Results') or ()),
        parameters=data.get('Parameters'),
        macs=data.get('FLOPs'),
        macs_input=data.get('FLOPs Input'),
        collection=model['In Collection'],
        metafile=metafile,
    )


_WEIGHTS = {'sha256': 'SHA256', 'licence': 'Licence', 'layout': 'Layout', 'source': 'Source'}
