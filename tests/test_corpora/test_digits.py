import json
import runpy
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_digits

from florence_mm.corpora.digits import digit_indices, load_digits_split, render_digit, write_digits
from florence_mm.datasets import ImageTextManifest

TOOL = Path(__file__).parents[2] / 'tools/dataset_converters/prepare_digits.py'


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
    out = tmp_path_factory.mktemp('digits') / 'new/folder'
    assert write_digits(out) == (1800, 1800)
    return out


def test_split_is_whole_disjoint_and_stratified():
    train, test = digit_indices('train'), digit_indices('test')
    assert (len(train), len(test)) == (1347, 450)
    assert sorted([*train, *test]) == list(range(1797))
    everything = load_digits()
    for split, indices in (('train', train), ('test', test)):
        images, labels = load_digits_split(split)
        assert images.dtype == np.float32
        np.testing.assert_array_equal(images * 16, everything.images[indices])
        np.testing.assert_array_equal(labels, everything.target[indices])
    # a quarter of each digit, rounded
    counts = np.bincount(everything.target)
    np.testing.assert_array_equal(np.bincount(load_digits_split('test')[1]), np.round(counts / 4))
    # no image is in both
    both = {image.tobytes() for image in load_digits_split('train')[0]}
    assert not both & {image.tobytes() for image in load_digits_split('test')[0]}


def test_split_never_changes():
    # the numbers were written down when the split was made
    assert digit_indices('test')[:8].tolist() == [14, 19, 20, 21, 26, 27, 29, 36]
    assert int(digit_indices('test').sum()) == 406916


def test_unknown_split():
    with pytest.raises(ValueError, match="split='val' must be 'train' or 'test'"):
        load_digits_split('val')


def test_rendering_keeps_flat_areas_and_orientation():
    image = np.zeros((8, 8), dtype=np.float32)
    image[:, :4] = 1
    large = render_digit(image, 32)
    assert large.dtype == np.uint8
    assert large.shape == (32, 32)
    # a margin of 3, then 26 pixels for 8
    assert (large[3:29, 3:12] == 255).all()
    assert (large[:, 20:] == 0).all()
    border = np.ones((32, 32), dtype=bool)
    border[3:29, 3:29] = False
    assert (large[border] == 0).all()
    np.testing.assert_array_equal(render_digit(image, 8), (image * 255).astype(np.uint8))


def test_files_are_the_split(digits):
    for split, rows in (('train', 1347), ('test', 450)):
        lines = [json.loads(line) for line in (digits / f'{split}.jsonl').read_text().splitlines()]
        images, labels = load_digits_split(split)
        assert len(lines) == rows
        for line, image, label in list(zip(lines, images, labels, strict=True))[::97]:
            stored = cv2.imread(str(digits / line['image']), cv2.IMREAD_UNCHANGED)
            np.testing.assert_array_equal(stored, render_digit(image, 32))
            name = ['zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine'][label]
            for text in [line.get('class'), line.get('text'), *line.get('texts', [])]:
                assert text is None or name in text


def test_training_manifest_mixes_classes_and_captions(digits):
    dataset = ImageTextManifest(str(digits / 'train.jsonl'), classes='digits')
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    classes = ImageTextManifest(str(digits / 'train_classes.jsonl'), classes='digits')
    assert [classes.get_data_info(i)['gt_label'] for i in range(1347)] == load_digits_split('train')[1].tolist()
    kinds = Counter(info['is_class'] for info in infos)
    assert 0.45 < kinds[True] / 1347 < 0.55
    assert Counter(len(info['text'].split()) for info in infos if not info['is_class']).keys() == {1, 3, 4, 6, 7}
    test = ImageTextManifest(str(digits / 'test.jsonl'), classes='digits', test_mode=True)
    infos = [test.get_data_info(i) for i in range(len(test))]
    assert [info['gt_label'] for info in infos] == load_digits_split('test')[1].tolist()
    assert {len(info['texts']) for info in infos} == {4}


def test_second_run_writes_only_what_is_missing(digits):
    assert write_digits(digits) == (0, 1800)
    (digits / 'mine.txt').write_text('x')
    first = next((digits / 'test').iterdir())
    good = first.read_bytes()
    first.write_bytes(good[:-5])
    (digits / 'train.jsonl').unlink()
    assert write_digits(digits) == (2, 1800)
    assert first.read_bytes() == good
    assert (digits / 'mine.txt').exists()
    assert not [path for path in digits.rglob('*') if path.name.endswith('.tmp')]


def run_tool(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, arguments)])
    runpy.run_path(str(TOOL), run_name='__main__')


def test_command(tmp_path, monkeypatch, capsys):
    run_tool(monkeypatch, '--out', tmp_path / 'd', '--size', '16')
    assert '1347 training and 450 test digits of 16x16 pixels; wrote 1800 of 1800 files' in capsys.readouterr().out
    run_tool(monkeypatch, '--out', tmp_path / 'd', '--size', '16')
    assert 'all 1800 files were there already' in capsys.readouterr().out
    (tmp_path / 'file').write_text('')
    for arguments, message in (
        (('--out', tmp_path / 'file'), f'error: {tmp_path / "file"}'),
        (('--out', tmp_path / 'd', '--size', '4'), 'error: size=4 must be at least 8'),
    ):
        with pytest.raises(SystemExit) as stopped:
            run_tool(monkeypatch, *arguments)
        assert stopped.value.code == 2 and capsys.readouterr().err.startswith(message)
