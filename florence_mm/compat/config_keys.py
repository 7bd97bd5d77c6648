"""Quote the keys of a config's dicts that Python does not take as names of arguments."""

import keyword
import unicodedata
from types import ModuleType
from typing import Any

from .gap import Gap


def _unreadable() -> bool:
    from mmengine.config.config import Config

    text = Config({'columns': {'class': {"it's": 1}}}, format_python_code=False).pretty_text
    try:
        compile(text, 'config', 'exec')
    except SyntaxError:
        return True
    return False


class _Quoted(str):
    """The text of a key which says of itself that it is no name, and which is escaped where it is written."""

    def __str__(self) -> str:
        return self

    def isidentifier(self) -> bool:
        return False

    def __format__(self, spec: str) -> str:
        # mmengine puts single quotes around it, and repr takes double ones for a text with a single quote alone
        return repr(str.__add__(self, '"'))[1:-2]


class _Constant:
    """A key such as None or True, whose text would be taken for a name."""

    def __init__(self, key: Any) -> None:
        self.text = _Quoted(key)

    def __str__(self) -> str:
        return self.text


def _key(key: Any) -> Any:
    if isinstance(key, str):
        name = key.isidentifier() and not keyword.iskeyword(key) and unicodedata.normalize('NFKC', key) == key
        return key if name else _Quoted(key)
    return _Constant(key) if str(key).isidentifier() else key


def _quoted(value: Any) -> Any:
    if isinstance(value, dict):
        return {_key(key): _quoted(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return (list if isinstance(value, list) else tuple)(map(_quoted, value))
    return value


class _QuotedConfig:
    """A config whose dict has quoted keys."""

    def __init__(self, config: Any) -> None:
        self._config = config

    def __getattr__(self, name: str) -> Any:
        return getattr(self._config, name)

    def to_dict(self) -> dict[str, Any]:
        # the outermost keys are variables of the file
        return {key: _quoted(value) for key, value in self._config.to_dict().items()}


def _patch(module: ModuleType) -> None:
    pretty_text = module.Config.pretty_text.fget
    module.Config.pretty_text = property(lambda config: pretty_text(_QuotedConfig(config)), doc=pretty_text.__doc__)


GAP = Gap(
    name='mmengine config keys',
    package='mmengine',
    why='mmengine writes keys such as "class" and "it\'s" as they are, so that their config cannot be written or read',
    needed=_unreadable,
    patch=_patch,
    after='mmengine.config.config',
)
