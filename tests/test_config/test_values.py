"""Values against annotations and ranges."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from florence_mm.config.ranges import RANGES, Range, outside
from florence_mm.config.values import accepted, fits

NAN = float('nan')


@pytest.mark.parametrize(
    'annotation, good, bad, words',
    [
        (int, (0, -3), (1.0, '1', True, None, [1], NAN), 'a whole number'),
        (float, (0, 0.5, float('inf')), ('0.5', True, None, NAN), 'a number'),
        (bool, (True, False), (0, 'True', None), 'True or False'),
        (str, ('', 'a', Path('b')), (1, None, ['a']), 'a text'),
        (int | None, (1, None), ('', 1.5), 'a whole number or None'),
        (Literal['a', 'b'], ('a',), ('c', 1), "'a' or 'b'"),
        (Sequence[float], ([], (1, 2.5)), (1, 'ab', ['a'], [NAN], {'a': 1}), 'a list of numbers'),
        (tuple[int, int], ((1, 2), [1, 2]), ((1,), (1, 2, 3), (1, '2')), 'a list of 2 whole numbers'),
        (tuple[int, ...], ((), (1, 2, 3)), (('1',), 1), 'a list of whole numbers'),
        (dict, ({},), ([], 'a', 1), 'a dict'),
        (Mapping[str, int], ({'a': 1},), ({'a': 'b'}, [1]), 'a dict'),
        (Mapping[str, Any], ({'a': 'b'},), (3,), 'a dict'),
        (Callable, (len, {'type': 'x'}), (3, None), 'a function or a dict'),
        (torch.nn.Module, ({'type': 'x'}, torch.nn.ReLU()), ('x', 3, None, [1]), 'a dict with the type of a Module'),
        (Any, (1, 'a', None), (), None),
        ('a name', (1, 'a', None), (), None),
    ],
)
def test_fits(annotation, good, bad, words):
    assert [value for value in good if not fits(value, annotation)] == []
    assert [value for value in bad if fits(value, annotation)] == []
    assert words is None or accepted(annotation) == words


def test_ranges():
    open_ = Range(0, 1, above=True, below=True)
    assert [value for value in (-1, 0, 0.5, 1, 2, NAN) if open_.holds(value)] == [0.5]
    assert str(open_) == 'a number above 0 and below 1' and str(Range()) == 'a finite number'
    assert not Range(0).holds(float('inf')) and Range(0, infinite=True).holds(float('inf'))
    assert (
        outside([[1, 2], [3, -1]], Range(0)) and not outside([[1, 2]], Range(0)) and not outside(['a', None], Range(0))
    )
    # bounds that are values that people give
    assert RANGES['seed'].holds(2**32 - 1) and not RANGES['seed'].holds(2**32)
    assert RANGES['num_workers'].holds(0) and not RANGES['batch_size'].holds(0)
