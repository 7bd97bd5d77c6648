"""Text generation with any model that gives the next token's logits: search, rules, key-value caches.

Not here: anything with weights.
"""

from .beam import beam_search
from .cache import CacheStack, KeyValueCache
from .greedy import greedy_search
from .rules import Decoded, DecodingRules, NextLogits
from .state import WriterState

__all__ = [
    'CacheStack',
    'Decoded',
    'DecodingRules',
    'KeyValueCache',
    'NextLogits',
    'WriterState',
    'beam_search',
    'greedy_search',
]
