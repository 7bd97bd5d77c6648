"""Metrics of the packages that use names which numpy 2 removed give their values."""

import ast
import importlib.util
import re
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from florence_mm.compat.numpy_names import MODULES, NAMES

PACKAGES = ('mmengine', 'mmcv', 'mmdet', 'mmaction', 'mmpretrain')
removed = pytest.mark.skipif(hasattr(np, 'in1d'), reason='runs with numpy 2.4 or later, which removed np.in1d')


@cache
def _is_in_numpy(name: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return hasattr(np, name)


def missing_names(package: str) -> Iterator[tuple[str, str]]:
    """Modules of a package, and what they ask of numpy that it lacks."""
    root = Path(importlib.util.find_spec(package).origin).parent
    for path in root.rglob('*.py'):
        if '.mim' in path.parts:
            continue
        text = path.read_text(encoding='utf-8')
        # parsing takes long, and most files ask of nothing what numpy lacks
        if 'numpy' not in text or all(map(_is_in_numpy, set(re.findall(r'\b(?:np|numpy)\.([A-Za-z_]\w*)', text)))):
            assert not re.search(r'import numpy as (?!np\b)', text), path
            continue
        tree = ast.parse(text)
        imports = [name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names]
        numpys = {name.asname or name.name for name in imports if name.name == 'numpy'}
        for node in ast.walk(tree):
            of_numpy = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in numpys
            if of_numpy and not _is_in_numpy(node.attr):
                yield '.'.join(path.relative_to(root.parent).with_suffix('').parts), node.attr


@removed
def test_a_scan_finds_the_modules_and_their_names():
    found = [pair for package in PACKAGES for pair in missing_names(package)]
    # a misspelt name of a variable, which compat/mmdet_flickr.py mends
    found = [pair for pair in found if pair != ('mmdet.evaluation.metrics.flickr30k_metric', 'boxes')]
    assert {module for module, _ in found} == {module for modules in MODULES.values() for module in modules}
    assert {name for _, name in found} <= set(NAMES)


def test_names_of_today_exist():
    assert all(hasattr(np, name) for name in NAMES.values())


def test_mmpretrain_retrieval():
    from mmpretrain.evaluation.metrics.retrieval import RetrievalRecall

    predictions = [[0, 1], [2, 0], [1, 2]]
    found = RetrievalRecall.calculate(predictions, [[0], [0], [0]], topk=(1, 2), pred_indices=True, target_indices=True)
    # found first, second, and not at all
    assert [round(float(value), 3) for value in found] == [33.333, 66.667]


def test_mmaction_proposals():
    from mmaction.evaluation.functional.accuracy import average_recall_at_avg_proposals

    truth = {'a': np.array([[0.0, 10.0]])}
    proposals = {'a': np.array([[0.0, 10.0, 0.9]])}
    recall, mean, per_video, area = average_recall_at_avg_proposals(truth, proposals, 1, 1, np.array([0.5]))
    assert recall.max() == 1 and np.allclose(area, 100 * np.trapezoid(mean, per_video) / per_video[-1])


def test_mmaction_ava_recall_without_truth():
    from mmaction.evaluation.functional.ava_evaluation import metrics

    assert np.isnan(metrics.compute_average_precision(None, None))


def test_mmaction_keypoints_to_a_compact_area():
    from mmaction.datasets.transforms.pose_transforms import PoseCompact

    points = np.array([[[[10.0, 10.0], [30.0, 30.0]]]])
    found = PoseCompact(padding=0.0, threshold=1, allow_imgpad=True)({'keypoint': points, 'img_shape': (40, 40)})
    assert found['img_shape'] == (20, 20) and found['keypoint'].tolist() == [[[[0.0, 0.0], [20.0, 20.0]]]]


def test_mmdet_flickr_boxes_are_merged():
    from mmdet.evaluation.metrics.flickr30k_metric import Flickr30kMetric

    merged = Flickr30kMetric(merge_boxes=True).merge_boxes([[1, 5, 3, 6], [0, 7, 2, 9]])
    assert torch.tensor(merged).tolist() == [[0, 5, 3, 9]]


def test_numpy_itself_stays_as_it_is():
    import mmpretrain.evaluation.metrics.retrieval as retrieval

    assert retrieval.np.isin is np.isin and retrieval.np.inf == np.inf
    with pytest.raises(AttributeError, match='no_such_name'):
        retrieval.np.no_such_name  # noqa: B018
