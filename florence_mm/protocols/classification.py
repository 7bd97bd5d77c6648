"""Classification protocols of the paper's tables 1 to 4, and the same on the embedded digits.

The embedded sets are the digits in the layout of each published set (``published_digits`` below the data root), which
are read, prompted, probed and drawn from as those are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from florence_mm.corpora.published_digits import write_published_digits
from florence_mm.language.prompts import get_class_names, get_templates

from .base import EmbeddedSource, Entry
from .few_shot import FewShotClassification
from .fine_tuned import FineTunedClassification
from .linear_probe import LinearProbe
from .sets import CD_FSL, CLIP_PROTOCOL, ClassificationSet, imagenet1k
from .zero_shot import ZeroShotClassification

SHOTS = (5, 20, 50)
FOLDER = 'published_digits'
#: Test digits of each class for few-shot episodes; there are 43.
_FEW_SHOT_DIGITS = 40
_FINE_TUNED = 'florence_mm::unicl/unicl-classifier_coswin-h_512xb16-10e_imagenet1k-512.py'


def probe_of(data: ClassificationSet) -> LinearProbe:
    """Make the linear probe of a set, with the validation images that it is published with, if any."""
    return LinearProbe(data, 'val' if 'val' in dict(data.sizes) else None)


def with_digits(data: ClassificationSet, test: int = 10) -> ClassificationSet:
    """Return the set of digits in the layout of a published set.

    Args:
        data: the published set.
        test: test images of each digit.
    """
    prompts = (tuple(get_class_names('digits')), tuple(get_templates('simple'))) if data.classes else ((), ())
    page = 'nowhere (florence_mm draws it)'
    layout = tuple(f'{FOLDER}/{name}' for name in data.sources[0].layout)
    source = EmbeddedSource(f'digits as {data.name}', page, layout, make=_maker(data.name, test))
    return replace(
        data,
        name=f'{data.name}-digits',
        sources=(source,),
        sizes=(),
        classes=prompts[0],
        templates=prompts[1],
        reader=data.name,
        folder=FOLDER,
    )


def _maker(name: str, test: int) -> Callable[[Path], object]:
    def write_digits(data_root: Path) -> None:
        write_published_digits(name, data_root / FOLDER, test=test)

    return write_digits


_IMAGENET = imagenet1k()
#: The paper's, with rough costs: images that are encoded, in units of 10,000.
FLORENCE = (
    *(Entry(ZeroShotClassification(data), cost=dict(data.sizes)['test'] / 10_000) for data in CLIP_PROTOCOL),
    Entry(ZeroShotClassification(_IMAGENET), cost=5.0),
    *(Entry(probe_of(data), cost=2 * sum(dict(data.sizes).values()) / 10_000) for data in CLIP_PROTOCOL),
    Entry(FineTunedClassification(_IMAGENET), config=_FINE_TUNED, trained=True, cost=5.0),
    *(Entry(FewShotClassification(data, shots=shots), cost=2.0 + shots / 10) for data in CD_FSL for shots in SHOTS),
)
EMBEDDED = (
    *(Entry(ZeroShotClassification(with_digits(data)), cost=0.1) for data in (*CLIP_PROTOCOL, _IMAGENET)),
    # without the published sizes nothing tells which sets have validation images
    *(Entry(replace(probe_of(data), data=with_digits(data)), cost=0.5) for data in CLIP_PROTOCOL),
    *(
        Entry(FewShotClassification(with_digits(data, _FEW_SHOT_DIGITS), shots=shots, episodes=100), cost=0.5)
        for data in CD_FSL
        for shots in (5, 20)
    ),
)
