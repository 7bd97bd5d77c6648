"""What samples of our data sets hold, against what models and metrics of a config need."""

from collections.abc import Iterator, Mapping
from typing import Any

from .pick import type_name

#: What the samples of a data set hold. Others, of which nothing is known, fit everything.
_HOLDS = {
    'DetectionDataset': ('boxes',),
    'ImageFolderText': ('classes', 'texts'),
    'ImageTextManifest': ('classes', 'texts'),
    'ImageTextShards': ('classes', 'texts'),
    'TextManifest': ('texts',),
    'VideoList': ('classes', 'texts'),
    'VQADataset': ('questions',),
}
_METRICS = {
    'DetectionMetric': 'boxes',
    'CocoMetric': 'boxes',
    'ZeroShotAccuracy': 'classes',
    'ImageTextRecall': 'texts',
    'CaptionScores': 'texts',
    'VQAAccuracy': 'questions',
}
_MODELS = {'UniCL': 'texts'}
_HEADS = {'bbox_head': 'boxes', 'rpn_head': 'boxes', 'roi_head': 'boxes'}
_OF_METER = {
    'FusionVQAHead': 'questions',
    'FusionCaptionHead': 'texts',
    'FusionMLMHead': 'texts',
    'FusionITMHead': 'texts',
}
_SPLITS = ('train', 'val', 'test')


def role_problems(cfg: Mapping) -> Iterator[str]:
    """Yield one sentence for each metric or model whose data set holds nothing for it."""
    model = cfg.get('model')
    for split in _SPLITS:
        loader = cfg.get(f'{split}_dataloader')
        names = list(_innermost(loader.get('dataset'))) if isinstance(loader, Mapping) else []
        if not names or not all(name in _HOLDS for name in names):
            continue
        held = {word for name in names for word in _HOLDS[name]}
        where = f'{split}_dataloader.dataset'
        for path, name in _named(cfg.get(f'{split}_evaluator'), f'{split}_evaluator'):
            needed = _METRICS.get(name)
            if needed and needed not in held:
                yield _sentence(path, name, needed, where, names)
        if split == 'train' and isinstance(model, Mapping):
            needs = list(_needs(model))
            if needs and not any(needed in held for _, _, needed in needs):
                path, name, needed = needs[0]
                yield _sentence(path, name, needed, where, names)


def _sentence(path: str, name: str, needed: str, where: str, names: list[str]) -> str:
    held = ', '.join(dict.fromkeys(word for of in names for word in _HOLDS[of]))
    data = ', '.join(dict.fromkeys(names))
    return f'{path}: {name} needs {needed}, but {where} ({data}) has {held}; change one of them'


def _needs(model: Mapping) -> Iterator[tuple[str, str, str]]:
    """Position, class and need of the parts of a model that read what a sample holds."""
    if type_name(model) in _MODELS:
        yield 'model', type_name(model), _MODELS[type_name(model)]
    for key, needed in _HEADS.items():
        if isinstance(model.get(key), Mapping):
            yield f'model.{key}', type_name(model[key]), needed
    if isinstance(model.get('heads'), Mapping):
        for path, name in _named(list(model['heads'].values()), 'model.heads'):
            if name in _OF_METER:
                yield path.rsplit('.', 1)[0], name, _OF_METER[name]


def _innermost(dataset: Any) -> Iterator[str]:
    """Classes of the data sets inside wrappers."""
    if not isinstance(dataset, Mapping):
        return
    inner = dataset.get('datasets') or [dataset.get('dataset')]
    if inner == [None]:
        yield type_name(dataset)
    else:
        for one in inner:
            yield from _innermost(one)


def _named(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """Position and class of the dicts with a type in a dict or list."""
    if isinstance(node, (list, tuple)):
        for index, item in enumerate(node):
            yield from _named(item, f'{path}.{index}')
    elif isinstance(node, Mapping):
        if 'type' in node:
            yield path, type_name(node)
        yield from _named(node.get('metrics'), f'{path}.metrics')
