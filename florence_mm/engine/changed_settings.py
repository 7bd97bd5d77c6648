"""Settings of a config that differ from those of the run that wrote a checkpoint."""

from typing import Any

from florence_mm.config.literals import assigned_literals
from florence_mm.config.origin import flatten

#: Where a run writes, and what resuming checks or sets itself.
PLACES = ('work_dir', 'load_from', 'resume', 'launcher', 'experiment_name', 'visualizer.name', 'randomness.seed')


def changed_keys(text: str | None, cfg: Any, places: tuple[str, ...] = PLACES) -> list[str]:
    """List the config keys whose values differ from those of the checkpoint's run, as ``key before -> now``.

    Args:
        text: the run's config as its checkpoint stores it; it is read, not executed.
        cfg: the present config.
        places: beginnings of keys that may differ.
    """
    try:
        before, now = (flatten(assigned_literals(config)) for config in (text or '', cfg.pretty_text))
    except (SyntaxError, ValueError, TypeError):  # it holds more than plain values
        return []
    keys = [key for key in {**before, **now} if not key.startswith(places)]
    return [
        f'{key} {_short(before, key)} -> {_short(now, key)}' for key in keys if before.get(key, ()) != now.get(key, ())
    ]


def _short(leaves: dict[str, Any], key: str) -> str:
    text = repr(leaves[key]) if key in leaves else 'unset'
    return text if len(text) <= 40 else f'{text[:37]}...'
