"""Options of the commands that draw attention and activation, refused or understood before a model is needed."""

import runpy
import sys
from pathlib import Path

import pytest

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


def test_attention_takes_the_text_with_the_whole_word(capsys):
    draw = runpy.run_path(str(TOOLS / 'vqa.py'))['draw']
    drawn = []

    class Inferencer:
        def draw_attention(self, *arguments):
            drawn.append(arguments)

    # "this" has the letters of "is", but is another word
    draw(Inferencer(), [{'file': 'a.png'}], ['this thing', 'Is it red?'], 'is', 'out.png')
    assert drawn == [('a.png', 'Is it red?', 'is', 'out.png')]
    assert "attention to 'is' in 'Is it red?'" in capsys.readouterr().out
