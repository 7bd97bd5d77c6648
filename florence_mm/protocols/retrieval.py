"""Retrieval of images and captions by the two towers: Flickr30k and COCO (Florence, section 3.5), embedded captions."""

from __future__ import annotations

from florence_mm.models.protocol import TwoTowerModel

from .base import DataSource, Entry
from .config_test import ConfigTest
from .embedded import DIGITS, LARGE_DIGITS
from .sources import COCO_CAPTIONS, FLICKR30K

_METRIC = 'retrieval/i2t_R@1'


def _captions(ann_file: str, data_prefix: str | None = None) -> dict:
    prefix = {} if data_prefix is None else {'data_prefix': data_prefix}
    return {'type': 'florence_mm.ImageTextManifest', 'ann_file': ann_file, 'test_mode': True, **prefix}


def _public(kind: str, name: str, source: DataSource, images: str, size: int) -> ConfigTest:
    """Make the published protocol: a caption is right for its own picture alone."""
    return ConfigTest(
        f'retrieval/{kind}/{name}',
        'retrieval',
        _METRIC,
        source,
        dataset=_captions(f'data/{name}/karpathy/test.jsonl', images),
        evaluator={'type': 'florence_mm.ImageTextRecall', 'merge_equal_texts': False},
        size=size,
        needs=TwoTowerModel,
    )


# with the number of images of Karpathy's test split (arXiv 1412.2306), which is the rough cost in thousands
_SETS = (('flickr30k', FLICKR30K, 'data/flickr30k/images', 1000), ('coco', COCO_CAPTIONS, 'data/coco', 5000))

FLORENCE = (
    *(
        Entry(_public('zero-shot', name, source, images, size), cost=size / 1000)
        for name, source, images, size in _SETS
    ),
    *(
        Entry(
            _public('fine-tuned', name, source, images, size),
            config=f'florence_mm::image_retrieval/unicl_coswin-h_64xb48-12e_{name}.py',
            trained=True,
            cost=size / 1000,
        )
        for name, source, images, size in _SETS
    ),
)

EMBEDDED = (
    Entry(
        ConfigTest(
            'retrieval/zero-shot/digits',
            'retrieval',
            _METRIC,
            DIGITS,
            dataset=_captions('data/digits/test.jsonl'),
            evaluator={'type': 'florence_mm.ImageTextRecall'},
            note='ten texts, each right for all images of its digit',
        )
    ),
    Entry(
        ConfigTest('retrieval/fine-tuned/large_digits', 'retrieval', _METRIC, LARGE_DIGITS),
        config='florence_mm::unicl/unicl_coswin-micro_2xb32-5e_large-digits.py',
        trained=True,
    ),
)
