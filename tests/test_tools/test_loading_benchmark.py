"""Where the benchmark of loading leaves its pictures."""

import runpy
import sys
from pathlib import Path

from PIL import Image

BENCHMARKS = Path(__file__).parents[2] / 'tools/benchmarks'


def test_pictures_are_written_once_below_the_folder_that_is_given(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    loading = runpy.run_path(str(BENCHMARKS / 'loading.py'))
    monkeypatch.delitem(sys.modules, 'common')
    source = tmp_path / 'source'
    source.mkdir()
    Image.new('RGB', (8, 6), (200, 10, 10)).save(source / 'a.jpg')
    root = loading['folder']('640x480', str(source), tmp_path / 'home')
    files = sorted((tmp_path / 'home').rglob('*.jpg'))
    assert len(files) == loading['COUNTS']['640x480'] and Image.open(files[0]).size == (640, 480)
    assert {file.parent.parent for file in files} == {root}
    files[0].unlink()
    assert loading['folder']('640x480', str(source), tmp_path / 'home') == root and not files[0].exists()
