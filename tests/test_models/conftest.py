"""Fixtures of the tests of models."""

from collections.abc import Callable

import pytest
import torch
from torch._dynamo.utils import counters

from florence_mm.ops import windows


@pytest.fixture
def graphs() -> Callable[[], int]:
    """The number of graphs that torch.compile has made in this test, before which nothing is compiled or planned."""
    torch._dynamo.reset()
    counters.clear()
    windows._cache.clear()
    windows._indices.clear()
    return lambda: counters['stats']['unique_graphs']
