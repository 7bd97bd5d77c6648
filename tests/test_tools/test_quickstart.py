"""What the quickstart shows on the console; that it trains is seen when it is run, in CI too."""

import logging
import runpy
from pathlib import Path

import pytest

from florence_mm.engine.runner import FlorenceRunner

QUICKSTART = runpy.run_path(str(Path(__file__).parents[2] / 'tools/quickstart.py'))


@pytest.mark.parametrize('text', ['Epoch(train) [1]', 'Epoch(train) [1]\n', 'Config:\nmodel = dict()'])
def test_records_of_several_lines_go_to_the_file_alone(text, tmp_path, monkeypatch):
    shown = logging.StreamHandler((tmp_path / 'console').open('w'))
    logger = logging.Logger('quickstart')
    logger.handlers = [shown, logging.FileHandler(tmp_path / 'file')]
    monkeypatch.setattr(FlorenceRunner, 'build_logger', lambda self: logger)
    QUICKSTART['QuietConsoleRunner'].build_logger(object.__new__(QUICKSTART['QuietConsoleRunner'])).info(text)
    shown.stream.flush()
    assert (tmp_path / 'file').read_text() == f'{text}\n'
    assert (tmp_path / 'console').read_text() == ('' if text.startswith('Config') else f'{text}\n')
