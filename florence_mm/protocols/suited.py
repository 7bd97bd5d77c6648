"""Which protocols a model can do, found from configs before anything is loaded or asked to be downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.registry import DefaultScope

from florence_mm.models.protocol import PoolsImages
from florence_mm.registry import MODELS

from .base import Entry

# where configs of models have the encoder of images or clips
_ENCODERS = ('image_encoder', 'backbone')


class Encoder(NamedTuple):
    """Image or video encoder of a model.

    Attributes:
        family: its type without scope, and without "Video", as a video encoder takes the weights of the image encoder.
        arch: its size, as the config names it; None if it does not.
    """

    family: str
    arch: Any

    def __str__(self) -> str:
        return f'{self.family} {self.arch}' if isinstance(self.arch, str) else self.family


def encoder_of(model: Any) -> Encoder | None:
    """Find the image or video encoder in the config of a model, the outermost first; None if it has none.

    >>> str(encoder_of({'type': 'UniCL', 'image_encoder': {'type': 'florence_mm.VideoCoSwin', 'arch': 'tiny'}}))
    'CoSwin tiny'
    """
    inside = [value for value in model.values() if isinstance(value, Mapping)] if isinstance(model, Mapping) else []
    for key in _ENCODERS:
        found = model.get(key) if isinstance(model, Mapping) else None
        if isinstance(found, Mapping) and isinstance(found.get('type'), str):
            return Encoder(found['type'].rpartition('.')[2].removeprefix('Video'), found.get('arch'))
    return next((encoder for encoder in map(encoder_of, inside) if encoder is not None), None)


def unsuited_towers(entry: Entry, towers: Config) -> str | None:
    """Say why the evaluated model itself cannot do a protocol; None if it can, or nothing is known of its class."""
    needs = getattr(entry.protocol, 'needs', None)
    kind = (towers.get('model') or {}).get('type')
    if needs is None or not isinstance(kind, str):
        return None
    with DefaultScope.overwrite_default_scope(towers.get('default_scope') or 'florence_mm'):
        found = MODELS.get(kind)
    if not isinstance(found, type) or issubclass(found, needs):
        return None
    what = 'compares no images with texts' if needs is not PoolsImages else 'has no pooled image features'
    return f'{kind.rpartition(".")[2]} {what}; give a two-tower model such as UniCL'


def unsuited_config(entry: Entry, theirs: Encoder | None, ours: Encoder | None, takes_weights: bool) -> str | None:
    """Say why the suite's own config of a protocol is of another model than the evaluated one; None if it fits.

    Args:
        entry: a protocol with a config of its own.
        theirs: encoder of that config.
        ours: encoder of the evaluated model.
        takes_weights: whether its model takes the weights of the evaluated one, and must be of its size.
    """
    if ours is None or theirs is None or ours == theirs:
        return None
    sized = None not in (ours.arch, theirs.arch) and takes_weights
    if ours.family == theirs.family and not sized:
        return None  # the checkpoint that is given for it may be of any size
    what = '--task-config and --task-checkpoint' if entry.trained else '--task-config'
    return f"the suite's model for it has {theirs}, and the evaluated one has {ours}; give your own with {what}"
