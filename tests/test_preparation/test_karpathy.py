import json
import runpy
import sys
from pathlib import Path

import pytest

from florence_mm.datasets import ImageTextManifest
from florence_mm.errors import DataError
from florence_mm.preparation.karpathy import read_karpathy
from florence_mm.smoke.pictures import write_pictures

TOOL = Path(__file__).parents[2] / 'tools/dataset_converters/prepare_karpathy.py'


def entry(number, split, captions, **more):
    sentences = [{'tokens': text.split(), 'raw': text, 'imgid': number, 'sentid': i} for i, text in enumerate(captions)]
    return {'filename': f'{number}.png', 'imgid': number, 'split': split, 'sentences': sentences, **more}


COCO = [
    entry(0, 'test', ['A man.', 'a man with a  red helmet\n'], filepath='val2014', cocoid=391895, sentids=[0, 1]),
    entry(1, 'restval', ['a dog', ' '], filepath='val2014', cocoid=77),
    entry(2, 'train', ['a bus'], filepath='train2014', cocoid=5),
    entry(3, 'val', ['a cat'], filepath='val2014', cocoid=6),
]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / 'dataset_coco.json'
    path.write_text(json.dumps({'dataset': 'coco', 'images': COCO}))
    return path


def test_rows_by_hand(file):
    splits = read_karpathy(file)
    assert splits == {
        'train': [
            {'image': 'val2014/1.png', 'texts': ['a dog'], 'image_id': 77},
            {'image': 'train2014/2.png', 'texts': ['a bus'], 'image_id': 5},
        ],
        'val': [{'image': 'val2014/3.png', 'texts': ['a cat'], 'image_id': 6}],
        'test': [{'image': 'val2014/0.png', 'texts': ['A man.', 'a man with a red helmet'], 'image_id': 391895}],
    }
    assert [row['image_id'] for row in read_karpathy(file, with_rest=False)['train']] == [5]
    # Flickr30k has neither folders nor numbers of its own
    file.write_text(json.dumps({'images': [entry(8, 'train', ['x'])]}))
    assert read_karpathy(file)['train'] == [{'image': '8.png', 'texts': ['x'], 'image_id': 8}]


@pytest.mark.parametrize(
    ('images', 'message'),
    [
        ([{'filename': 'a'}], r"images\[0\] has no 'sentences'"),
        ([entry(0, 'train', [' '])], r'images\[0\] \(0.png\) has no captions'),
        ([entry(0, 'dev', ['a'])], r"images\[0\] has the split 'dev'; expected one of train, val, test, restval"),
        ([entry(0, 'train', ['a']), entry(0, 'val', ['a'])], r'images\[1\] is of 0.png, as an entry before it'),
        ([{'filename': 'a', 'sentences': [{'tokens': []}]}], 'has a sentence without `raw` text'),
        ([{'filename': 'a', 'sentences': None}], r'images\[0\] has sentences=None; expected a list'),
        ([{'filename': 3, 'sentences': []}], r'images\[0\]: the filename must be a string, but is 3'),
        ([entry(0, ['train'], ['a'])], r"images\[0\] has the split \['train'\]"),
        (None, 'has no list .images.'),
    ],
)
def test_bad_entries(file, images, message):
    file.write_text(json.dumps({} if images is None else {'images': images}))
    with pytest.raises(DataError, match=message):
        read_karpathy(file)
    file.write_text('{')
    with pytest.raises(DataError, match='cannot be read as JSON'):
        read_karpathy(file)
    with pytest.raises(FileNotFoundError, match='dataset_\\*.json of the Karpathy splits'):
        read_karpathy(file.parent / 'none.json')


def test_command(file, tmp_path, monkeypatch, capsys):
    for name in write_pictures(tmp_path / 'all', 4, (8, 8)):
        folder = tmp_path / ('train2014' if name[0] == '2' else 'val2014')
        folder.mkdir(exist_ok=True)
        (tmp_path / 'all' / name).rename(folder / name)
    arguments = [str(TOOL), str(file), '--out', str(tmp_path / 'out'), '--images', str(tmp_path)]
    monkeypatch.setattr(sys, 'argv', arguments)
    runpy.run_path(str(TOOL), run_name='__main__')
    assert 'images (captions): train 2 (2), val 1 (1), test 1 (2)' in capsys.readouterr().out
    dataset = ImageTextManifest(
        ann_file=str(tmp_path / 'out/test.jsonl'), data_prefix=str(tmp_path), test_mode=True,
        pipeline=[{'type': 'LoadImage'}, {'type': 'PackImageText'}],
    )  # fmt: skip
    assert dataset[0]['data_samples'].texts == ['A man.', 'a man with a red helmet']
    (tmp_path / 'val2014/3.png').unlink()
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(TOOL), run_name='__main__')
    assert stopped.value.code == 2 and '1 of 4 images are missing, the first is' in capsys.readouterr().err


def test_blank_captions_and_empty_files(file):
    blank = entry(0, 'train', ['\u200b', 'A  dog.\n', ' '])
    file.write_text(json.dumps({'images': [blank]}))
    assert read_karpathy(file)['train'][0]['texts'] == ['A dog.']
    for images, message in (
        ([], 'lists no images to use'),
        ([{**blank, 'filename': ' '}], r"images\[0\]: the filename ' ' is empty"),
        ([{**blank, 'filepath': ['a']}], r"images\[0\]: the filepath must be a string, but is \['a'\]"),
        ([entry(0, 'train', ['\u2800'])], 'has no captions'),
        ([blank, {**blank, 'filepath': './' + blank.get('filepath', '')}], r'images\[1\] is of'),
    ):
        file.write_text(json.dumps({'images': images}))
        with pytest.raises(DataError, match=message):
            read_karpathy(file)
    with pytest.raises(DataError, match='lists no images to use'):
        file.write_text(json.dumps({'images': [{**blank, 'split': 'restval'}]}))
        read_karpathy(file, with_rest=False)
