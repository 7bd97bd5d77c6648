"""MSR-VTT's public files as manifests."""

import json
import runpy
import sys
from pathlib import Path

import pytest

from florence_mm.datasets import ImageTextManifest
from florence_mm.errors import DataError, UsageError
from florence_mm.preparation.msrvtt import VideoFiles, read_captions, read_queries, read_training_videos, write_msrvtt

TOOL = Path(__file__).parents[2] / 'tools/dataset_converters/prepare_msrvtt.py'
TEST_CSV = (
    'key,vid_key,video_id,sentence\n'
    'ret0,msr9770,video9770,a person is connecting something\n'
    'ret1,msr9771,video9771,"two dogs, one of them black"\n'
)
SENTENCES = [
    {'caption': 'a car drives', 'video_id': 'video0', 'sen_id': 0},
    {'caption': 'a cat sleeps', 'video_id': 'video2', 'sen_id': 1},
    {'caption': 'a red car', 'video_id': 'video0', 'sen_id': 2},
    {'caption': 'never trained on', 'video_id': 'video9770', 'sen_id': 3},
]


@pytest.fixture
def public(tmp_path):
    """The three public files and the folder of videos."""
    (tmp_path / 'test.csv').write_text(TEST_CSV)
    (tmp_path / 'train.csv').write_text('video_id\nvideo2\nvideo0\n')
    (tmp_path / 'data.json').write_text(json.dumps({'info': {}, 'videos': [], 'sentences': SENTENCES}))
    videos = tmp_path / 'videos'
    videos.mkdir()
    for name in ('video0', 'video2', 'video9770', 'video9771'):
        (videos / f'{name}.mp4').write_bytes(b'x')
    return tmp_path


def write(folder, max_missing=0, **kwargs):
    files = VideoFiles(folder / 'videos', max_missing=max_missing)
    arguments = {'train_csv': folder / 'train.csv', 'annotations': folder / 'data.json'} | kwargs
    return files, write_msrvtt(folder / 'out', files, folder / 'test.csv', **arguments)


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_manifests_by_hand_and_as_the_data_set_reads_them(public):
    _, counts = write(public)
    assert counts == {'test': 2, 'train': 2}
    assert rows(public / 'out/test.jsonl') == [
        {'video': 'video9770.mp4', 'texts': ['a person is connecting something']},
        {'video': 'video9771.mp4', 'texts': ['two dogs, one of them black']},
    ]
    assert rows(public / 'out/train.jsonl') == [
        {'video': 'video2.mp4', 'texts': ['a cat sleeps']},
        {'video': 'video0.mp4', 'texts': ['a car drives', 'a red car']},
    ]
    data = ImageTextManifest(
        str(public / 'out/train.jsonl'), data_prefix=str(public / 'videos'), columns={'image': 'video'}
    )
    sample = data.get_data_info(1)
    assert sample['img_path'] == str(public / 'videos/video0.mp4')
    assert sample['texts'] == ['a car drives', 'a red car']


def test_zero_shot_needs_the_test_list_alone(public):
    _, counts = write(public, train_csv=None, annotations=None)
    assert counts == {'test': 2}
    assert not (public / 'out/train.jsonl').exists()


def test_missing_videos_are_refused_or_counted(public):
    (public / 'videos/video9771.mp4').unlink()
    (public / 'videos/video2.mp4').unlink()
    with pytest.raises(DataError, match=r'videos lacks video9771.mp4, and 0 missing videos are allowed; restore it'):
        write(public)
    with pytest.raises(DataError, match=r'lacks video2.mp4, and 1 missing'):
        write(public, max_missing=1)
    assert not (public / 'out').exists()
    files, counts = write(public, max_missing=2)
    assert (counts, files.missing) == ({'test': 1, 'train': 1}, ['video9771.mp4', 'video2.mp4'])
    (public / 'videos/video9770.mp4').unlink()
    with pytest.raises(DataError, match='none of the test videos is in .*videos'):
        write(public, max_missing=9)
    with pytest.raises(FileNotFoundError, match='there is no folder .*elsewhere; give the one with the videos'):
        VideoFiles(public / 'elsewhere')


def test_faults_are_one_sentence_each(public):
    path = public / 'bad.csv'
    path.write_text('key,video\nret0,video1\n')
    with pytest.raises(DataError, match=r"bad.csv, line 2: no 'video_id'; .* here video_id, sentence$"):
        read_queries(path)
    path.write_text('video_id,sentence\nvideo1,a\nvideo2,\n')
    with pytest.raises(DataError, match="line 3: no 'sentence'"):
        read_queries(path)
    path.write_text('video_id,sentence\nvideo1,a\nvideo2,b\nvideo1,c\n')
    with pytest.raises(DataError, match="line 4: the video 'video1' is that of line 2"):
        read_queries(path)
    path.write_text('video_id\nvideo1\nvideo1\n')
    with pytest.raises(DataError, match="line 3: the video 'video1' is that of line 2"):
        read_training_videos(path)
    with pytest.raises(FileNotFoundError, match=r'none.csv'):
        read_queries(public / 'none.csv')
    with pytest.raises(DataError, match="'video9770' is a test video of .*test.csv"):
        (public / 'train.csv').write_text('video_id\nvideo0\nvideo9770\n')
        write(public)
    with pytest.raises(DataError, match="'video7' has no caption in .*data.json"):
        (public / 'train.csv').write_text('video_id\nvideo7\n')
        write(public)
    with pytest.raises(DataError, match='names videos without captions; give MSRVTT_data.json too'):
        write(public, annotations=None)
    with pytest.raises(DataError, match=r'data.json has captions of training videos, .*; give --train-csv too$'):
        write(public, train_csv=None)
    with pytest.raises(DataError, match=r'^-1 videos may be missing; give 0 or more \(--skip-missing\)$'):
        write(public, max_missing=-1)
    assert not (public / 'out').exists()


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('{"sentences": [', 'cannot be read as JSON'),
        ('[1]', 'holds a list; expected an object'),
        ('{"videos": []}', 'has no list .sentences.'),
        ('{"sentences": [{"caption": "a"}]}', 'sentence 0 lacks `video_id` or `caption`'),
        ('{"sentences": ["a"]}', 'sentence 0 lacks'),
        ('{"sentences": [{"caption": " ", "video_id": "video1"}]}', "sentence 0: the text ' ' is empty"),
    ],
)
def test_faults_of_the_captions(tmp_path, content, message):
    (tmp_path / 'data.json').write_text(content)
    with pytest.raises(DataError, match=message):
        read_captions(tmp_path / 'data.json')


def test_command(public, monkeypatch, capsys):
    def run(*arguments):
        common = ['--test-csv', public / 'test.csv', '--videos', public / 'videos', '--out', public / 'out']
        monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, [*common, *arguments])])
        runpy.run_path(str(TOOL), run_name='__main__')
        return capsys.readouterr().out

    out = run('--train-csv', public / 'train.csv', '--annotations', public / 'data.json')
    assert out == f'{public / "out"}: 2 videos in test.jsonl, 2 videos in train.jsonl\n'
    (public / 'videos/video9771.mp4').unlink()
    assert 'missing videos left out: 1; recall over fewer videos' in run('--skip-missing', '1')
    with pytest.raises(SystemExit) as end:
        run()
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ') and error.count('\n') == 1 and 'lacks video9771.mp4' in error


def test_outputs_never_replace_inputs(public):
    listed = public / 'test.jsonl'
    listed.write_text(json.dumps({'video_id': 'video0', 'sentence': 'a car'}) + '\n')
    before = listed.read_text()
    with pytest.raises(UsageError, match='--out .*test.jsonl is the input .*test.jsonl, which it would replace'):
        write_msrvtt(public / '.', VideoFiles(public / 'videos'), listed)
    assert listed.read_text() == before
