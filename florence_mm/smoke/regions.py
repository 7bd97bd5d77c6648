"""Generated region features for the generated pictures of a data set."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from florence_mm.config.pick import walk_steps
from florence_mm.formats.regions import Regions, RegionWriter

_SIZE = (96, 80)  # width and height of a picture
_REGIONS = 3
_PICTURES = ('*.png', '*.jpg')


def set_smoke_regions(dataset: Any, model: Mapping[str, Any], folder: Path) -> None:
    """Let the steps :class:`LoadRegions` of a data set read random regions of its generated pictures.

    Args:
        dataset (dict): Config of the data set, whose data is already generated.
        model (dict): Config of the model, with ``feature_dims`` and heads with ``num_classes``.
        folder (Path): Folder with the generated data.
    """
    steps = list(_steps(dataset))
    if not steps:
        return
    model = next((part for part in walk_steps(model) if 'feature_dims' in part), model)  # which may be in a re-ranker
    heads = (model.get('heads') or {}).values()
    num_classes = max((head.get('num_classes', 1) for head in heads), default=1)
    target = folder / 'regions'
    names = sorted({path.name for pattern in _PICTURES for path in folder.rglob(pattern)})
    rng = np.random.default_rng(0)
    with RegionWriter(target, [f'class {n}' for n in range(num_classes)]) as writer:
        for name in names:
            corners = np.sort(rng.uniform(0, 1, (2, _REGIONS, 2)), 0) * _SIZE
            features = rng.normal(size=(_REGIONS, model.get('feature_dims', 2048)))
            shares = rng.dirichlet(np.ones(1 + num_classes), _REGIONS)
            boxes = np.concatenate([corners[0], corners[1]], 1)
            writer.add(name, Regions(*(x.astype(np.float32) for x in (features, boxes, shares)), _SIZE))
    for step in steps:
        step.update(folder=str(target), images='')


def _steps(node: Any) -> Iterator[dict]:
    """Yield the configs of steps that read regions, in pipelines of all data sets inside."""
    if isinstance(node, (list, tuple)):
        for item in node:
            yield from _steps(item)
    elif isinstance(node, Mapping):
        if str(node.get('type')).rsplit('.', 1)[-1] == 'LoadRegions':
            yield node
        for value in node.values():
            yield from _steps(value)
