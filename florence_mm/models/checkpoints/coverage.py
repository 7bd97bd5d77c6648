"""How much of a model a checkpoint must hold, and the sentence that says what it lacks."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from .contents import some
from .renaming import COMPUTED

#: The least share of a model's tensors that a checkpoint must give.
LEAST_SHARE = 0.5
#: Parts that a new task makes anew, and the norms of further stages.
_HEADS = re.compile(r'(^|_)(heads?|fc|classifier)$|^norm\d*$')
_ONE_LAYER = 2  # tensors: weight and bias
#: Endings of the keys of buffers whose absence changes no result.
_COUNTERS = ('num_batches_tracked',)

Missing = bool | Sequence[str]


def needed_keys(own: Iterable[str]) -> list[str]:
    """The keys of a model that a checkpoint can give: without buffers that the model computes, and counters."""
    return [key for key in own if not key.endswith((*COMPUTED, *_COUNTERS))]


def check_coverage(
    own: Iterable[str],
    loaded: Collection[str],
    name: str,
    path: str | Path,
    allow_missing: Missing = (),
    whole: bool = False,
    skipped: Mapping[str, str] | None = None,
) -> None:
    """Check that a checkpoint gives enough of a model.

    It must give at least half of the model's tensors, and some of each part: a child module of more than one layer,
    other than heads, which a new task makes anew.

    Args:
        own: the keys of the model.
        loaded: those that the checkpoint gives.
        name: the model, for messages.
        path: the file, for messages.
        allow_missing: parts, or beginnings of keys, that do not count; True: nothing is checked.
        whole: all tensors must be there, as for a test.
        skipped: keys of the checkpoint that were left out, with the reason, for messages.

    Raises:
        ValueError: too little is there.
        TypeError: ``allow_missing`` is a text.
    """
    if isinstance(allow_missing, str):
        raise TypeError(f'allow_missing is {allow_missing!r}; give a list of parts, as [{allow_missing!r}], or True')
    if allow_missing is True:
        return
    allowed = tuple(f'{part.rstrip(".")}.' for part in allow_missing or ())
    needed = [key for key in needed_keys(own) if not f'{key}.'.startswith(allowed)]
    missing = [key for key in needed if key not in loaded]
    count = f'{len(missing)} of the {len(needed)} tensors'
    why = left_out_sentence(skipped or {})
    if whole and missing:
        raise ValueError(
            f'{path} lacks {count} of {name}, among them {missing[0]} (of another shape is missing, too){why}; use the '
            'config that the checkpoint was trained with'
        )
    if len(missing) > len(needed) * (1 - LEAST_SHARE):
        raise ValueError(
            f'{path} lacks {count} of {name} ({some(missing, 3)}), more than half{why}; use the config it was trained '
            f'with, load a part of it by prefix, or name the parts that may be missing: {_how(missing)}'
        )
    parts: dict[str, list[bool]] = {}
    for key in needed:
        if '.' in key:
            parts.setdefault(key.split('.')[0], []).append(key in loaded)
    for part, found in parts.items():
        if not any(found) and len(found) > _ONE_LAYER and not _HEADS.search(part):
            raise ValueError(
                f'{path} has none of the {len(found)} tensors of {part} of {name}, whose features would be those of '
                f'random weights{why}; use a checkpoint that has them, or say that they may be missing: {_how([part])}'
            )


def left_out_sentence(skipped: Mapping[str, str]) -> str:
    """Say why tensors of an encoder that a file has were left out; empty if none were."""
    reasons = Counter(why for why in skipped.values() if why.startswith('of an image'))
    return ''.join(f' ({count} tensors in the file are {why})' for why, count in reasons.items())


def _how(missing: Sequence[str]) -> str:
    parts = list(dict.fromkeys(key.split('.')[0] for key in missing))
    return f"init_cfg=dict(type='florence_mm.Pretrained', checkpoint=..., allow_missing={parts[:5]})"


def missing_sentence(
    own: Collection[str], loaded: Collection[str], name: str, path: str | Path, unexpected: Sequence[str] = ()
) -> str:
    """Say in one sentence how much of a model a checkpoint gives, and which of its tensors the model lacks."""
    needed = needed_keys(own)
    missing = [key for key in needed if key not in loaded]
    others = f'; {len(unexpected)} in the file are not of the model: {some(unexpected)}' if unexpected else ''
    if not missing:
        return f'{path} gives all {len(needed)} tensors of {name}{others}.'
    return (
        f'{path} lacks {len(missing)} of the {len(needed)} tensors of {name}, or has them in another shape, and they '
        f'keep the values that they had: {some(missing)}{others}.'
    )
