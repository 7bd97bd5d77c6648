"""Building of heads from their configs, with the sizes that the model gives them."""

import inspect
from collections.abc import Mapping
from typing import Any

from mmengine.model import ModuleDict
from torch import nn

from florence_mm.config.signatures import accepted_arguments
from florence_mm.registry import MODELS

#: Methods of heads that a whole model is asked for: what they do, and an example of such a head.
METHODS = {
    'answer': ('answers questions', 'FusionVQAHead'),
    'match_logit': ('matches images and sentences', 'FusionITMHead'),
    'write': ('writes captions', 'FusionCaptionHead'),
    'solve': ('solves tasks', 'TaskHead'),
    'embed': ('embeds images and texts', 'FusionITCHead'),
}


def build_heads(model: nn.Module, heads: Mapping[str, dict | nn.Module], init_std: float) -> ModuleDict:
    """Build the heads of a vision-language model, see ``VisionLanguageModel.add_heads``."""
    words = getattr(model, 'word_embeddings', None)  # of families with a text stack
    given = {
        'hidden_size': model.hidden_size,
        'pooled_size': model.pooled_size,
        'image_dims': model.image_dims,
        'vocab_size': model.tokenizer.vocab_size if words is None else words.num_embeddings,
        'init_std': init_std,
        'gives_logits': model.gives_logits,
    }
    built = ModuleDict({name: build_head(name, head, given) for name, head in heads.items()})
    for method, (does, _) in METHODS.items():
        able = [name for name, head in built.items() if hasattr(head, method)]
        if len(able) > 1:
            # they would give losses and predictions of one name, and only the first would be asked
            raise ValueError(f'the heads {" and ".join(able)} are each one that {does}; leave one')
    for name, head in built.items():
        if getattr(head, 'tied', False):
            head.tie(words)
        needs = getattr(head, 'needs', None)
        if needs is not None and not isinstance(model, needs):
            raise ValueError(
                f'the head {name!r} ({type(head).__name__}) needs a {needs.__name__.lower()}, which '
                f'{type(model).__name__} is not; give it another head'
            )
        # a larger one is padded: ids beyond the tokenizer's are never targets or generated
        if getattr(head, 'vocab_size', model.tokenizer.vocab_size) < model.tokenizer.vocab_size:
            raise ValueError(
                f'vocab_size of the head {name!r} is {head.vocab_size} and the tokenizer has '
                f'{model.tokenizer.vocab_size} ids; the head needs as many'
            )
        if hasattr(head, 'take_model'):
            head.take_model(model)
    return built


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
