"""Raw pairs of the embedded digits as the web has pairs: wrong captions, duplicates, tiny pictures, damaged files.

Every fault is planted and counted, so that curation can be checked, and training on the pairs compared with training on
what it keeps.
"""

import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from florence_mm.language.prompts import get_class_names

from .digits import CAPTIONS, load_digits_split, render_digit
from .generated import write_generated

RECORD = 'raw_digits.json'
SIZE = 32
_BLOCK = 512
#: Pairs of a tar.
_PER_TAR = 256
#: Captions that say nothing of the picture, as those of copies on the web.
_NO_CAPTIONS = ('img {:04}', 'free shipping on orders over ${}', 'page {} of the catalogue', 'photo no. {}')


class Faults(NamedTuple):
    """How many faults are planted.

    Attributes:
        wrong: fraction of the pictures whose caption names another digit.
        copies: pictures of which there are copies, saved again, with captions that say nothing.
        per_copy: copies of each.
        tiny: pictures of 4 x 4 pixels.
        broken: pictures cut in the middle, and as many files that are no pictures.
        texts: texts that are no UTF-8, and as many that are blank.
        halves: pictures without text, and as many texts without picture.
        headers: damaged headers in the tars, each of which takes a whole pair.
    """

    wrong: float = 0.5
    copies: int = 60
    per_copy: int = 8
    tiny: int = 150
    broken: int = 20
    texts: int = 20
    halves: int = 20
    headers: int = 3


class _Pair(NamedTuple):
    fault: str
    image: bytes | None
    text: bytes | None


def write_raw_digits(out: str | Path, seed: int = 0, faults: Faults | None = None) -> dict[str, int]:
    """Write tars of raw pairs, as img2dataset does, with ``_stats.json`` beside each; equal arguments give equal bytes.

    Args:
        out (str | Path): The folder.
        seed (int): Of what is planted where.
        faults (Faults | None): How many faults; None: the default ones.

    Returns:
        dict: number of pairs by what is planted: ``'right'``, ``'wrong'`` (caption), ``'copy'``, and reasons of
        :mod:`florence_mm.curation.reasons`.
    """
    faults = faults or Faults()
    rng = np.random.default_rng(seed)
    pairs = list(_pairs(rng, faults))
    order = rng.permutation(len(pairs))
    pairs = [pairs[place] for place in order]
    damaged = {pairs.index(pair) for pair in [one for one in pairs if one.fault == 'right'][: faults.headers]}
    files = list(_tars(pairs, damaged))
    options = {'version': 1, 'seed': seed, **faults._asdict()}
    write_generated(Path(out), RECORD, options, files, len(files), 'writing raw pairs')
    return dict(Counter('damaged_tar' if place in damaged else pair.fault for place, pair in enumerate(pairs)))


def _pairs(rng: np.random.Generator, faults: Faults) -> Iterator[_Pair]:
    names = get_class_names('digits')
    images, labels = load_digits_split('train')
    phrases = (*CAPTIONS, '{}')
    drawn = [render_digit(image, SIZE) for image in images]

    def caption(label: int) -> bytes:
        return phrases[rng.integers(len(phrases))].format(names[label]).encode()

    wrong = set(rng.permutation(len(labels))[: round(faults.wrong * len(labels))].tolist())
    for place, (image, label) in enumerate(zip(drawn, labels.tolist(), strict=True)):
        other = (label + int(rng.integers(1, 10))) % 10
        yield _Pair('wrong' if place in wrong else 'right', _png(image), caption(other if place in wrong else label))
    for place in rng.permutation(len(drawn))[: faults.copies].tolist():
        for _ in range(faults.per_copy):
            brighter = np.clip(drawn[place].astype(int) + int(rng.integers(1, 4)), 0, 255).astype(np.uint8)
            text = _NO_CAPTIONS[rng.integers(len(_NO_CAPTIONS))].format(int(rng.integers(1, 1000)))
            yield _Pair('copy', _png(brighter), text.encode())
    for place in rng.permutation(len(drawn))[: faults.tiny].tolist():
        small = cv2.resize(drawn[place], (4, 4), interpolation=cv2.INTER_AREA)
        yield _Pair('too_small', _png(small), caption(int(labels[place])))
    for place in rng.permutation(len(drawn))[: faults.broken].tolist():
        data = _png(drawn[place])
        yield _Pair('undecodable', data[: len(data) // 2], caption(int(labels[place])))
        yield _Pair('undecodable', b'<html>404</html>', caption(int(labels[place])))
    for place in rng.permutation(len(drawn))[: faults.texts].tolist():
        yield _Pair('invalid_text', _png(drawn[place]), b'chiffre \xe9crit')
        yield _Pair('blank_text', _png(drawn[place]), b' . ')
    for place in rng.permutation(len(drawn))[: faults.halves].tolist():
        yield _Pair('no_text', _png(drawn[place]), None)
        yield _Pair('no_image', None, caption(int(labels[place])))


def _png(image: np.ndarray) -> bytes:
    return cv2.imencode('.png', image)[1].tobytes()


def _tars(pairs: list[_Pair], damaged: set[int]) -> Iterator[tuple[str, bytes]]:
    for number, start in enumerate(range(0, len(pairs), _PER_TAR)):
        part = pairs[start : start + _PER_TAR]
        file = io.BytesIO()
        spoilt = []
        with tarfile.open(fileobj=file, mode='w', format=tarfile.USTAR_FORMAT) as tar:
            for place, pair in enumerate(part, start):
                for extension, data in (('png', pair.image), ('txt', pair.text)):
                    if data is None:
                        continue
                    info = tarfile.TarInfo(f'{place:06}.{extension}')
                    info.size = len(data)
                    if place in damaged:
                        spoilt.append(tar.offset)
                    tar.addfile(info, io.BytesIO(data))
        content = bytearray(file.getvalue())
        for offset in spoilt:
            content[offset : offset + _BLOCK] = b'\xa5' * _BLOCK
        yield f'{number:05}.tar', bytes(content)
        yield f'{number:05}_stats.json', json.dumps({'count': len(part), 'successes': len(part)}).encode()
