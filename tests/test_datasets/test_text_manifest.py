"""Texts without images, and batches that mix them with pictures."""

import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate

from florence_mm.datasets import TextManifest
from florence_mm.errors import DataError, UsageError
from florence_mm.models.preprocessor import ImageTextDataPreprocessor
from florence_mm.registry import DATASETS

PACK = [{'type': 'PackImageText'}]


def build(folder, rows, **kwargs):
    (folder / 'texts.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    config = {'type': 'TextManifest', 'ann_file': str(folder / 'texts.jsonl'), 'pipeline': PACK}
    return DATASETS.build({**config, **kwargs})


def test_a_text_comes_without_a_picture_and_says_so(tmp_path):
    rows = [{'text': 'A Dog.'}, {'image': 'gone.png', 'texts': ['b', 'c']}, {'image': 'gone.png', 'texts': ['b']}]
    texts = build(tmp_path, rows, test_mode=True)
    assert isinstance(texts, TextManifest)
    found = [texts[index] for index in range(3)]
    assert [packed['data_samples'].text for packed in found] == ['A Dog.', 'b', 'b']
    assert found[1]['data_samples'].texts == ['b', 'c']
    for packed in found:
        assert packed['data_samples'].pictured is False and packed['inputs'].shape == (3, 0, 0)
    np.random.seed(0)
    assert {build(tmp_path, rows)[1]['data_samples'].text for _ in range(20)} == {'b', 'c'}


def test_a_mixture_gives_batches_of_both(tmp_path):
    cv2.imwrite(str(tmp_path / '0.png'), np.full((6, 8, 3), 20, dtype=np.uint8))
    (tmp_path / 'pairs.jsonl').write_text('{"image": "0.png", "text": "a pair"}\n')
    pairs = {
        'type': 'ImageTextManifest',
        'ann_file': str(tmp_path / 'pairs.jsonl'),
        'pipeline': [{'type': 'LoadImage'}, *PACK],
    }
    texts = build(tmp_path, [{'content': 'alone'}], columns={'text': 'content'})
    mixture = DATASETS.build(
        {'type': 'WeightedMixture', 'datasets': [{'dataset': pairs, 'weight': 2}, {'dataset': texts, 'weight': 1}]}
    )
    batch = pseudo_collate([mixture[index] for index in range(len(mixture))])
    data = ImageTextDataPreprocessor()(batch)
    assert data['inputs'].shape == (3, 3, 6, 8)
    mean, std = ImageTextDataPreprocessor().mean, ImageTextDataPreprocessor().std
    expected = torch.tensor([20.0, 20, 0]).view(3, 1, 1, 1).expand(3, 3, 6, 8)
    torch.testing.assert_close(data['inputs'] * std + mean, expected)
    assert [sample.get('pictured', True) for sample in data['data_samples']] == [True, True, False]
    alone = ImageTextDataPreprocessor()(pseudo_collate([texts[0]] * 2))
    assert alone['inputs'].shape == (2, 3, 0, 0)
    assert [sample.text for sample in data['data_samples']] == ['a pair', 'a pair', 'alone']


@pytest.mark.parametrize(
    ('rows', 'changes', 'error', 'sentence'),
    [
        ([{'image': 'a.png'}], {}, DataError, 'line 1: no description; a row needs one of'),
        ([{'text': ' '}], {}, DataError, "line 1: the text ' ' is empty"),
        ([{'text': 'a'}], {'columns': {'text': 'body'}}, DataError, 'needs one of .body., .texts.'),
        ([{'text': 'a'}], {'pipeline': [{'type': 'LoadImage'}, *PACK]}, UsageError, 'has LoadImage.*leave the step'),
    ],
)
def test_what_is_no_text_is_refused(tmp_path, rows, changes, error, sentence):
    with pytest.raises(error, match=sentence):
        build(tmp_path, rows, **changes)
