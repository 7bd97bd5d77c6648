"""Visual question answering: VQAv2 (Florence, section 3.7) and questions about embedded scenes."""

from __future__ import annotations

from .base import Entry
from .config_test import ConfigTest
from .embedded import LARGE_DIGIT_QUESTIONS
from .sources import VQAV2, VQAV2_TEST

_CONFIG = 'florence_mm::meter/meter_coswin-h_roberta_64xb8-10e_vqav2-576.py'

FLORENCE = (
    Entry(
        ConfigTest(
            'vqa/vqav2',
            'vqa',
            'vqa/accuracy',
            VQAV2,
            split='val',
            note='ours: the last thousand validation images, which training leaves out; the paper: test-dev',
        ),
        _CONFIG,
        trained=True,
        cost=10.0,
    ),
    Entry(
        ConfigTest(
            'vqa/vqav2-test',
            'vqa',
            'vqa/accuracy',
            VQAV2_TEST,
            size=447_793,
            note='the answers have been written to vqav2_test2015_results.json in the folder of this protocol; upload '
            'them to the test server of https://visualqa.org for test-dev and test-std',
        ),
        _CONFIG,
        trained=True,
        cost=400.0,
    ),
)

EMBEDDED = (
    Entry(
        ConfigTest('vqa/large_digits', 'vqa', 'vqa/accuracy', LARGE_DIGIT_QUESTIONS),
        'florence_mm::meter/meter_coswin-micro_2xb64-6e_large-digit-vqa.py',
        trained=True,
    ),
)
