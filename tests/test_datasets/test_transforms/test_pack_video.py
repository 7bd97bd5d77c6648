from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate

from florence_mm.corpora.clips import ClipOptions, write_clips
from florence_mm.datasets.transforms import PackVideoText
from florence_mm.formats.video import open_video
from florence_mm.language.labels import text_label
from florence_mm.models.preprocessor import ImageTextDataPreprocessor
from florence_mm.registry import DATASETS

CONFIG = Path(__file__).parents[3] / 'configs/_base_/datasets/clips_text.py'


def test_pack_by_hand():
    clips = np.arange(2 * 3 * 4 * 1 * 2, dtype=np.uint8).reshape(2, 3, 4, 1, 2)
    data = PackVideoText()(
        {'imgs': clips, 'text': 'a seven', 'texts': ['a seven', 'seven'], 'gt_label': 7, 'num_clips': 2, 'unknown': 1}
    )
    assert data['inputs'].dtype == torch.uint8
    assert np.array_equal(data['inputs'].numpy(), clips)
    sample = data['data_samples']
    assert (sample.text, sample.texts, sample.augmented) == ('a seven', ['a seven', 'seven'], False)
    assert sample.label_key == text_label('a seven')
    assert sample.gt_label.tolist() == [7]
    assert sample.metainfo == {'num_clips': 2}


def test_other_shapes_are_named():
    frames = np.zeros((2, 4, 4, 3), dtype=np.uint8)
    for bad, got in (
        (list(frames), 'a list of frames'),
        (frames, r'shape \(2, 4, 4, 3\) and type uint8'),
        (np.zeros((1, 2, 3, 4, 4), dtype=np.uint8), r'shape \(1, 2, 3, 4, 4\)'),
        (np.zeros((1, 3, 2, 4, 4), dtype=np.float32), r'shape .* and type float32'),
    ):
        with pytest.raises(ValueError, match=f'row 3: PackVideoText got {got}.*FormatShape'):
            PackVideoText()({'imgs': bad, 'text': 'a', 'source': 'row 3'})


def test_the_clips_reach_the_model_with_their_captions(tmp_path):
    write_clips(tmp_path, ClipOptions(train=3, test=2))
    cfg = Config.fromfile(CONFIG)
    cfg.val_dataloader.dataset.ann_file = str(tmp_path / 'test.jsonl')
    data = DATASETS.build(cfg.val_dataloader.dataset)
    batch = pseudo_collate([data[0], data[1]])
    assert [sample.texts for sample in batch['data_samples']] == [
        ['a zero moving to the left'],
        ['a one moving to the left'],
    ]
    path = tmp_path / 'test/000001.mp4'
    video = open_video(path.read_bytes(), str(path))
    frames = video.read(range(0, 16, 2))  # (8, H, W, 3)
    video.close()
    assert np.array_equal(batch['inputs'][1].numpy(), frames.transpose(3, 0, 1, 2)[None])
    out = ImageTextDataPreprocessor(mean=(0, 0, 0), std=(1, 1, 1))(batch)
    assert out['inputs'].shape == (2, 1, 3, 8, 64, 64)
    assert out['inputs'][1, 0, 2, 5, 10, 20] == frames[5, 10, 20, 2]
