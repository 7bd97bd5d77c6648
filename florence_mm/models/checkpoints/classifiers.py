"""Swin or DaViT with the linear head of a classifier, whose place is in mmpretrain's ``ImageClassifier``.

Under our names a backbone has no prefix and its head is ``head.weight`` and ``head.bias``, as in Swin's releases. In an
``ImageClassifier`` they are ``backbone.*`` and ``head.fc.*``.
"""

from collections.abc import Callable, Collection

from .renaming import Skipped, StateDict, add_prefix, any_key, pop_prefix

TABLE = r'layers\.\d+\.blocks\.\d+\.attn\.relative_position_bias_table$'
CHANNELS = r'layers\.\d+\.blocks\.\d+\.channel_block\.attn\.qkv\.weight$'
NOT_BACKBONE = 'not part of the backbone'
_OURS, _CLASSIFIERS = 'head.', 'head.fc.'
_BACKBONE = 'backbone.'
_KINDS = ('weight', 'bias')


def is_backbone(keys: Collection[str]) -> bool:
    """Whether our keys are those of a Swin or CoSwin, without a prefix."""
    return any_key(keys, f'^{TABLE}')


def is_davit(keys: Collection[str]) -> bool:
    """Whether our keys are those of a DaViT, without a prefix."""
    return any_key(keys, f'^{CHANNELS}')


def _has_head(keys: Collection[str]) -> bool:
    return is_backbone(keys) or is_davit(keys)


def convert_with_head(
    state: StateDict, convert: Callable[[StateDict], tuple[StateDict, Skipped]], *prefixes: str
) -> tuple[StateDict, Skipped]:
    """Convert a backbone, and keep its head if that is a linear layer.

    Args:
        state: tensors of a public file.
        convert: conversion of the backbone, which skips the head.
        prefixes: what the keys of the head may begin with.
    """
    ours, skipped = convert(state)
    for prefix in prefixes:
        if all(f'{prefix}{kind}' in state for kind in _KINDS):
            keys = {kind: f'{prefix}{kind}' for kind in _KINDS}
            ours |= {f'{_OURS}{kind}': state[key] for kind, key in keys.items()}
            skipped = {key: why for key, why in skipped.items() if key not in keys.values()}
            break
    return ours, skipped


def pop_head(state: StateDict) -> StateDict:
    """Remove the head of a backbone from ``state`` and return it, by ``weight`` and ``bias``; empty without one."""
    return pop_prefix(state, rf'head\.(?=({"|".join(_KINDS)})$)') if _has_head(state) else {}


def bare_backbone(state: StateDict) -> StateDict:
    """Take the prefix from the backbone and the head of an ``ImageClassifier``; other tensors stay as they are."""
    bare = {key.removeprefix(_BACKBONE): value for key, value in state.items() if key.startswith(_BACKBONE)}
    heads = {key: value for key, value in state.items() if key.startswith(_CLASSIFIERS)}
    if not heads or len(bare) + len(heads) < len(state) or not _has_head(bare):
        return state
    return bare | {_OURS + key.removeprefix(_CLASSIFIERS): value for key, value in heads.items()}


def fit_classifier(state: StateDict, own: Collection[str]) -> tuple[StateDict, Skipped]:
    """Give a backbone and its head the names that they have in a model.

    Args:
        state: tensors under our names.
        own: keys of the model. An ``ImageClassifier`` gets backbone and head, any other model the backbone alone.

    Returns:
        the tensors, and a head that the model lacks with the reason.
    """
    backbone = dict(state)
    head = pop_head(backbone)
    if _has_head(backbone) and f'{_CLASSIFIERS}weight' in own and any(_BACKBONE + key in own for key in backbone):
        return add_prefix(backbone, _BACKBONE) | add_prefix(head, _CLASSIFIERS), {}
    if not head or f'{_OURS}weight' in own:
        return state, {}
    return backbone, dict.fromkeys(add_prefix(head, _OURS), NOT_BACKBONE)
