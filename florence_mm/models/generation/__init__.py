"""Text generation with any model that gives the next token's logits: search, sampling, rules, key-value caches.

Not here: anything with weights.
"""

from .allowed import AllowedNext, StepwiseAllowed
from .beam import beam_search
from .cache import CacheStack, KeyValueCache
from .few import SelectiveLogits
from .greedy import greedy_search
from .nucleus import RandomSource, nucleus_search
from .rules import Decoded, DecodingRules, NextLogits
from .state import WriterState
from .tries import TokenTrie

__all__ = [
    'AllowedNext',
    'CacheStack',
    'Decoded',
    'DecodingRules',
    'KeyValueCache',
    'NextLogits',
    'RandomSource',
    'SelectiveLogits',
    'StepwiseAllowed',
    'TokenTrie',
    'WriterState',
    'beam_search',
    'greedy_search',
    'nucleus_search',
]
