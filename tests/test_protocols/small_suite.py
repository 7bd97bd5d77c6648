"""The embedded suite on a few samples, with models of random weights."""

import json
from pathlib import Path

import torch

from florence_mm.apis.loaded_model import LoadedModel
from florence_mm.config.load import load_config
from florence_mm.corpora.clips import ClipOptions, write_clips
from florence_mm.corpora.digits import write_digits
from florence_mm.corpora.questions import write_questions
from florence_mm.corpora.scenes import SceneOptions, write_scenes
from florence_mm.protocols.locations import below
from florence_mm.protocols.suites import TOWERS, select
from florence_mm.registry import MODELS

GROUPS = ('retrieval', 'detection', 'vqa', 'video')
ENTRIES = select('embedded', GROUPS)


def write_data(root: Path) -> None:
    """A few samples of each embedded data set."""
    write_digits(root / 'digits')
    rows = (root / 'digits/test.jsonl').read_text().splitlines()
    (root / 'digits/test.jsonl').write_text('\n'.join(rows[::12]) + '\n')
    write_scenes(root / 'scenes', SceneOptions(train=1, test=2))
    write_scenes(root / 'large_digits', SceneOptions(60, 8, 64, (1, 3), (0.35, 0.55), 1))
    write_questions(root / 'large_digits', root / 'large_digit_questions')
    write_clips(root / 'clips', ClipOptions(train=9, test=9))


def write_weights(folder: Path, root: Path) -> dict[str, str]:
    """Random weights of every model of the suite; files by config."""
    configs = {TOWERS['embedded'], *(entry.config for entry in ENTRIES if entry.trained)}
    return {
        config: write_weights_of(config, folder / f'{place}.pth', root) for place, config in enumerate(sorted(configs))
    }


def write_weights_of(config: str, file: Path, root: Path, seed: int = 3) -> str:
    """Random weights of a config's model."""
    torch.manual_seed(seed)
    model = below(load_config(config).model.to_dict(), root)
    _without_checkpoints(model)
    torch.save({'state_dict': MODELS.build(model).state_dict()}, file)
    return str(file)


def _without_checkpoints(model: dict) -> None:
    for value in model.values():
        if isinstance(value, dict):
            value.pop('init_cfg', None)
            _without_checkpoints(value)


def detections(detector: LoadedModel, images: list[dict], folder: Path) -> list[dict]:
    """The detector's boxes in COCO's result format, without florence_mm's runner and metric."""
    found = []
    for image in images:
        with torch.no_grad():
            (sample,) = detector.model.test_step(detector.preprocess(folder / image['file_name']))
        predicted = sample.pred_instances
        for (x1, y1, x2, y2), score, label in zip(
            predicted.bboxes.tolist(), predicted.scores.tolist(), predicted.labels.tolist(), strict=True
        ):
            box = [x1, y1, x2 - x1, y2 - y1]
            found.append({'image_id': image['id'], 'bbox': box, 'score': score, 'category_id': label + 1})
    return found


def annotate(file: Path, boxes: list[dict]) -> None:
    """Put boxes into an annotation file in place of its own."""
    content = json.loads(file.read_text())
    content['annotations'] = [
        {**box, 'id': number, 'area': box['bbox'][2] * box['bbox'][3], 'iscrowd': 0}
        for number, box in enumerate(boxes, 1)
    ]
    file.write_text(json.dumps(content))
