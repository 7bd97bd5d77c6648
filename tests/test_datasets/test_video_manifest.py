"""Videos in a manifest: missing, empty and damaged ones are named, or left out and counted."""

import json

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader

from florence_mm.datasets import ImageTextManifest
from florence_mm.errors import DataError
from florence_mm.formats.video import encode_mp4


def number(results):
    """Which video it is, by its grey, and its text."""
    return torch.tensor(round(results['imgs'][0].mean() / 20)), results['text']


def build(folder, **kwargs):
    sample = {'type': 'mmaction.SampleFrames', 'clip_len': 4, 'test_mode': True}
    pipeline = [{'type': 'VideoInit'}, sample, {'type': 'VideoDecode'}, number]
    columns = {'image': 'video'}
    return ImageTextManifest(str(folder / 'm.jsonl'), columns=columns, pipeline=pipeline, **kwargs)


@pytest.fixture
def folder(tmp_path):
    """Six videos; number 1 is missing, 2 is empty, 3 is no video, 4 is damaged in its frames alone."""
    rng = np.random.default_rng(0)
    for i in range(6):
        frames = np.full((4, 32, 64, 3), 20 * i, dtype=np.uint8)
        if i == 4:
            frames = rng.integers(0, 255, frames.shape, dtype=np.uint8)
        (tmp_path / f'{i}.mp4').write_bytes(encode_mp4(frames))
    (tmp_path / '1.mp4').unlink()
    (tmp_path / '2.mp4').write_bytes(b'')
    (tmp_path / '3.mp4').write_bytes(b'no video ' * 99)
    whole = (tmp_path / '4.mp4').read_bytes()
    start = whole.index(b'mdat') + 1000
    (tmp_path / '4.mp4').write_bytes(whole[:start] + bytes(2000) + whole[start + 2000 :])
    rows = [json.dumps({'video': f'{i}.mp4', 'text': f'video {i}'}) for i in range(6)]
    (tmp_path / 'm.jsonl').write_text('\n'.join(rows))
    return tmp_path


def test_bad_videos_are_named(folder):
    dataset = build(folder)
    assert [value.item() for value in (dataset[0][0], dataset[5][0])] == [0, 5]
    for index, message in (
        (1, r'm.jsonl, line 2: the video .*1.mp4 cannot be read \(No such file'),
        (2, 'm.jsonl, line 3: the video .*2.mp4 is an empty file'),
        (3, 'm.jsonl, line 4: the video .*3.mp4 cannot be read'),
        (4, 'm.jsonl, line 5: the video .*4.mp4 (cannot be decoded|is damaged)'),
    ):
        with pytest.raises(DataError, match=message):
            dataset[index]


@pytest.mark.parametrize('workers', [0, 1, 2])
def test_training_takes_the_next_and_counts_each_once(folder, workers):
    dataset = build(folder, skip_bad={'max': 4})
    for _ in range(2):
        loader = DataLoader(dataset, 2, num_workers=workers, collate_fn=pseudo_collate)
        found = [(value.item(), text) for values, texts in loader for value, text in zip(values, texts, strict=True)]
        assert found == [(0, 'video 0')] + [(5, 'video 5')] * 5
    assert dataset.num_skipped == 4
    few = DataLoader(build(folder, skip_bad={'max': 2}), 6, num_workers=workers, collate_fn=pseudo_collate)
    with pytest.raises(DataError, match='3 rows are unusable, more than the 2 that skip_bad allows.*line 4'):
        list(few)


def test_evaluation_leaves_them_out_at_the_start(folder):
    dataset = build(folder, skip_bad={'max': 4}, test_mode=True)
    assert [value.item() for value, _ in dataset] == [0, 5]
    assert dataset.metainfo['num_skipped'] == 4
    with pytest.raises(DataError, match='4 rows are unusable, more than the 3 that skip_bad allows.*line 5'):
        build(folder, skip_bad={'max': 3}, test_mode=True)
