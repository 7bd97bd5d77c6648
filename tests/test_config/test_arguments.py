"""Argument types: what each takes, and the sentence for what it refuses."""

import argparse

import pytest
import torch

from florence_mm.config import arguments


@pytest.mark.parametrize(
    'convert, text, value',
    [
        (arguments.positive_int, '1', 1),
        (arguments.non_negative_int, '0', 0),
        (arguments.seed, '4294967295', 2**32 - 1),
        (arguments.finite_float, '-2.5e-1', -0.25),
        (arguments.positive_float, '1e-9', 1e-9),
        (arguments.non_negative_float, '0', 0.0),
        (arguments.probability, '1', 1.0),
        (arguments.device, 'cpu', 'cpu'),
    ],
)
def test_accepted(convert, text, value):
    converted = convert(text)
    assert converted == value and type(converted) is type(value)


@pytest.mark.parametrize(
    'convert, texts',
    [
        (arguments.positive_int, ('0', '-1', '1.5', 'two', '', 'nan')),
        (arguments.non_negative_int, ('-1', '0.0', 'inf')),
        (arguments.seed, ('-1', '4294967296', 'x')),
        (arguments.finite_float, ('nan', 'inf', '-inf', 'x')),
        (arguments.positive_float, ('0', '-1', 'nan', 'inf')),
        (arguments.non_negative_float, ('-1e-9', 'nan')),
        (arguments.probability, ('-0.1', '1.1', 'nan', 'half')),
        (arguments.device, ('gpu', '', 'cuda:x', f'cuda:{torch.cuda.device_count()}')),
    ],
)
def test_refused(convert, texts):
    for text in texts:
        with pytest.raises(argparse.ArgumentTypeError, match=f'^{text!r} is .*; (give|leave)'):
            convert(text)


def test_a_device_that_the_machine_lacks(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    assert arguments.device('cuda:1') == 'cuda:1' and arguments.device('cuda') == 'cuda'
    with pytest.raises(argparse.ArgumentTypeError, match=r"^'cuda:2' is not there, this machine has 2 of kind cuda"):
        arguments.device('cuda:2')
