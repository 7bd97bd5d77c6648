"""Lists of videos: what a line may look like, and the sentence of every line that may not."""

import numpy as np
import pytest
from mmaction.datasets import VideoDataset

from florence_mm.datasets import VideoList
from florence_mm.errors import DataError
from florence_mm.formats.video import write_mp4
from florence_mm.registry import DATASETS


@pytest.fixture
def build(tmp_path):
    def build(text, **settings):
        data = text if isinstance(text, bytes) else text.encode()
        (tmp_path / 'videos.txt').write_bytes(data)
        return DATASETS.build(
            {
                'type': 'florence_mm.VideoList',
                'data_root': str(tmp_path),
                'ann_file': 'videos.txt',
                'data_prefix': {'video': 'clips'},
                **settings,
            }
        )

    return build


def test_samples_are_those_of_mmaction2(build, tmp_path):
    ours = build('b/2.mp4 3\na/1.mp4 0\n')
    theirs = VideoDataset(
        ann_file='videos.txt', data_root=str(tmp_path), data_prefix={'video': 'clips'}, pipeline=[], test_mode=True
    )
    assert [ours.get_data_info(i)['source'] for i in range(2)] == [f'{tmp_path}/videos.txt, line {i}' for i in (1, 2)]
    for i in range(2):
        sample = ours.get_data_info(i)
        del sample['source']
        assert sample == theirs.get_data_info(i)
    assert ours.get_data_info(0)['label'] == 3
    assert ours.largest_label == (3, 1)
    assert ours.metainfo == {}  # so that lists can be concatenated


def test_blanks_in_paths_empty_lines_and_other_delimiters(build, tmp_path):
    data = build('\ufeffriding a bike/1.mp4 1\r\n\n  \nx.mp4 0')
    assert [data[i]['filename'] for i in range(2)] == [
        f'{tmp_path}/clips/{n}' for n in ('riding a bike/1.mp4', 'x.mp4')
    ]
    assert data[1]['source'].endswith('line 4')
    assert build('riding a bike/1.mp4,2\n', delimiter=',')[0]['label'] == 2
    assert build('/abs/1.mp4 2\n')[0]['filename'] == '/abs/1.mp4'


def test_class_names_from_a_list_or_a_file(build, tmp_path):
    (tmp_path / 'names.txt').write_text('left\nright\n')
    assert build('1.mp4 1\n', classes=['left', 'right']).metainfo['classes'] == ('left', 'right')
    assert build('1.mp4 1\n', classes=str(tmp_path / 'names.txt')).metainfo['classes'] == ('left', 'right')


@pytest.mark.parametrize(
    'text, message',
    [
        ('', 'videos.txt lists no videos; write a path and the number of its class a line'),
        ('\n \n', 'lists no videos'),
        ('1.mp4 0\n2.mp4\n', "line 2: '2.mp4' is not a path and the number of its class with ' ' between"),
        ('1.mp4 left\n', "line 1: '1.mp4 left' is not a path and the number"),
        ('1.mp4 -1\n', 'line 1: .* is not a path and the number'),
        ('1.mp4\t0\n', 'line 1: .* is not a path and the number'),
        ('1.mp4 0\n2.mp4 2\n', "line 2: class 2 of '2.mp4' is outside 0 to 1; correct it or `classes`"),
        (
            b'\xff\xfe1.mp4 0',
            'is not UTF-8 text .*; save it as UTF-8 text with a path and the number of its class',
        ),
    ],
)
def test_unusable_lists_give_a_sentence(build, text, message):
    with pytest.raises(DataError, match=message) as error:
        build(text, classes=['left', 'right'])
    assert 'videos.txt' in str(error.value) and '\n' not in str(error.value)


def test_a_list_that_is_not_there_and_contradicting_arguments(tmp_path):
    with pytest.raises(FileNotFoundError, match='no list of videos .*none.txt; make it or correct `ann_file`'):
        VideoList(str(tmp_path / 'none.txt'))
    with pytest.raises(ValueError, match="delimiter='' must be what stands between"):
        VideoList('x.txt', delimiter='')
    with pytest.raises(ValueError, match='give the class names once'):
        VideoList('x.txt', classes=['a'], metainfo={'classes': ['a']})
    with pytest.raises(ValueError, match=r"must be a string or dict\(video='...'\)"):
        VideoList('x.txt', data_prefix={'img': 'clips'})


@pytest.fixture
def clips(tmp_path):
    """Three clips, of which the second is cut off."""
    for number in range(3):
        write_mp4(tmp_path / f'clips/{number}.mp4', np.full((4, 16, 16, 3), 60 * number, np.uint8), 8)
    cut = tmp_path / 'clips/1.mp4'
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])


def take_two(results):
    return {**results, 'frame_inds': np.arange(2)}


OURS = [{'type': 'florence_mm.VideoInit'}, take_two, {'type': 'florence_mm.VideoDecode'}]
THEIRS = [{'type': 'mmaction.OpenCVInit'}, take_two, {'type': 'mmaction.OpenCVDecode'}]


@pytest.mark.parametrize('pipeline', [OURS, THEIRS], ids=['ours', "mmaction2's"])
def test_unusable_lines_and_videos_are_skipped_and_counted(build, clips, pipeline):
    text = '0.mp4 0\n1.mp4 1\nno class\n2.mp4 2\n'
    with pytest.raises(DataError, match='line 3'):
        build(text, pipeline=pipeline)
    with pytest.raises(DataError, match='line 2: the video .*1.mp4 '):
        build('0.mp4 0\n1.mp4 1\n', pipeline=pipeline)[1]
    data = build(text, pipeline=pipeline, skip_bad={'max': 2})
    assert [data[i]['label'] for i in (0, 1, 2, 1)] == [0, 2, 2, 2]
    assert data.num_skipped == 2
    assert len(data[0]['imgs']) == 2
    test = build(text, pipeline=pipeline, skip_bad={'max': 2}, test_mode=True)
    assert [test[i]['label'] for i in range(len(test))] == [0, 2]
    assert test.metainfo['num_skipped'] == test.num_skipped == 2
    with pytest.raises(DataError, match='2 rows are unusable, more than the 1 that skip_bad allows'):
        build(text, pipeline=pipeline, skip_bad={'max': 1})[1]


def test_a_fault_of_a_transform_is_not_skipped(build, clips):
    def fails(results):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        build('0.mp4 0\n', pipeline=[OURS[0], fails], skip_bad={'max': 1})[0]
    with pytest.raises(ValueError, match='no transform of the pipeline loads one'):
        build('0.mp4 0\n', pipeline=[take_two], skip_bad={'max': 1}, test_mode=True)
