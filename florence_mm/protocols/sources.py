"""Published data sets of retrieval, detection, questions and video: official page, and layout below the data root."""

from __future__ import annotations

from .base import DataSource

CONVERTERS = 'python tools/dataset_converters'
_COCO_PAGE = 'https://cocodataset.org/#download'
_KARPATHY_PAGE = 'https://cs.stanford.edu/people/karpathy/deepimagesent/'

FLICKR30K = DataSource(
    'Flickr30k',
    f'https://shannon.cs.illinois.edu/DenotationGraph/ and the splits dataset_flickr30k.json from {_KARPATHY_PAGE}',
    ('flickr30k/images', 'flickr30k/karpathy/test.jsonl'),
    f'{CONVERTERS}/prepare_karpathy.py dataset_flickr30k.json --images {{data}}/flickr30k/images '
    '--out {data}/flickr30k/karpathy',
)
COCO_CAPTIONS = DataSource(
    'COCO captions',
    f'{_COCO_PAGE} (2014 images) and the splits dataset_coco.json from {_KARPATHY_PAGE}',
    ('coco/val2014', 'coco/karpathy/test.jsonl'),
    f'{CONVERTERS}/prepare_karpathy.py dataset_coco.json --images {{data}}/coco --out {{data}}/coco/karpathy',
)
COCO_DETECTION = DataSource('COCO 2017', _COCO_PAGE, ('coco/val2017', 'coco/annotations/instances_val2017.json'))
OBJECTS365 = DataSource(
    'Objects365 v2',
    'https://www.objects365.org/download.html',
    ('objects365v2/val', 'objects365v2/zhiyuan_objv2_val.json'),
)
VISUAL_GENOME = DataSource(
    'Visual Genome',
    "https://homes.cs.washington.edu/~ranjay/visualgenome/ (boxes in COCO's format, with your classes)",
    ('visual_genome/images', 'visual_genome/annotations/val.json'),
)
VQAV2 = DataSource(
    'VQAv2',
    f'https://visualqa.org/download.html and the images of 2014 from {_COCO_PAGE}',
    (
        'coco/val2014',
        'vqav2/v2_OpenEnded_mscoco_val2014_questions.json',
        'vqav2/v2_mscoco_val2014_annotations.json',
        'vqav2/answers.txt',
    ),
    f'{CONVERTERS}/build_answers.py {{data}}/vqav2/v2_mscoco_train2014_annotations.json '
    '{data}/vqav2/v2_mscoco_val2014_annotations.json --out {data}/vqav2/answers.txt',
)
VQAV2_TEST = DataSource(
    'VQAv2 test',
    f'https://visualqa.org/download.html and the images of 2015 from {_COCO_PAGE}',
    ('coco/test2015', 'vqav2/v2_OpenEnded_mscoco_test2015_questions.json', 'vqav2/answers.txt'),
    VQAV2.prepare,
)
MSRVTT = DataSource(
    'MSR-VTT 1K-A',
    'https://github.com/ArrowLuo/CLIP4Clip/releases (MSRVTT.zip with the videos, msrvtt_data.zip with the lists)',
    ('msrvtt/videos', 'msrvtt/test.jsonl'),
    f'{CONVERTERS}/prepare_msrvtt.py --videos {{data}}/msrvtt/videos --out {{data}}/msrvtt '
    '--test-csv MSRVTT_JSFUSION_test.csv',
)
KINETICS400, KINETICS600 = (
    DataSource(
        f'Kinetics-{classes}',
        'https://github.com/cvdfoundation/kinetics-dataset and list the validation clips, a line "FILE NUMBER" each, '
        'classes being numbered from 0 in the order of their names,',
        (f'kinetics{classes}/videos_val', f'kinetics{classes}/kinetics{classes}_val_list_videos.txt'),
    )
    for classes in (400, 600)
)

#: The eleven sets of table 7: folder and configuration name, and title.
CROSS_DOMAIN = {
    'aquarium': 'Aquarium',
    'bccd': 'BCCD',
    'chess_pieces': 'Chess Pieces',
    'mask_wearing': 'Mask Wearing',
    'oxford_pets': 'Oxford Pets',
    'packages': 'Packages',
    'pistols': 'Pistols',
    'pklot': 'PKLot',
    'pothole': 'Pothole',
    'thermal': 'Thermal Dogs and People',
    'wildfire_smoke': 'Wildfire Smoke',
}


def cross_domain(name: str) -> DataSource:
    """Return the source of one of :data:`CROSS_DOMAIN`, as exported in COCO's format."""
    folder = f'cross_domain/{name}/test'
    return DataSource(
        f'{CROSS_DOMAIN[name]} (cross-domain detection)',
        'https://public.roboflow.com/object-detection (export "COCO")',
        (folder, f'{folder}/_annotations.coco.json'),
    )
