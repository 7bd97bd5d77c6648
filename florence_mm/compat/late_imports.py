"""Let what takes seconds to import, and one run in a hundred uses, wait until it is used.

``mmengine.optim`` imports transformers for one optimizer and ``torch.distributed.optim`` for another,
``mmengine.model`` FSDP for a wrapper; torchvision imports the compiler and the ONNX exporter with its models and
operators; mmdet imports transformers and scikit-learn for five classes. Each of these takes as long as torch itself.
"""

import importlib.abc
import sys
from types import ModuleType
from typing import Any

from .gap import Gap, after_import, before_import, is_installed
from .late import late_class, late_modules, late_submodules

#: modules of mmengine whose classes only sharded runs use
SHARDED = (
    'mmengine.optim.optimizer.zero_optimizer',
    'mmengine.model.wrappers.fully_sharded_distributed',
    'mmengine._strategy.fsdp',
)
#: modules of mmdet that import transformers, scikit-learn or matplotlib's windows, and those that import one of them
RARE = (
    'mmdet.datasets.transforms.text_transformers',
    'mmdet.models.dense_heads.atss_vlfusion_head',
    'mmdet.models.dense_heads.grounding_dino_head',
    'mmdet.models.dense_heads.lad_head',
    'mmdet.models.dense_heads.paa_head',
    'mmdet.models.detectors.grounding_dino',
    'mmdet.models.language_models.bert',
    'mmdet.models.layers.transformer.grounding_dino_layers',
    'mmdet.models.task_modules.tracking.interpolation',
    'mmdet.models.utils.vlfuse_helper',
    'mmdet.utils.mot_error_visualize',
)
#: modules of mmpretrain that import torchvision's operators
WITH_OPERATORS = ('mmpretrain.evaluation.metrics.visual_grounding_eval', 'mmpretrain.models.heads.grounding_head')
#: modules of torchvision that only its users import; all but these are what pictures go through
UNUSED = ('datasets', 'models', 'ops')

_BUILDER = 'mmengine.optim.optimizer.builder'


class _WithoutTransformers(importlib.abc.MetaPathFinder):
    """Tells one module that transformers is not installed, while it is imported, as it would import it for a name."""

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> None:
        if fullname == 'transformers' and _importer() == _BUILDER:
            raise ImportError('transformers waits until its optimizer is used', name=fullname)


_FINDER = _WithoutTransformers()


def _importer() -> str:
    """Name of the module whose import statement is carried out."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_globals.get('__name__', '').partition('.')[0] == 'importlib':
        frame = frame.f_back
    return frame.f_globals.get('__name__', '')


def _register_adafactor(builder: ModuleType) -> None:
    sys.meta_path.remove(_FINDER)
    if builder.TRANSFORMERS_OPTIMIZERS or not is_installed('transformers'):
        return

    def load() -> Any:
        try:
            import transformers
        except ImportError:  # it is damaged, and without it mmengine has no such optimizer
            return None
        builder.TRANSFORMERS_OPTIMIZERS[:] = ['Adafactor'] if hasattr(transformers, 'Adafactor') else []
        return getattr(transformers, 'Adafactor', None)

    builder.OPTIMIZERS._module_dict = late_class(builder.OPTIMIZERS._module_dict, 'Adafactor', load)


def _wait_in_mmengine() -> None:
    late_modules(*SHARDED)
    before_import(_BUILDER, lambda builder: sys.meta_path.insert(0, _FINDER))
    after_import(_BUILDER, _register_adafactor)


GAPS = [
    Gap(
        name='mmengine start',
        package='mmengine',
        why='its models import optimizers, and these transformers and torch.distributed.optim, which takes two seconds',
        needed=lambda: 'mmengine.optim' not in sys.modules,
        patch=_wait_in_mmengine,
    ),
    Gap(
        name='mmdet start',
        package='mmdet',
        why='its models import transformers and scikit-learn for five classes, which takes three seconds',
        needed=lambda: 'mmdet' not in sys.modules,
        patch=lambda: late_modules(*RARE),
    ),
    Gap(
        name='mmpretrain start',
        package='mmpretrain',
        why='a metric and a head import operators of torchvision, and with them the compiler, which takes a second',
        needed=lambda: 'mmpretrain' not in sys.modules,
        patch=lambda: late_modules(*WITH_OPERATORS),
    ),
    Gap(
        name='torchvision start',
        package='torchvision',
        why='it imports models and operators, and with them the compiler and the ONNX exporter, which takes a second',
        needed=lambda: 'torchvision' not in sys.modules,
        patch=lambda: late_submodules('torchvision', UNUSED),
    ),
]
