"""Detection: COCO, Objects365, Visual Genome and eleven cross-domain sets (Florence, section 3.6), embedded scenes."""

from __future__ import annotations

from .base import DataSource, Entry
from .config_test import ConfigTest
from .embedded import SCENES
from .sources import COCO_DETECTION, CROSS_DOMAIN, OBJECTS365, VISUAL_GENOME, cross_domain

_FOLDER = 'florence_mm::dynamic_head'


def _fine_tuned(
    name: str, metric: str, source: DataSource, config: str, cost: float, views: bool = False, size: int | None = None
) -> Entry:
    protocol = ConfigTest(f'detection/{name}', 'detection', metric, source, views=views, size=size)
    return Entry(protocol, f'{_FOLDER}/{config}.py', trained=True, cost=cost)


def _cross_domain(kind: str, config: str, name: str, training: str | None = None) -> Entry:
    return Entry(
        ConfigTest(f'detection/{kind}/{name}', 'detection', 'bbox/AP', cross_domain(name)),
        f'{_FOLDER}/{config}.py',
        trained=True,
        training=training,
        variables={'DETECTION_SET': name},
    )


FLORENCE = (
    _fine_tuned(
        'coco',
        'bbox/AP',
        COCO_DETECTION,
        'atss_coswin-h_fpn_dyhead_32xb1-ms-12e_coco',
        cost=300.0,
        views=True,
        size=5_000,
    ),
    _fine_tuned(
        'objects365',
        'bbox/AP',
        OBJECTS365,
        'atss_coswin-h_fpn_dyhead_32xb1-12e_objects365',
        cost=800.0,
        size=80_000,
    ),
    _fine_tuned(
        'visual_genome', 'bbox/AP50', VISUAL_GENOME, 'atss_coswin-h_fpn_dyhead_32xb1-ms-24e_vg', cost=500.0, views=True
    ),
    *(
        _cross_domain(
            'zero-shot',
            'zero-shot_coswin-h_fpn_dyhead_cross-domain',
            name,
            # one training for all eleven
            f'{_FOLDER}/zero-shot_coswin-h_fpn_dyhead_128xb1-12e_flod9m.py',
        )
        for name in CROSS_DOMAIN
    ),
    *(_cross_domain('5-shot', 'atss_coswin-t_fpn_dyhead_1xb4-5shot_cross-domain', name) for name in CROSS_DOMAIN),
    *(_cross_domain('full', 'atss_coswin-t_fpn_dyhead_1xb4-full_cross-domain', name) for name in CROSS_DOMAIN),
)

EMBEDDED = (
    _fine_tuned('scenes', 'bbox/AP', SCENES, 'atss_coswin-micro_fpn_dyhead_2xb4-8e_scenes', cost=1.0),
    _fine_tuned('zero-shot/scenes', 'bbox/AP', SCENES, 'zero-shot_coswin-micro_fpn_dyhead_2xb4-3e_scenes', cost=1.0),
)
