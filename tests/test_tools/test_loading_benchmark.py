"""Benchmarks of loading and of shards: where pictures are left, and that both sides read the same."""

import runpy
import sys
from pathlib import Path

import pytest
import torch
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


def test_shards_files_and_webdataset_read_the_same_below_the_folder_that_is_given(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    benchmark = runpy.run_path(str(BENCHMARKS / 'shards.py'))
    for module in ('common', 'loading'):
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr('tempfile.gettempdir', lambda: pytest.fail('a folder outside of the given one'))
    (tmp_path / '640x480/class').mkdir(parents=True)
    for number in range(6):
        Image.new('RGB', (16, 16), (40 * number, 10, 10)).save(tmp_path / f'640x480/class/{number:02}.jpg')
    found = benchmark['from_shards']('640x480', tmp_path)()
    assert found.diff().min() > 10  # in the order of the files
    assert torch.equal(found, benchmark['from_files']('640x480', tmp_path)())
    pytest.importorskip('webdataset', reason='its side of the benchmark runs where it is installed')
    assert torch.equal(found, benchmark['from_webdataset']('640x480', tmp_path)())
