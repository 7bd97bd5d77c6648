"""BERT's layers in public checkpoints, whose projections of queries, keys and values are ours in one."""

import re

import torch

from .renaming import Names, StateDict

#: BERT's layers, theirs and ours, without the prefix of the model.
LAYERS = Names(('^encoder.layer.#.', '^layers.#.'))
#: The head that predicts words, under ``cls.``.
WORDS_HEAD = Names(('^predictions.transform.', '^transform.'), ('^predictions.bias$', '^bias$'))


def join_projections(state: StateDict) -> StateDict:
    """Concatenate BERT's separate query, key and value projections as in our ``FusionLayer``.

    ``attention.self.{query,key,value}`` become ``attention.qkv``, ``crossattention.self.query`` becomes
    ``crossattention.query`` and ``crossattention.self.{key,value}`` become ``crossattention.key_value``.
    """
    joined = {}
    for key, value in state.items():
        match = re.match(r'(.*\.|)(attention|crossattention)\.self\.(query|key|value)\.(weight|bias)$', key)
        if not match:
            joined[key] = value
            continue
        layer, kind, name, what = match.groups()
        names, ours = (('query', 'key', 'value'), 'qkv') if kind == 'attention' else (('key', 'value'), 'key_value')
        if name not in names:
            joined[f'{layer}{kind}.query.{what}'] = value
        elif name == names[0]:
            parts = [state.get(f'{layer}{kind}.self.{part}.{what}') for part in names]
            if any(part is None for part in parts):
                raise ValueError(f'the checkpoint has {key} and not all of {", ".join(names)}; it is incomplete')
            joined[f'{layer}{kind}.{ours}.{what}'] = torch.cat(parts)
    return joined


def split_projections(state: StateDict) -> StateDict:
    """Split the joint projections of our layers; the inverse of :func:`join_projections`."""
    split = {}
    for key, value in state.items():
        match = re.match(r'(.*)\.(attention|crossattention)\.(qkv|key_value|query)\.(weight|bias)$', key)
        if not match:
            split[key] = value
            continue
        layer, kind, joint, what = match.groups()
        names = {'qkv': ('query', 'key', 'value'), 'key_value': ('key', 'value'), 'query': ('query',)}[joint]
        for name, part in zip(names, value.chunk(len(names)), strict=True):
            split[f'{layer}.{kind}.self.{name}.{what}'] = part
    return split
