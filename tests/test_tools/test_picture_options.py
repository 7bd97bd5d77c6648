"""Options of the commands that draw attention and activation, refused or understood before a model is needed."""

import runpy
import sys
from pathlib import Path

import pytest

from florence_mm.commands.ask import draw

TOOLS = Path(__file__).parents[2] / 'tools'


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--activation-map', 'strip.jpg'], 'error: --activation-map strip.jpg must end in .png'),
        (['--activation-class', 'left'], 'error: --activation-class and --activation-stage say how'),
        (['--activation-stage', '0'], 'error: --activation-class and --activation-stage say how'),
    ],
)
def test_video_refuses_options_without_effect(monkeypatch, capsys, options, message):
    monkeypatch.setattr(sys, 'argv', ['video.py', 'no_config.py', 'no.pth', 'no.mp4', *options])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(TOOLS / 'video.py'), run_name='__main__')
    assert stopped.value.code == 2 and capsys.readouterr().err.startswith(message)


@pytest.mark.parametrize(
    ('tool', 'options', 'files', 'message'),
    [
        ('video.py', ['--activation-map', 'strip.png'], ['a.mp4', 'b.mp4'], '--activation-map draws one video'),
        (
            'vqa.py',
            ['--match', 'it', '--attention', 'it', 'it.png'],
            ['a.png', 'b.png'],
            '--attention draws one image',
        ),
    ],
)
@pytest.mark.parametrize('folder', [False, True])
def test_what_is_drawn_of_one_input_is_refused_for_two(
    tmp_path, monkeypatch, capsys, tool, options, files, message, folder
):
    for name in files:
        (tmp_path / name).write_bytes(b'x')
    inputs = [str(tmp_path)] if folder else [str(tmp_path / name) for name in files]
    # config and checkpoint would be missed if they were looked for first
    monkeypatch.setattr(sys, 'argv', [tool, 'no_config.py', 'no.pth', *inputs, *options])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(TOOLS / tool), run_name='__main__')
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f'error: {message}, but there are 2; name one\n'


def test_attention_takes_the_text_with_the_whole_word(capsys):
    drawn = []

    class Inferencer:
        def draw_attention(self, *arguments):
            drawn.append(arguments)

    # "this" has the letters of "is", but is another word
    draw(Inferencer(), {'file': 'a.png'}, ['this thing', 'Is it red?'], 'is', 'out.png')
    assert drawn == [('a.png', 'Is it red?', 'is', 'out.png')]
    assert "attention to 'is' in 'Is it red?'" in capsys.readouterr().out
