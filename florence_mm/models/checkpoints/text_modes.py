"""The two self-attentions of a text model that reads and writes, as BLIP's, and where they belong in other models.

Under our names each layer of such a model has an ``attention`` and a ``causal_attention`` and shares the rest. A model
whose decoder shares nothing with the encoder has ``text_encoder.*`` and ``text_decoder.*`` instead.
"""

import re
from collections.abc import Collection

import torch
from torch import Tensor

from .renaming import Skipped, StateDict, add_prefix, any_key

_OWN, _CAUSAL = '.attention.', '.causal_attention.'
_ENCODER, _DECODER = 'text_encoder.', 'text_decoder.'
_HEADS = 'heads.caption.', 'heads.vqa.'


def as_causal(state: StateDict) -> StateDict:
    """The self-attention of a text model under the name of that of causal texts."""
    return {key.replace(_OWN, _CAUSAL): value for key, value in state.items() if _OWN in key}


def as_own(state: StateDict) -> StateDict:
    """The self-attention of causal texts under the name of the only one; the inverse of :func:`as_causal`."""
    return {key.replace(_CAUSAL, _OWN): value for key, value in state.items() if _CAUSAL in key}


def fit_text_modes(state: StateDict, own: Collection[str]) -> tuple[StateDict, Skipped]:
    """Give the parts of a text model that reads and writes the names that they have in a model.

    - In a model whose decoder shares nothing, encoder and decoder each get what is shared, and the self-attention of
      their mode. The head ``vqa`` gets the weights of the head ``caption``, with which the decoder was trained, if it
      has the same layers.
    - A model without a self-attention of causal texts gets none if it is a copy of the other.
    - A Q-Former, whose queries have an MLP of their own, gets a copy of that of texts where the file has one alone.

    Args:
        state: tensors under our names.
        own: keys of the model.

    Returns:
        the tensors, and those that the model has no use for with the reason.
    """
    if any_key(own, r'(^|\.)layers\.\d+\.lead_output\.') and not any_key(state, r'\.lead_output\.'):
        state = {**state, **_as_lead(state)}
    if not any_key(state, r'\.causal_attention\.') or any_key(own, r'\.causal_attention\.'):
        return state, {}
    if any(key.startswith(_DECODER) for key in own):
        return _apart(state, own), {}
    copies = {
        key: 'a copy of the self-attention, for texts that are written'
        for key, value in state.items()
        if _CAUSAL in key and same(state.get(key.replace(_CAUSAL, _OWN)), value)
    }
    return {key: value for key, value in state.items() if key not in copies}, copies


def _as_lead(state: StateDict) -> StateDict:
    """The MLPs of layers under the names of those of leading tokens."""
    renamed = {re.sub(r'(^|\.)(layers\.\d+\.)(intermediate|output)\.', r'\1\2lead_\3.', key): key for key in state}
    return {lead: state[key] for lead, key in renamed.items() if lead != key}


def _apart(state: StateDict, own: Collection[str]) -> StateDict:
    """Tensors of a shared text model for an encoder and a decoder that share nothing."""
    apart = {key: value for key, value in state.items() if _CAUSAL not in key}
    for key, value in state.items():
        reads_alone = _OWN in key and key.replace(_OWN, _CAUSAL) in state
        if key.startswith(_ENCODER) and not reads_alone:
            apart[_DECODER + key.removeprefix(_ENCODER).replace(_CAUSAL, _OWN)] = value
    theirs, ours = _HEADS
    head = {key.removeprefix(theirs): key for key in state if key.startswith(theirs)}
    if head and not any_key(own, f'^{theirs}') and all(name in own for name in add_prefix(head, ours)):
        apart |= {ours + name: apart.pop(key) for name, key in head.items()}
    return apart


def same(one: Tensor | None, other: Tensor) -> bool:
    """Whether a tensor is there and equals another bit by bit."""
    return one is not None and torch.equal(one, other)
