"""Aliases for modules and names that moved after 0.1.0: importing the old name warns once and gives the new one.

The aliases are removed in the next release.
"""

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

#: Old module -> new module, or several if it was split. All without the package's name.
MODULES: dict[str, str | tuple[str, ...]] = {
    'apis.doctor': 'doctor',
    'datasets.box_crops': 'preparation.box_crops',
    'datasets.clips': 'corpora.clips',
    'datasets.digit_ink': 'corpora.digit_ink',
    'datasets.digits': 'corpora.digits',
    'datasets.errors': 'errors',
    'datasets.few_shot': 'preparation.few_shot',
    'datasets.generated': 'corpora.generated',
    'datasets.karpathy': 'preparation.karpathy',
    'datasets.merging': 'preparation.merging',
    'datasets.merging.combine': 'preparation.merging.combine',
    'datasets.merging.json_lists': 'preparation.merging.json_lists',
    'datasets.merging.merge': 'preparation.merging.merge',
    'datasets.merging.open_images': 'preparation.merging.open_images',
    'datasets.merging.pseudo_boxes': 'preparation.pseudo_boxes',
    'datasets.merging.readers': 'preparation.merging.readers',
    'datasets.merging.sources': 'preparation.merging.sources',
    'datasets.merging.store': 'preparation.merging.store',
    'datasets.merging.taxonomy': 'preparation.merging.taxonomy',
    'datasets.msrvtt': 'preparation.msrvtt',
    'datasets.questions': 'corpora.questions',
    'datasets.readers': 'formats.rows',
    'datasets.scene_backgrounds': 'corpora.scene_backgrounds',
    'datasets.scene_captions': 'corpora.scene_captions',
    'datasets.scene_facts': 'corpora.scene_facts',
    'datasets.scenes': 'corpora.scenes',
    'datasets.vqa_files': 'formats.vqa',
    'engine.cli_options': 'config.options',
    'engine.config_check': 'config.check',
    'engine.config_origin': 'config.origin',
    'engine.errors': 'errors',
    'engine.signatures': 'config.signatures',
    'engine.smoke': ('smoke', 'smoke.run', 'smoke.stand_ins'),
    'engine.smoke_data': 'smoke.pictures',
    'engine.smoke_detection': 'smoke.detection',
    'engine.smoke_questions': 'smoke.questions',
    'models.algorithms.meter': 'models.multimodal.meter',
    'models.algorithms.preprocessor': 'models.preprocessor',
    'models.algorithms.retrieval_reranker': 'models.multimodal.reranker',
    'models.algorithms.zero_shot_checks': 'models.detectors.zero_shot_checks',
    'models.algorithms.zero_shot_detector': 'models.detectors.zero_shot_detector',
    'models.backbones.embeddings': 'models.backbones.stages',
    'models.backbones.window_block': 'models.layers.swin',
    'models.heads.dyhead_block': 'models.layers.dyhead_block',
    'models.multimodal.fusion': (
        'models.multimodal.co_attention',
        'models.multimodal.protocol',
        'models.layers.initialisation',
    ),
    'models.text.clip_tokens': ('models.text.clip_text', 'models.tokenizers.clip'),
    'models.multimodal.decoding': 'models.generation',
    'models.text.token_layout': 'models.layers.token_layout',
    'models.text.tokenizer': 'models.tokenizers.clip',
    'models.text.tokens': 'models.tokenizers.protocol',
    'apis.picture_inputs': 'apis.inputs',
    'models.backbones.pyramid': 'models.backbones.coswin',
    'ops.window_attention': 'ops.attention',
    'ops.dropout': 'ops.attention',
    'ops.residual': 'ops.inference',
    'utils.answers': 'language.answers',
    'utils.coco_boxes': 'formats.coco_boxes',
    'utils.coco_file': 'formats.coco',
    'utils.errors': 'errors',
    'utils.mp4': 'formats.mp4',
    'utils.prompts': 'language.prompts',
    'utils.text': 'language.labels',
    'utils.video': 'formats.video',
}
_PACKAGE = __name__.partition('.')[0]


class _OldModule(Loader):
    """Loads the new module under the old name."""

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        new = MODULES[name.removeprefix(f'{_PACKAGE}.')]
        places = [f'{_PACKAGE}.{place}' for place in ((new,) if isinstance(new, str) else new)]
        _tell(name, ' and '.join(places))
        if len(places) == 1:
            sys.modules[name] = import_module(places[0])
            return

        def find(attribute: str) -> Any:
            for place in places:
                if hasattr(import_module(place), attribute):
                    return getattr(import_module(place), attribute)
            raise AttributeError(f'module {name!r} has no attribute {attribute!r}; it is now {", ".join(places)}')

        module.__getattr__ = find


class _OldModules(MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        package, _, rest = name.partition('.')
        return ModuleSpec(name, _OldModule()) if package == _PACKAGE and rest in MODULES else None


def install() -> None:
    """Make the old module names importable; a second call changes nothing."""
    if not any(isinstance(finder, _OldModules) for finder in sys.meta_path):
        # first, since a folder that an older checkout left behind would be found as an empty package
        sys.meta_path.insert(0, _OldModules())


def moved_names(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Make the ``__getattr__`` of a module from which names have moved away.

    Args:
        module: ``__name__`` of the module.
        names: old name -> ``'module'`` that defines it now, or ``'module:new_name'`` if it was renamed too.
    """

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f'module {module!r} has no attribute {name!r}')
        place, _, new = names[name].partition(':')
        value = getattr(import_module(place), new or name)
        _tell(f'{module}.{name}', f'{place}.{new or name}')
        setattr(sys.modules[module], name, value)  # so that the warning comes once
        return value

    return find


def _tell(old: str, new: str) -> None:
    warnings.warn(f'{old} is now {new}; the old name goes with the next release', FutureWarning, stacklevel=3)
