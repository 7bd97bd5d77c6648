"""Figures of the Florence paper (arXiv 2111.11432) by protocol and metric, in percent as printed.

A protocol's first metric is the one that its row of the table begins with.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class PaperFigures:
    """Figures that the paper gives for one protocol.

    Args:
        source: the table or section.
        figures: percent by metric, the names being those of the protocol's results.
    """

    source: str
    figures: dict[str, float] = field(default_factory=dict)


def _per_set(group: str, source: str, metrics: dict[str, str], **sets: float) -> dict[str, PaperFigures]:
    return {
        f'{group}/{name}': PaperFigures(source, {metrics.get(name, metrics['']): value}) for name, value in sets.items()
    }


# per-set metric of CLIP's protocol: mean per class where classes are of unequal size, mean AP on VOC2007
_CLIP_METRICS = {'': 'top1', 'voc2007': 'mAP'} | dict.fromkeys(
    ('fgvc_aircraft', 'oxford_pets', 'caltech101', 'flowers102'), 'mean_per_class'
)

_ZERO_SHOT = _per_set(
    'zero-shot',
    'table 1',
    _CLIP_METRICS,
    food101=95.1,
    cifar10=94.6,
    cifar100=77.6,
    sun397=77.0,
    stanford_cars=93.2,
    fgvc_aircraft=55.5,
    voc2007=85.5,
    dtd=66.4,
    oxford_pets=95.9,
    caltech101=94.7,
    flowers102=86.2,
)
_LINEAR_PROBE = _per_set(
    'linear-probe',
    'table 2',
    _CLIP_METRICS,
    food101=96.2,
    cifar10=97.6,
    cifar100=87.1,
    sun397=84.2,
    stanford_cars=95.7,
    fgvc_aircraft=83.9,
    voc2007=90.5,
    dtd=86.0,
    oxford_pets=96.4,
    caltech101=96.6,
    flowers102=99.7,
)
_CD_FSL = ('isic', 'eurosat', 'crop_disease', 'chestx')
_FEW_SHOT = {
    f'few-shot/{name}-{shots}shot': PaperFigures('table 4', {'accuracy': value})
    for shots, values in {
        5: (57.1, 90.0, 97.7, 29.3),
        20: (72.9, 95.8, 99.3, 37.5),
        50: (78.3, 97.1, 99.6, 42.8),
    }.items()
    for name, value in zip(_CD_FSL, values, strict=True)
}
# image to text, then text to image
_RETRIEVAL = {
    f'retrieval/{name}': PaperFigures(
        'table 5',
        dict(
            zip(
                ('retrieval/i2t_R@1', 'retrieval/i2t_R@5', 'retrieval/t2i_R@1', 'retrieval/t2i_R@5'),
                values,
                strict=True,
            )
        ),
    )
    for name, values in {
        'zero-shot/flickr30k': (90.9, 99.1, 76.7, 93.6),
        'zero-shot/coco': (64.7, 85.9, 47.2, 71.4),
        'fine-tuned/flickr30k': (97.2, 99.9, 87.9, 98.1),
        'fine-tuned/coco': (81.8, 95.2, 63.2, 85.7),
    }.items()
}
_DETECTION = {
    'detection/coco': PaperFigures('table 6', {'bbox/AP': 62.0}),
    'detection/objects365': PaperFigures('table 6', {'bbox/AP': 39.3}),
    'detection/visual_genome': PaperFigures('table 6', {'bbox/AP50': 16.2}),
} | _per_set(
    'detection/zero-shot',
    'table 7',
    {'': 'bbox/AP'},
    aquarium=43.1,
    bccd=15.3,
    chess_pieces=13.4,
    mask_wearing=15.0,
    oxford_pets=68.9,
    packages=79.6,
    pistols=41.4,
    pklot=31.4,
    pothole=53.3,
    thermal=46.9,
    wildfire_smoke=48.7,
)

#: Figures by name of the protocol.
PAPER: dict[str, PaperFigures] = {
    **_ZERO_SHOT,
    'zero-shot/imagenet1k': PaperFigures('table 1', {'top1': 83.74, 'top5': 97.18}),
    **_LINEAR_PROBE,
    'fine-tuning/imagenet1k': PaperFigures('table 3', {'top1': 90.05, 'top5': 99.02}),
    **_FEW_SHOT,
    **_RETRIEVAL,
    **_DETECTION,
    'vqa/vqav2': PaperFigures('table 8, test-dev', {'vqa/accuracy': 80.16}),
    'video/msrvtt-zero-shot': PaperFigures(
        'table 9', {'retrieval/t2v_R@1': 37.6, 'retrieval/t2v_R@5': 63.8, 'retrieval/t2v_R@10': 72.6}
    ),
    'video/kinetics400': PaperFigures('table 10', {'acc/top1': 86.5, 'acc/top5': 97.3}),
    'video/kinetics600': PaperFigures('table 10', {'acc/top1': 87.8, 'acc/top5': 97.8}),
}


@dataclass(frozen=True)
class PaperMean:
    """Mean over several protocols that the paper gives.

    Args:
        name: its name in the table.
        protocols: names of the protocols.
        metric: the figure.
        value: percent.
        source: the table.
    """

    name: str
    protocols: tuple[str, ...]
    metric: str
    value: float
    source: str


def _cross_domain(kind: str) -> tuple[str, ...]:
    sets = (name.rpartition('/')[2] for name in PAPER if name.startswith('detection/zero-shot/'))
    return tuple(f'detection/{kind}/{name}' for name in sets)


#: Means that the paper prints.
MEANS = (
    *(
        PaperMean(
            f'few-shot/mean-{shots}shot',
            tuple(f'few-shot/{name}-{shots}shot' for name in _CD_FSL),
            'accuracy',
            value,
            'table 4',
        )
        for shots, value in ((5, 68.5), (20, 76.4), (50, 79.5))
    ),
    PaperMean('detection/zero-shot/mean', _cross_domain('zero-shot'), 'bbox/AP', 41.5, 'table 7'),
    PaperMean('detection/5-shot/mean', _cross_domain('5-shot'), 'bbox/AP', 33.3, 'table 7, DyHead-L'),
    PaperMean('detection/full/mean', _cross_domain('full'), 'bbox/AP', 68.6, 'table 7, DyHead-L'),
)


def paper_figure(name: str, metric: str) -> float | None:
    """Return the paper's figure of a protocol in percent; None if the paper has none."""
    entry = PAPER.get(name)
    return None if entry is None else entry.figures.get(metric)
