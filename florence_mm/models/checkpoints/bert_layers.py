"""BERT's layers in public checkpoints, whose projections of queries, keys and values are ours in one."""

import re

import torch

from .renaming import Names, StateDict, pop_prefix

#: BERT's layers, theirs and ours, without the prefix of the model.
LAYERS = Names(('^encoder.layer.#.', '^layers.#.'))
#: The head that predicts words, under ``cls.``.
WORDS_HEAD = Names(('^predictions.transform.', '^transform.'), ('^predictions.bias$', '^bias$'))


def take_words_head(state: StateDict, prefix: str, words: torch.Tensor | None, owner: str) -> StateDict:
    """Take a head that predicts words out of a state, under our names, without the matrix, which is tied.

    Args:
        state: tensors, of which those of the head are removed.
        prefix: regular expression of what is before ``predictions``.
        words: the word embeddings.
        owner: name of the model, for the message.

    Raises:
        ValueError: the head's matrix is not the word embeddings.
    """
    head = WORDS_HEAD.to_ours(pop_prefix(state, prefix))
    for key, own in (('predictions.decoder.weight', words), ('predictions.decoder.bias', head.get('bias'))):
        tied = head.pop(key, None)
        if tied is not None and (own is None or not torch.equal(own, tied)):
            raise ValueError(f'its cls.{key} is not tied to the word embeddings, which {owner} needs')
    return head


def give_words_head(head: StateDict, words: torch.Tensor) -> StateDict:
    """Give a tied head that predicts words its public names and its matrix; the inverse of :func:`take_words_head`.

    Raises:
        ValueError: it is not tied.
    """
    if 'decoder.weight' in head:
        raise ValueError("its vocabulary head has weights of its own, and BLIP's is tied to the word embeddings")
    tied = {'predictions.decoder.weight': words, 'predictions.decoder.bias': head['bias']}
    return {**WORDS_HEAD.to_theirs(head), **tied}


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
