"""Building of heads from their configs, with the sizes that the model gives them."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from florence_mm.config.signatures import accepted_arguments
from florence_mm.registry import MODELS


def build_head(name: str, head: dict | nn.Module, given: Mapping[str, Any]) -> nn.Module:
    """Build a head from its config, adding the arguments in ``given`` that its constructor takes."""
    if isinstance(head, nn.Module):
        return head
    if not isinstance(head, Mapping) or 'type' not in head:
        shown = dict(head) if isinstance(head, Mapping) else head
        raise ValueError(
            f'the head {name!r} is {shown!r}, which has no `type`; name one, such as FusionVQAHead, or leave it out'
        )
    kind = MODELS.get(head['type']) if isinstance(head['type'], str) else head['type']
    # a head of a user's may hand **kwargs to the head that it extends
    takes = accepted_arguments(kind) or inspect.signature(kind).parameters if kind is not None else {}
    return MODELS.build({**{key: value for key, value in given.items() if key in takes}, **head})
