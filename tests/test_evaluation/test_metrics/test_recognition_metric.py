"""The metric of our video configs, mmaction2's, on a case worked by hand."""

import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope

# scores over six classes; the right class is first, second, sixth and fifth in them
SCORES = [
    ([0.5, 0.1, 0.1, 0.1, 0.1, 0.1], 0),
    ([0.3, 0.6, 0.1, 0.0, 0.0, 0.0], 0),
    ([0.1, 0.05, 0.2, 0.15, 0.2, 0.3], 1),
    ([0.3, 0.25, 0.2, 0.05, 0.15, 0.05], 4),
]


def test_top1_top5_and_mean_class_accuracy_worked_by_hand():
    from mmaction.structures import ActionDataSample
    from mmaction.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope('florence_mm'):
        evaluator = Evaluator([{'type': 'mmaction.AccMetric'}])
    samples = [ActionDataSample().set_gt_label(label).set_pred_score(torch.tensor(scores)) for scores, label in SCORES]
    evaluator.process(samples[:3])
    evaluator.process(samples[3:])
    metrics = evaluator.evaluate(len(SCORES))
    assert metrics['acc/top1'] == pytest.approx(1 / 4)
    assert metrics['acc/top5'] == pytest.approx(3 / 4)
    # classes 0, 1, 4 have 1/2, 0, 0; class 5, predicted once and never right, counts as 0 too
    assert metrics['acc/mean1'] == pytest.approx((1 / 2 + 0 + 0 + 0) / 4)
