import importlib.util
import json
import os
from pathlib import Path

import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.evaluation import Accuracy
from mmpretrain.structures import DataSample

from florence_mm.evaluation import ImageTextRecall, ZeroShotAccuracy
from florence_mm.evaluation.functional import image_text_recall
from florence_mm.evaluation.metrics.zero_shot import accuracy_table
from florence_mm.registry import METRICS

WORKER = Path(__file__).with_name('metrics_worker.py')
spec = importlib.util.spec_from_file_location('metrics_worker', WORKER)
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)


def sample(scores, label):
    return DataSample().set_pred_score(torch.tensor(scores)).set_gt_label(label).to_dict()


def test_zero_shot_by_hand(caplog):
    metric = METRICS.build({'type': 'ZeroShotAccuracy', 'topk': (1, 2), 'per_class': True})
    metric.dataset_meta = {'classes': ('cat', 'dog', 'emu', 'fox')}
    metric.process(None, [sample([0.6, 0.2, 0.1, 0.1], 0), sample([0.1, 0.2, 0.3, 0.4], 0)])
    metric.process(None, [sample([0.1, 0.4, 0.3, 0.2], 2), sample([0.1, 0.0, 0.8, 0.1], 2)])
    metric.process(None, [sample([0.0, 0.9, 0.1, 0.0], 1)])
    assert metric.evaluate(5) == {
        'zero_shot/top1': pytest.approx(3 / 5),
        'zero_shot/top2': pytest.approx(4 / 5),
        # cat 1/2, dog 1/1, emu 1/2; fox has no images
        'zero_shot/mean_class_top1': pytest.approx((0.5 + 1 + 0.5) / 3),
        'zero_shot/top1_cat': 0.5,
        'zero_shot/top1_dog': 1.0,
        'zero_shot/top1_emu': 0.5,
    }


def test_zero_shot_equals_mmpretrain():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(200, 8, generator=generator).softmax(1)
    labels = torch.randint(0, 8, (200,), generator=generator)
    metric = ZeroShotAccuracy(table_rows=0)
    metric.process(None, [sample(s.tolist(), int(y)) for s, y in zip(scores, labels, strict=True)])
    ours = metric.evaluate(200)
    theirs = Accuracy.calculate(scores, labels, topk=(1, 5))
    assert ours['zero_shot/top1'] * 100 == pytest.approx(theirs[0][0].item(), abs=1e-4)
    assert ours['zero_shot/top5'] * 100 == pytest.approx(theirs[1][0].item(), abs=1e-4)


def test_table_shows_the_lowest_classes():
    accuracy = torch.tensor([1.0, 0.25, float('nan'), 0.5], dtype=torch.float64)
    counts = torch.tensor([3, 4, 0, 10])
    names = ['cat', 'grasshopper', 'none', 'emu']
    assert accuracy_table(names, accuracy, counts, rows=9).splitlines() == [
        'class        images  top-1',
        'cat               3  1.0000',
        'grasshopper       4  0.2500',
        'emu              10  0.5000',
    ]
    assert accuracy_table(names, accuracy, counts, rows=2).splitlines() == [
        'class        images  top-1',
        'grasshopper       4  0.2500',
        'emu              10  0.5000',
        'the lowest 2 of 3 classes',
    ]


def test_recall_equals_its_function_and_reports_skipped():
    samples = worker.make_samples(30)
    for merge in (True, False):
        metric = METRICS.build({'type': 'ImageTextRecall', 'merge_equal_texts': merge, 'topk': (1, 3)})
        metric.dataset_meta = {'num_skipped': 2}
        metric.process(None, samples[:10])
        metric.process(None, samples[10:])
        scores = metric.evaluate(30)
        texts = [text for s in samples for text in s['texts']]
        expected = image_text_recall(
            torch.stack([s['image_feat'] for s in samples]),
            torch.cat([s['text_feat'] for s in samples]),
            [i for i, s in enumerate(samples) for _ in s['texts']],
            texts if merge else None,
            topk=(1, 3),
        )
        assert scores.pop('retrieval/num_skipped') == 2
        assert scores == {f'retrieval/{key}': value for key, value in expected.items()}


def test_recall_of_videos_has_their_names():
    samples = worker.make_samples(30)
    metric = METRICS.build({'type': 'ImageTextRecall', 'modality': 'video', 'topk': (1,)})
    metric.process(None, samples)
    videos = metric.evaluate(30)
    metric = ImageTextRecall(topk=(1,))
    metric.process(None, samples)
    renamed = {key.replace('i2t', 'v2t').replace('t2i', 't2v'): value for key, value in metric.evaluate(30).items()}
    assert videos == renamed
    names = [f'retrieval/{way}_{name}' for way in ('v2t', 't2v') for name in ('R@1', 'MdR', 'MnR')]
    assert list(videos) == names
    with pytest.raises(ValueError, match="modality='clip' of ImageTextRecall must be one of image, video"):
        ImageTextRecall(modality='clip')


def test_missing_fields_are_named():
    metric = ZeroShotAccuracy()
    with pytest.raises(ValueError, match='list, line 3 has no `gt_label`.*`class` column'):
        metric.process(None, [{'pred_score': torch.zeros(3), 'source': 'list, line 3'}])
    with pytest.raises(ValueError, match='no `pred_score`.*set_classes'):
        metric.process(None, [{'gt_label': torch.zeros(1, dtype=torch.int64)}])
    metric.dataset_meta = {'classes': ('a', 'b')}
    with pytest.raises(ValueError, match='scores of 3 classes, but the data set has 2'):
        metric.process(None, [sample([0.1, 0.2, 0.7], 1)])
    recall = ImageTextRecall()
    with pytest.raises(ValueError, match='no `texts`'):
        recall.process(None, [{'image_feat': torch.zeros(3), 'text_feat': torch.zeros(1, 3)}])
    with pytest.raises(ValueError, match='2 captions and 1 features'):
        recall.process(None, [{'image_feat': torch.zeros(3), 'text_feat': torch.zeros(1, 3), 'texts': ['a', 'b']}])
    for cls in (ZeroShotAccuracy, ImageTextRecall):
        with pytest.raises(ValueError, match='must be positive numbers'):
            cls(topk=(0, 1))


def test_names_under_a_hostile_scope():
    # mmpretrain has metrics for retrieval too; ours is meant whatever the default scope
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        assert type(METRICS.build({'type': 'ImageTextRecall'})) is ImageTextRecall


def test_two_processes_equal_one(two_processes, tmp_path):
    # 31 samples: the second process gets one twice, which must not count
    expected = worker.evaluate(31)
    assert expected['zero_shot/num_skipped'] == 3
    assert 1 < expected['retrieval/t2i_MdR'] <= 31

    def work():
        (tmp_path / os.environ['RANK']).write_text(json.dumps(worker.evaluate(31, 'pytorch')))

    two_processes(work)
    for rank in '01':
        assert json.loads((tmp_path / rank).read_text()) == expected
