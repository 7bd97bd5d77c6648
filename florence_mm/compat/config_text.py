"""Cache the formatted text of a config, which mmengine formats anew four times a run and at every checkpoint."""

from functools import lru_cache
from types import ModuleType
from typing import Any

from .gap import Gap


def _has_formatter() -> bool:
    from mmengine.config import config

    return hasattr(config, 'FormatCode')


def _cache(module: ModuleType) -> None:
    format_code = module.FormatCode

    @lru_cache(maxsize=8)
    def formatted(text: str, style: tuple[tuple[str, Any], ...], **options: Any) -> tuple[str, bool]:
        return format_code(text, style_config=dict(style), **options)

    def format_once(text: str, style_config: dict[str, Any], **options: Any) -> tuple[str, bool]:
        return formatted(text, tuple(sorted(style_config.items())), **options)

    module.FormatCode = format_once


GAP = Gap(
    name='mmengine config texts',
    package='mmengine',
    why='mmengine formats the text of an unchanged config again for every log and checkpoint, up to half a second each',
    needed=_has_formatter,
    patch=_cache,
    after='mmengine.config.config',
)
