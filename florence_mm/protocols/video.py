"""Video: MSR-VTT zero-shot and Kinetics (Florence, sections 3.8 and 3.9), embedded clips."""

from __future__ import annotations

from .base import Entry
from .config_test import ConfigTest
from .embedded import CLIPS
from .sources import KINETICS400, KINETICS600, MSRVTT

_RETRIEVAL = 'florence_mm::video_retrieval'
_RECOGNITION = 'florence_mm::video_coswin'

FLORENCE = (
    Entry(
        ConfigTest('video/msrvtt-zero-shot', 'video', 'retrieval/t2v_R@1', MSRVTT, size=1_000),
        f'{_RETRIEVAL}/unicl_video-coswin-h_zero-shot_msrvtt-1ka.py',
        cost=20.0,
    ),
    *(
        Entry(
            ConfigTest(
                f'video/kinetics{classes}',
                'video',
                'acc/top1',
                source,
                note='clips vanish from their host, so that no two copies have the same validation set; num_samples in '
                'results.json says how many were there',
            ),
            f'{_RECOGNITION}/video_coswin-h_64xb1-30e_kinetics{classes}-384.py',
            trained=True,
            cost=2000.0,
        )
        for classes, source in ((400, KINETICS400), (600, KINETICS600))
    ),
)

EMBEDDED = (
    Entry(
        ConfigTest(
            'video/clips-zero-shot',
            'video',
            'retrieval/t2v_R@1',
            CLIPS,
            note='ten digits by name; clips of a digit are all right',
        ),
        f'{_RETRIEVAL}/unicl_video-coswin-micro_zero-shot_clips.py',
    ),
    Entry(
        ConfigTest('video/clips', 'video', 'acc/top1', CLIPS),
        f'{_RECOGNITION}/video_coswin-micro_2xb5-3e_clips.py',
        trained=True,
    ),
)
