import argparse

import pytest

from florence_mm.config.options import ConfigOptions, parse_value


@pytest.mark.parametrize(
    'text, value',
    [
        ('3', 3),
        ('1e-4', 1e-4),
        ('true', True),
        ('False', False),
        ('None', None),
        ('none', 'none'),
        ('plain', 'plain'),
        ('a=b', 'a=b'),
        ("[dict(type='EMAHook', a=(1, 2))]", [{'type': 'EMAHook', 'a': (1, 2)}]),
        ('dict(a=dict(b=None))', {'a': {'b': None}}),
        ('"3"', '3'),
        ('1,2', [1, 2]),
        ('(1,2)', (1, 2)),
        ('a,b,', ['a', 'b']),
        ('[a,b]', ['a', 'b']),
        ('[(a,1),(b,2)]', [('a', 1), ('b', 2)]),
        ("{'a': [1], 'b': None}", {'a': [1], 'b': None}),
        ('', ''),
        ('/a/path.pth', '/a/path.pth'),
        ('a photo of a {}.', 'a photo of a {}.'),
    ],
)
def test_values(text, value):
    parsed = parse_value(text)
    assert parsed == value and type(parsed) is type(value)


def parse(*arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=ConfigOptions)
    return parser.parse_args(['--cfg-options', *arguments]).cfg_options


def test_arguments(capsys):
    assert parse('a.b=1', 'c=x,y') == {'a.b': 1, 'c': ['x', 'y']}
    for wrong, reason in (('a', 'expected KEY=VALUE'), ('.a=1', 'expected KEY=VALUE'), ('a=[b,(c', 'do not match')):
        with pytest.raises(SystemExit) as end:
            parse(wrong)
        assert end.value.code == 2
        assert reason in capsys.readouterr().err
