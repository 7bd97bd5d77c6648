"""Captions of the embedded scenes as the web would have them: of a part of the pictures that of another one.

Some pictures have clean captions, on which a captioner and a filter can be fine-tuned.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .generated import write_generated
from .scene_captions import make_captions
from .scene_facts import Scene, read_scenes, scene_files

RECORD = 'exchanged_captions.json'
VERSION = 1
#: Captions as they came, and clean ones.
WEB, CLEAN = 'web.jsonl', 'clean.jsonl'


class Exchanged(NamedTuple):
    """What is exchanged.

    Attributes:
        fraction: of the pictures with captions of the web, those that have the caption of another picture.
        clean: fraction of all pictures that have clean captions, and none of the web.
        seed: of the choice and of the wordings.

    Raises:
        ValueError: a number is out of range.
    """

    fraction: float = 0.4
    clean: float = 0.25
    seed: int = 0

    def check(self) -> None:
        """Check the numbers."""
        if not 0 <= self.fraction <= 1 or not 0 <= self.clean < 1 or self.seed < 0:
            raise ValueError(
                f'{self} of the captions must have a fraction from 0 to 1, a clean part from 0 to below 1 and a seed '
                'from 0'
            )


def write_exchanged_captions(scenes: str | Path, out: str | Path, options: Exchanged | None = None) -> tuple[int, int]:
    """Write ``web.jsonl``, one caption a picture with the flag ``exchanged``, and ``clean.jsonl``, several true ones.

    An exchanged caption is one of a picture with other digits, and never true by chance.

    Args:
        scenes: the folder that ``prepare_scenes.py`` wrote; pictures are named relative to its ``train``.
        out: the folder to write to.
        options: None: the defaults.

    Returns:
        number of pictures of the web, and of those that have an exchanged caption.

    Raises:
        FileNotFoundError: there are no scenes.
        ValueError: an option is out of range, or too few scenes differ.
    """
    options = options or Exchanged()
    options.check()
    paths, digests = scene_files(scenes, ['train'])
    drawn = read_scenes(paths['train'])
    rng = np.random.default_rng([options.seed, *b'exchanged captions'])
    order = rng.permutation(len(drawn)).tolist()
    count = round(options.clean * len(drawn))
    clean, web = sorted(order[:count]), order[count:]
    exchanged = round(options.fraction * len(web))
    donors = _exchange(rng, [drawn[place] for place in web], exchanged)
    rows = [
        {'image': drawn[place].file_name, 'text': make_captions(rng, donor, 1)[0], 'exchanged': donor != drawn[place]}
        for place, donor in zip(web, donors, strict=True)
    ]
    files = {
        WEB: sorted(rows, key=lambda row: row['image']),
        CLEAN: [{'image': drawn[place].file_name, 'texts': make_captions(rng, drawn[place])} for place in clean],
    }
    content = [(name, ''.join(json.dumps(row) + '\n' for row in rows).encode()) for name, rows in files.items()]
    wanted = {'version': VERSION, 'scenes': digests['train'], **options._asdict()}
    write_generated(Path(out), RECORD, wanted, content, len(content), 'exchanging captions')
    return len(web), exchanged


def _exchange(rng: np.random.Generator, scenes: Sequence[Scene], count: int) -> list[Scene]:
    """The scene that gives each of the scenes its caption: for the first ``count`` of them one with other digits."""
    donors = list(scenes)
    for place in range(count):
        for _ in range(1000):
            other = scenes[rng.integers(len(scenes))]
            if _told(other).isdisjoint(_told(scenes[place])):
                donors[place] = other
                break
        else:
            raise ValueError('the scenes have all the same digits, and no captions can be exchanged; draw more scenes')
    return donors


def _told(scene: Scene) -> set[tuple]:
    """What captions tell of a scene: all digits, or their number and the first and the last one."""
    labels = [digit.label for digit in scene.digits]
    return {('all', *sorted(labels)), ('ends', len(labels), *labels[:1], *labels[-1:])}
