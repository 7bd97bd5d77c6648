"""Search of pictures by text and by picture, whose cosines are known by hand, and an index that notices changes."""

import json
import os
import resource
import runpy
from pathlib import Path

import cv2
import forks
import numpy as np
import pytest
import torch
from mmengine.config import Config

from florence_mm.apis import RetrievalInferencer, retrieval_inferencer
from florence_mm.apis.embedding import fingerprint
from florence_mm.errors import UsageError
from florence_mm.formats.feature_index import FeatureIndex

ROOT = Path(__file__).parents[2]
images = runpy.run_path(str(ROOT / 'tests/test_apis/test_image_inferencer.py'))
videos = runpy.run_path(str(ROOT / 'tests/test_apis/test_video_inferencer.py'))
config, picture, write, two_towers = (images[name] for name in ('config', 'picture', 'write', 'two_towers'))
COLOURS = {'blue': (0, 0, 200), 'brown': (200, 100, 0), 'green': (0, 200, 0), 'red': (200, 0, 0)}


@pytest.fixture
def photos(tmp_path):
    for name, colour in COLOURS.items():
        write(tmp_path / f'photos/{name}.png', picture(colour))
    return tmp_path / 'photos'


def inferencer(folder, change=0.0):
    model = two_towers()
    model.image_projection.data += change
    file = folder / f'weights{change}.pth'
    torch.save({'state_dict': model.state_dict(), 'meta': {}}, file)
    return RetrievalInferencer(config(), file, 'cpu', batch_size=3)


def names(result):
    return [Path(file).stem for file in result['files']]


def test_text_and_picture_to_pictures(photos, tmp_path):
    search = inferencer(tmp_path)
    report = search.index(photos, tmp_path / 'index')
    assert (report.added, report.unchanged, report.failed) == (4, 0, [])
    by_text, by_picture = search.search(['something red', photos / 'brown.png'], top=3, out_dir=tmp_path / 'out')
    # the cosine of (2, 1, 0) with (1, 0, 0); blue and green are as far, and in the order of the index
    assert names(by_text) == ['red', 'brown', 'blue'] and by_text['scores'] == [1.0, round(2 / 5**0.5, 4), 0.0]
    assert names(by_picture) == ['brown', 'red', 'green'] and by_picture['query'] == str(photos / 'brown.png')
    assert by_picture['scores'] == [1.0, round(2 / 5**0.5, 4), round(1 / 5**0.5, 4)]
    written = json.loads((tmp_path / 'out/search.json').read_text())
    assert written['queries'] == [by_text, by_picture]
    grid = cv2.imread(str(tmp_path / 'out/search.png'))[..., ::-1]
    assert tuple(grid[12 + 50, 12 + 220 + 50]) == COLOURS['red']
    alone = search.search('something red', top=3)
    assert alone == [by_text]


def test_changed_and_vanished_files_are_noticed(photos, tmp_path):
    search = inferencer(tmp_path)
    search.index(photos, tmp_path / 'index')
    write(photos / 'blue.png', picture(COLOURS['red']))
    os.utime(photos / 'blue.png', (1, 1))
    (photos / 'red.png').unlink()
    (found,) = search.search('red', top=2)
    assert names(found) == ['brown', 'blue'] and found['changed'] == [str(photos / 'blue.png')]
    report = search.index(photos, tmp_path / 'index')
    assert (report.added, report.unchanged, report.changed, report.vanished) == (0, 2, 1, 1)
    (found,) = search.search('red', top=9)
    assert names(found) == ['blue', 'brown', 'green'] and found['changed'] == []


def test_an_index_is_appended_to_and_reused(photos, tmp_path, monkeypatch):
    search = inferencer(tmp_path)
    (photos / 'bad.png').write_bytes(b'no picture')
    report = search.index((file for file in sorted(photos.iterdir())[:3]), tmp_path / 'index')
    assert report.added == 2 and 'bad.png' in report.failed[0]['error']
    monkeypatch.chdir(photos)  # files are known from any folder
    assert search.index(['blue.png', 'green.png', 'green.png'], tmp_path / 'index').unchanged == 1
    again = inferencer(tmp_path)
    again.open(tmp_path / 'index')
    assert names(again.search('blue', top=9)[0]) == ['blue', 'brown', 'green']
    report = again.index(np.zeros((2, 2, 3), np.uint8), tmp_path / 'index')
    assert 'an index is of files' in report.failed[0]['error']


def test_an_index_of_other_weights_is_refused(photos, tmp_path):
    inferencer(tmp_path).index(photos, tmp_path / 'index')
    other = inferencer(tmp_path, change=0.25)
    for use in (other.open, lambda path: other.index(photos, path)):
        with pytest.raises(UsageError, match='was made with other weights or another model'):
            use(tmp_path / 'index')
    with pytest.raises(UsageError, match='no index is open'):
        other.search('red')
    with pytest.raises(UsageError, match='is of a RectangleFinder; give one of a two-tower model'):
        RetrievalInferencer(config(images['world']['RectangleFinder']), None, 'cpu')


def test_an_index_of_other_settings_is_refused(photos, tmp_path):
    search = inferencer(tmp_path)
    search.index(photos, tmp_path / 'index')
    same, scaled, other = (config() for _ in range(3))
    same.model['init_cfg'] = None
    scaled.data_preprocessor = {'mean': [128.0, 128.0, 128.0]}
    other.model['quick_gelu'] = True
    digests = [fingerprint(search.model, cfg, search.pipeline.pipeline) for cfg in (config(), same, scaled, other)]
    assert digests[0] == digests[1] and len(set(digests)) == 3
    # mean and standard deviation of images are in no checkpoint
    search.model.register_buffer('mean', torch.zeros(3), persistent=False)
    assert fingerprint(search.model, config(), search.pipeline.pipeline) not in digests


def test_an_index_names_its_model_for_other_folders(photos, tmp_path, monkeypatch):
    inferencer(tmp_path)
    monkeypatch.chdir(tmp_path)
    search = RetrievalInferencer(config(), 'weights0.0.pth', 'cpu')
    search.index('photos', 'index')
    assert json.loads(Path('index/index.json').read_text())['checkpoint'] == str(tmp_path / 'weights0.0.pth')


def clips_config():
    """Two towers whose features of a clip are its mean colour."""
    sample = {'type': 'mmaction.SampleFrames', 'clip_len': 2, 'num_clips': 2, 'test_mode': True}
    ends = [{'type': 'mmaction.FormatShape', 'input_format': 'NCTHW'}, {'type': 'florence_mm.PackVideoText'}]
    pipeline = [{'type': 'florence_mm.VideoInit'}, sample, {'type': 'florence_mm.VideoDecode'}, *ends]
    dataset = {'type': 'florence_mm.VideoManifest', 'ann_file': 'nowhere.jsonl', 'pipeline': pipeline}
    model = {'type': lambda: images['world']['classifier'](videos['Cells']())}
    return Config({'model': model, 'test_dataloader': {'dataset': dataset}})


def test_text_to_videos(tmp_path):
    write_video = videos['write']
    for name, colours in {'red': ('red', 'red'), 'both': ('red', 'green'), 'green': ('green', 'green')}.items():
        write_video(tmp_path / f'clips/{name}.mp4', *colours)
    (tmp_path / 'clips/bad.mp4').write_bytes((tmp_path / 'clips/red.mp4').read_bytes()[:200])
    (tmp_path / 'clips/a.png').write_bytes(b'no video')
    search = RetrievalInferencer(clips_config(), None, 'cpu', batch_size=3)
    report = search.index(tmp_path / 'clips', tmp_path / 'index')
    assert (report.added, len(report.failed)) == (3, 1) and 'bad.mp4' in report.failed[0]['error']
    (found,) = search.search('red', top=2, out_dir=tmp_path / 'out')
    # (200, 40, 40) and the mean of it and (40, 200, 40), compared with (1, 0, 0); coding changes colours a little
    assert names(found) == ['red', 'both']
    wanted = [200 / (200**2 + 2 * 40**2) ** 0.5, 120 / (2 * 120**2 + 40**2) ** 0.5]
    assert found['scores'] == pytest.approx(wanted, abs=0.02)
    grid = cv2.imread(str(tmp_path / 'out/search.png'))[..., ::-1].astype(int)
    # the frames in the middle of both: the fifth of eight is the first of the second colour
    for number, colour in enumerate(((200, 40, 40), (40, 200, 40))):
        assert abs(grid[12 + 56, 12 + 220 + 122 * number + 56] - colour).max() < 12
    assert search.index(tmp_path / 'clips', tmp_path / 'index').unchanged == 3
    with pytest.raises(UsageError, match='is of a video model, which takes no picture; search by a text'):
        search.search(np.zeros((8, 8, 3), np.uint8))


def test_indexing_that_is_stopped_keeps_what_was_done(photos, tmp_path, monkeypatch):
    search = inferencer(tmp_path)
    monkeypatch.setattr(retrieval_inferencer, '_AT_ONCE', 2)

    def stopped(number):
        for file in sorted(photos.iterdir()) * 2:
            number -= 1
            if number < 0:
                raise KeyboardInterrupt
            yield file

    with pytest.raises(KeyboardInterrupt):
        search.index(stopped(3), tmp_path / 'index')
    assert len(FeatureIndex.open(tmp_path / 'index')) == 3
    report = search.index(photos, tmp_path / 'index')
    assert (report.added, report.unchanged) == (1, 3)
    # before the first picture is embedded nothing is left behind
    with pytest.raises(KeyboardInterrupt):
        search.index(stopped(0), tmp_path / 'other')
    assert not (tmp_path / 'other').exists()


def test_a_full_disk_keeps_what_was_indexed(photos, tmp_path):
    for number in range(40):
        write(photos / f'more/{number:02}.png', picture((200, number, 0)))
    search = inferencer(tmp_path)

    def run():
        size = 40 * (len(str(photos)) + 60)  # of about half of the lines
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, resource.RLIM_INFINITY))
        retrieval_inferencer._AT_ONCE = 5
        with pytest.raises(UsageError, match='File too large.; it keeps what was indexed before, so make room'):
            search.index(photos, tmp_path / 'index')

    assert forks.wait([forks.start(run)]) == [0]
    index = FeatureIndex.open(tmp_path / 'index')
    assert 5 <= len(index) <= 40 and len(index) % 5 == 0
    report = search.index(photos, tmp_path / 'index')
    assert (report.added, report.unchanged) == (44 - len(index), len(index))


def test_rows_of_files_that_are_gone_are_removed(photos, tmp_path):
    search = inferencer(tmp_path)
    search.index(photos, tmp_path / 'index')
    (photos / 'blue.png').unlink()
    search.index(photos, tmp_path / 'index')
    assert len(search.open(tmp_path / 'index').items) == 4  # a quarter stays
    write(photos / 'green.png', picture(COLOURS['red'], (9, 9)))
    report = search.index(photos, tmp_path / 'index')
    assert report.changed == 1 and len(search.open(tmp_path / 'index').items) == 3
    assert names(search.search('red', top=9)[0]) == ['red', 'green', 'brown']


def test_queries_that_cannot_be(photos, tmp_path):
    search = inferencer(tmp_path)
    search.index(photos, tmp_path / 'index')
    for query, words in ((' ', 'a query is empty'), ([], 'there are no queries')):
        with pytest.raises(UsageError, match=words):
            search.search(query)
    with pytest.raises(UsageError, match='top is 0'):
        search.search('red', top=0)
