#!/usr/bin/env bash
# pycocotools 2.0.11 and faster-coco-eval 1.8.0 (Python 3.11), which are said to give the same figures: they differ where
# ids of annotations are negative. Both keep the id of a matched annotation in an array where 0 stands for "not matched";
# faster-coco-eval also takes negative ids for that. Its warning speaks of the id 0 alone.
# Three images, an object in each, found exactly. Expected: AP 1.0 for all ids. Seen, for ids from 1, from -1 and from -9:
#   pycocotools [1.0, 0.554, 1.0]
#   faster-coco-eval [1.0, 0.112, 0.0]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m pip install -q --target "$folder" pycocotools==2.0.11 faster-coco-eval==1.8.0 >&2
cd "$folder"
seen=$(PYTHONPATH=$folder "${PYTHON:-python3}" -W ignore - <<'PYTHON'
import contextlib
import io

import faster_coco_eval
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def average_precision(first_id, coco, evaluator):
    box = {'category_id': 1, 'bbox': [10, 10, 50, 50]}
    truth = coco()
    truth.dataset = {
        'images': [{'id': i, 'width': 100, 'height': 100} for i in (1, 2, 3)],
        'categories': [{'id': 1, 'name': 'cup'}],
        'annotations': [
            {**box, 'id': first_id + i - 1, 'image_id': i, 'area': 2500, 'iscrowd': 0} for i in (1, 2, 3)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        found = truth.loadRes([{**box, 'image_id': i, 'score': 0.9} for i in (1, 2, 3)])
        evaluation = evaluator(truth, found, 'bbox')
        for step in (evaluation.evaluate, evaluation.accumulate, evaluation.summarize):
            step()
    return round(float(evaluation.stats[0]), 3)


for name, *parts in (
    ('pycocotools', COCO, COCOeval),
    ('faster-coco-eval', faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster),
):
    print(name, [average_precision(first, *parts) for first in (1, -1, -9)])
PYTHON
)
echo "$seen"
[ "$seen" = $'pycocotools [1.0, 0.554, 1.0]\nfaster-coco-eval [1.0, 0.112, 0.0]' ]
