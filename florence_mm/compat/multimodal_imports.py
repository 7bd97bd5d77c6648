"""Switch off the multimodal models of mmpretrain and mmaction2, which fail to import beside transformers 5."""

import importlib.util
from pathlib import Path
from types import ModuleType

from .gap import Gap, is_installed


def _transformers_moved_on() -> bool:
    """Whether transformers lacks a name those models import, read from its source, as importing it takes seconds."""
    if not is_installed('transformers'):
        return False
    source = Path(importlib.util.find_spec('transformers').origin).parent / 'modeling_utils.py'
    return source.exists() and 'apply_chunking_to_forward' not in source.read_text(encoding='utf-8')


def _switch_off(module: ModuleType) -> None:
    module.WITH_MULTIMODAL = False


def _gap(package: str) -> Gap:
    return Gap(
        name=f'{package} multimodal',
        package=package,
        why=f'{package}.models imports multimodal models written for transformers 4 and fails beside this version',
        needed=_transformers_moved_on,
        patch=_switch_off,
        after=f'{package}.utils.dependency',
    )


GAPS = [_gap('mmpretrain'), _gap('mmaction')]
