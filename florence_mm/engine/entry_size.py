"""Parameters and multiply-adds of a model of a metafile, counted without memory for its weights."""

import re
from typing import Any, NamedTuple

import torch
from mmengine.registry import DefaultScope

from florence_mm.config.load import load_config
from florence_mm.config.metafiles import ModelEntry
from florence_mm.config.pick import walk_steps
from florence_mm.config.pretrained import drop_pretrained
from florence_mm.registry import MODELS

from .complexity import count_macs
from .example_calls import clip_size, example_calls

#: Answers to the questions about embedded scenes, whose file is written with them.
_EMBEDDED_ANSWERS = 27
_SHAPE = re.compile(r'(\d+) x (\d+)')


class EntrySize(NamedTuple):
    """Size of a model.

    Attributes:
        parameters: number of parameters.
        macs: multiply-adds of one call.
        call: its input, as in "one image of 224 x 224".
    """

    parameters: int
    macs: int
    call: str


def entry_size(entry: ModelEntry, shape: tuple[int, int] | None = None) -> EntrySize:
    """Count parameters and multiply-adds of a model on torch's meta device, which keeps no values.

    Counted is one image, or one clip, through all that does not need a text; texts are left out, as their length
    changes the work.

    Args:
        entry: the model.
        shape: height and width; None: those that its metafile names.
    """
    if shape is None:
        height, width = map(int, _SHAPE.search(entry.macs_input).groups())
        shape = (height, width)
    cfg = load_config(entry.config)
    drop_pretrained(cfg.model, 'model')
    _fill_answers(cfg.model)
    with DefaultScope.overwrite_default_scope('florence_mm'), torch.device('meta'):
        model = MODELS.build(cfg.model)
        what, call = next(iter(example_calls(model, shape, clip_size(cfg))))
        macs = count_macs(model, call)['']
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return EntrySize(parameters, macs, f'{what} of {shape[0]} x {shape[1]}')


def _fill_answers(model: Any) -> None:
    """Put answers in place of a file of answers, which is no part of the package."""
    for part in walk_steps(model):
        if isinstance(part.get('answers'), str):
            part['answers'] = [f'answer {number}' for number in range(_EMBEDDED_ANSWERS)]
