"""The embedded data sets that protocols are tried on: digits, scenes, questions and clips, written where missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from florence_mm.corpora.clips import write_clips
from florence_mm.corpora.digits import write_digits
from florence_mm.corpora.questions import write_questions
from florence_mm.corpora.scenes import SceneOptions, write_scenes

from .base import EmbeddedSource

_PAGE = 'nowhere (florence_mm draws it)'
_TOOL = 'python tools/dataset_converters'
#: Scenes of one to three large digits (docs/meter.md).
LARGE = SceneOptions(train=4000, test=400, size=64, digits=(1, 3), heights=(0.35, 0.55), seed=1)
#: Scenes of which some training images lack threes and sevens, for zero-shot detection (docs/detection.md).
SCENE_OPTIONS = SceneOptions(held_out=('three', 'seven'))


def _source(
    title: str, layout: tuple[str, ...], tool: str, *steps: tuple[str, Callable[[Path], object]]
) -> EmbeddedSource:
    """Make a source of folders that are complete once their last file is there; they stay as their user made them."""

    def make(data_root: Path) -> None:
        for last_file, write in steps:
            if not (data_root / last_file).exists():
                write(data_root)

    return EmbeddedSource(title, _PAGE, layout, f'{_TOOL}/{tool}', make)


_LARGE_STEP = ('large_digits/scenes.json', lambda root: write_scenes(root / 'large_digits', LARGE))
_QUESTIONS_STEP = (
    'large_digit_questions/questions.json',
    lambda root: write_questions(root / 'large_digits', root / 'large_digit_questions'),
)

DIGITS = _source(
    'digits',
    ('digits/test', 'digits/test.jsonl'),
    'prepare_digits.py --out {data}/digits',
    ('digits/test.jsonl', lambda root: write_digits(root / 'digits')),
)
SCENES = _source(
    'scenes of digits',
    ('scenes/test', 'scenes/annotations/test.json', 'scenes/scenes.json'),
    'prepare_scenes.py --out {data}/scenes --held-out three seven',
    ('scenes/scenes.json', lambda root: write_scenes(root / 'scenes', SCENE_OPTIONS)),
)
LARGE_DIGITS = _source(
    'captions of large digits',
    ('large_digits/test', 'large_digit_questions/test.jsonl', 'large_digit_questions/questions.json'),
    'prepare_questions.py --scenes {data}/large_digits --out {data}/large_digit_questions',
    _LARGE_STEP,
    _QUESTIONS_STEP,
)
LARGE_DIGIT_QUESTIONS = _source(
    'questions about large digits',
    (
        'large_digits/test',
        'large_digit_questions/test_questions.json',
        'large_digit_questions/test_annotations.json',
        'large_digit_questions/answers.txt',
    ),
    'prepare_questions.py --scenes {data}/large_digits --out {data}/large_digit_questions',
    _LARGE_STEP,
    _QUESTIONS_STEP,
)
CLIPS = _source(
    'clips of moving digits',
    ('clips/test', 'clips/test.txt', 'clips/test.jsonl', 'clips/clips.json'),
    'prepare_clips.py --out {data}/clips',
    ('clips/clips.json', lambda root: write_clips(root / 'clips')),
)
