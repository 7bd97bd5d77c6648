"""Settings of a run of the data engine, from a config file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from florence_mm.errors import UsageError, shown_path
from florence_mm.utils.nearest import near_or_all
from florence_mm.utils.numbers import is_whole

from .annotation_options import FilterOptions, MergeOptions, RefineOptions, ReportOptions
from .annotation_pictures import PictureOptions
from .annotation_sources import RegionTexts
from .options import as_options, require

_STEPS = {
    'filter': FilterOptions,
    'merge': MergeOptions,
    'refine': RefineOptions,
    'report': ReportOptions,
    'region_texts': RegionTexts,
}
#: Keys of a config that say which models are used (:mod:`florence_mm.apis.annotation`).
MODELS = ('specialists', 'chooser', 'parser', 'trainer', 'device')
_OF_CONFIGS = ('custom_imports', 'default_scope')


@dataclass(frozen=True)
class AnnotationSettings:
    """What a run reads, does and writes.

    Attributes:
        pictures: where the pictures are, and what is known of them.
        out: folder of what is written.
        filter, merge, refine, report: options of the steps.
        region_texts: how texts of regions are chosen; needs a chooser.
        batch_size: pictures that models take at once; it changes no result but by rounding.
    """

    pictures: PictureOptions
    out: Path
    filter: FilterOptions = FilterOptions()
    merge: MergeOptions = MergeOptions()
    refine: RefineOptions = RefineOptions()
    report: ReportOptions = ReportOptions()
    region_texts: RegionTexts = RegionTexts()
    batch_size: int = 16

    def __post_init__(self) -> None:
        size = self.batch_size
        require('batch_size', size, is_whole(size) and size >= 1, 'a whole number from 1')
        if self.out.exists() and not self.out.is_dir():
            raise UsageError(f'{shown_path(self.out)} is a file; name a folder to write to')


def with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """Put what a config leaves out into it, so that command lines can change that too."""
    plain = {'specialists': [], 'chooser': None, 'parser': None, 'trainer': None, 'device': None, 'batch_size': 16}
    steps = {}
    for key, kind in _STEPS.items():
        given = config.get(key) or {}
        steps[key] = {**asdict(kind()), **given} if isinstance(given, Mapping) else given
    return {**plain, **config, **steps}


def make_annotation_settings(config: Mapping[str, Any]) -> AnnotationSettings:
    """Check the settings of a config.

    Args:
        config: the attributes of :class:`AnnotationSettings` as keys, and those of :data:`MODELS`.

    Raises:
        UsageError: a key is misspelt or missing, a value is wrong, or there is no source of annotations.
    """
    known = {*AnnotationSettings.__dataclass_fields__, *MODELS}
    given = {key: value for key, value in config.items() if key not in _OF_CONFIGS and not key.startswith('_')}
    for key in given:
        if key not in known:
            raise UsageError(f'the config has {key!r}, which is no setting of annotating{near_or_all(key, known)}')
    for key in ('pictures', 'out'):
        if not given.get(key):
            raise UsageError(f'the config does not set {key!r}; see docs/annotation.md')
    settings = {key: value for key, value in given.items() if key not in MODELS}
    settings['out'] = Path(str(given['out'])).expanduser()
    settings['pictures'] = as_options(PictureOptions, given['pictures'], 'pictures')
    for key, kind in _STEPS.items():
        settings[key] = as_options(kind, given.get(key) or {}, key)
    if not given.get('specialists') and settings['pictures'].kind == 'folder':
        raise UsageError(
            'the config has no specialists, and pictures of a folder have no annotations; add '
            "specialists=[dict(kind='detector', ...)], or a task file as pictures"
        )
    return AnnotationSettings(**settings)
