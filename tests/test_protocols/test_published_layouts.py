"""Every protocol on public data reads a small set in the published layout with its config's pipeline."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.registry import DefaultScope
from video_files import FRAMES, encode

from florence_mm.config.load import load_config
from florence_mm.formats.vqa import answer_vocabulary
from florence_mm.preparation.karpathy import read_karpathy, write_karpathy
from florence_mm.preparation.msrvtt import VideoFiles, write_msrvtt
from florence_mm.protocols.suites import TOWERS, select
from florence_mm.protocols.training import environment
from florence_mm.registry import DATASETS

# the eleven cross-domain sets differ by their folder alone
ENTRIES = [
    entry
    for entry in select('florence', ['retrieval', 'detection', 'vqa', 'video'])
    if entry.variables.get('DETECTION_SET', 'pothole') == 'pothole'
]


def write_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((48, 64, 3), 128, np.uint8))


def write_json(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def write_boxes(root: Path, images: str, annotations: str, classes: int) -> None:
    write_image(root / images / 'one.jpg')
    write_json(
        root / annotations,
        {
            'images': [{'id': 1, 'file_name': 'one.jpg', 'width': 64, 'height': 48}],
            'categories': [{'id': place, 'name': f'class {place}'} for place in range(1, classes + 1)],
            'annotations': [
                {'id': 1, 'image_id': 1, 'category_id': 1, 'bbox': [4, 4, 20, 20], 'area': 400, 'iscrowd': 0}
            ],
        },
    )


def write_karpathy_set(root: Path, name: str, folder: str, images: str) -> None:
    sentences = [{'raw': text} for text in ('a grey wall', 'grey', 'a wall', 'nothing', 'fog')]
    entries = [
        {'filename': f'{split}.jpg', 'split': split, 'sentences': sentences, 'imgid': place}
        | ({'filepath': 'val2014', 'cocoid': place} if name == 'coco' else {})
        for place, split in enumerate(('train', 'val', 'test'))
    ]
    for entry in entries:
        write_image(root / images / entry.get('filepath', '') / entry['filename'])
    file = write_json(root / f'dataset_{name}.json', {'dataset': name, 'images': entries})
    write_karpathy(root / folder, read_karpathy(file, root / images))


def write_questions(root: Path) -> None:
    for split, folder in (('val2014', 'coco/val2014'), ('test2015', 'coco/test2015')):
        number = 1002 if split == 'val2014' else 1
        image = root / folder / f'COCO_{split}_{number:012d}.jpg'
        write_image(image)
        ids = range(1, number + 1)
        for place in ids[:-1]:
            (root / folder / f'COCO_{split}_{place:012d}.jpg').hardlink_to(image)
        asked = [{'question_id': place, 'image_id': place, 'question': 'is it grey?'} for place in ids]
        write_json(root / f'vqav2/v2_OpenEnded_mscoco_{split}_questions.json', {'questions': asked})
    answers = [{'answer': 'yes', 'answer_confidence': 'yes', 'answer_id': place} for place in range(1, 11)]
    rows = [
        {
            'question_id': place,
            'image_id': place,
            'answers': answers,
            'multiple_choice_answer': 'yes',
            'question_type': 'is it',
            'answer_type': 'yes/no',
        }
        for place in range(1, 1003)
    ]
    write_json(root / 'vqav2/v2_mscoco_val2014_annotations.json', {'annotations': rows})
    (root / 'vqav2/answers.txt').write_text('\n'.join(answer_vocabulary(rows)) + '\n')


def write_videos(root: Path) -> None:
    for folder in ('msrvtt/videos', 'kinetics400/videos_val', 'kinetics600/videos_val'):
        (root / folder).mkdir(parents=True)
        (root / folder / 'video7010.mp4').write_bytes(encode(FRAMES, g=8))
    (root / 'msrvtt.csv').write_text('key,vid_key,video_id,sentence\nret0,msr7010,video7010,a grey screen\n')
    write_msrvtt(root / 'msrvtt', VideoFiles(root / 'msrvtt/videos'), root / 'msrvtt.csv')
    for classes in (400, 600):
        (root / f'kinetics{classes}/kinetics{classes}_val_list_videos.txt').write_text(f'video7010.mp4 {classes - 1}\n')


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('published')
    write_karpathy_set(root, 'coco', 'coco/karpathy', 'coco')
    write_karpathy_set(root, 'flickr30k', 'flickr30k/karpathy', 'flickr30k/images')
    write_boxes(root, 'coco/val2017', 'coco/annotations/instances_val2017.json', 80)
    write_boxes(root, 'objects365v2/val', 'objects365v2/zhiyuan_objv2_val.json', 365)
    write_boxes(root, 'visual_genome/images', 'visual_genome/annotations/val.json', 1600)
    write_boxes(root, 'cross_domain/pothole/test', 'cross_domain/pothole/test/_annotations.coco.json', 1)
    write_questions(root)
    write_videos(root)
    return root


@pytest.mark.parametrize('entry', ENTRIES, ids=lambda entry: entry.protocol.name)
def test_layout(entry, root, tmp_path):
    protocol = entry.protocol
    absent = protocol.missing(tmp_path)
    assert all(str(path) in absent for path in protocol.reads(tmp_path))
    assert protocol.missing(root) is None
    with environment(entry.variables):
        cfg = load_config(entry.config or TOWERS['florence'])
    test = protocol.test_config(cfg, root, tmp_path)
    with DefaultScope.overwrite_default_scope('florence_mm'):
        dataset = DATASETS.build(test.test_dataloader.dataset)
    if protocol.group in ('retrieval', 'video') and 'kinetics' not in protocol.name:
        assert len(dataset) == 1
        captions = ['a grey wall', 'grey', 'a wall', 'nothing', 'fog']
        expected = captions if protocol.group == 'retrieval' else ['a grey screen']
        assert dataset[0]['data_samples'].texts == expected
    elif protocol.name == 'vqa/vqav2':
        assert len(dataset) == 1000  # of the last thousand images
    else:
        sample = dataset[0]
        assert len(dataset) == 1 and 'inputs' in sample
    if 'kinetics' in protocol.name:
        assert sample['inputs'].shape[0] == 12  # 4 clips x 3 crops
        assert int(sample['data_samples'].gt_label) == int(protocol.name[-3:]) - 1
    if protocol.name == 'vqa/vqav2-test':
        assert Path(test.test_evaluator.outfile).parent == tmp_path
