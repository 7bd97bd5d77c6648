"""Names that numpy 2 removed and modules of OpenMMLab still use, mostly at the end of a validation.

Only these modules get them back, by a stand-in for their global ``np``; numpy itself stays as it is. The modules are
those that a scan of the packages finds; ``tests/test_compat/test_numpy_names.py`` repeats it.
"""

from types import ModuleType
from typing import Any

import numpy as np

from .gap import Gap, after_import

#: removed name: the name of today
NAMES = {
    'Inf': 'inf',
    'NAN': 'nan',
    'NaN': 'nan',
    'bool': 'bool_',
    'float': 'float64',
    'float_': 'float64',
    'in1d': 'isin',
    'int': 'int_',
    'object': 'object_',
    'product': 'prod',
    'row_stack': 'vstack',
    'trapz': 'trapezoid',
}
#: modules that use one of them, by package
MODULES = {
    'mmcv': ('mmcv.ops.pixel_group',),
    'mmdet': ('mmdet.evaluation.functional.ytviseval',),
    'mmaction': (
        'mmaction.datasets.transforms.pose_transforms',
        'mmaction.evaluation.functional.accuracy',
        'mmaction.evaluation.functional.ava_evaluation.metrics',
        'mmaction.evaluation.metrics.multimodal_metric',
        'mmaction.utils.misc',
    ),
    'mmpretrain': ('mmpretrain.evaluation.metrics.retrieval',),
}


class _Numpy(ModuleType):
    """numpy, and the removed names."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name if hasattr(np, name) else NAMES.get(name, name))


_NUMPY = _Numpy('numpy')


def _names_are_missing() -> bool:
    return not all(hasattr(np, name) for name in NAMES)


def _give_names(module: ModuleType) -> None:
    module.np = _NUMPY


def _gap(package: str) -> Gap:
    def patch() -> None:
        for module in MODULES[package]:
            after_import(module, _give_names)

    return Gap(
        name=f'numpy names, {package}',
        package=package,
        why='it uses names that numpy 2 removed, such as np.in1d and np.trapz',
        needed=_names_are_missing,
        patch=patch,
    )


GAPS = [_gap(package) for package in MODULES]
