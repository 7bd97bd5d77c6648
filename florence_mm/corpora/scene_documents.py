"""Documents of the embedded scenes: several pictures, each followed by a caption of it; and texts of captions alone.

A language model is trained on the texts before it is frozen. In some of them a scene is described again and again, so
that it learns to continue what describes a scene already, and to do so at any place; a picture read by queries is such
a description, too.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .generated import write_generated
from .scene_captions import NUM_CAPTIONS, make_captions
from .scene_facts import read_scenes, scene_files

RECORD = 'scene_documents.json'
VERSION = 2
SPLITS = ('train', 'test')


class DocumentOptions(NamedTuple):
    """What the documents are like.

    Attributes:
        pictures: pictures of a document, and most captions of a text.
        rounds: how often each picture stands in the training documents, each time with another caption.
        seed: of the order and the wordings.

    Raises:
        ValueError: a number is out of range.
    """

    pictures: int = 3
    rounds: int = NUM_CAPTIONS
    seed: int = 0

    def check(self) -> None:
        """Check the numbers."""
        if self.pictures < 2 or not 1 <= self.rounds <= NUM_CAPTIONS or self.seed < 0:
            raise ValueError(
                f'{self} of the documents must have at least 2 pictures, 1 to {NUM_CAPTIONS} rounds and a seed from 0'
            )


def write_scene_documents(
    scenes: str | Path, out: str | Path, options: DocumentOptions | None = None
) -> tuple[int, int]:
    """Write ``train.jsonl`` and ``test.jsonl``, a document a line in the form of :mod:`florence_mm.formats.documents`.

    Pictures that are left over in a round stand in none of its documents. A test picture stands in one document.
    ``texts.jsonl`` has a row a training scene in the form of
    :class:`~florence_mm.datasets.texts.TextManifest`, with texts of one, two ... captions of the scene, as many as a
    document has pictures.

    Args:
        scenes: the folder that ``prepare_scenes.py`` wrote; pictures are named relative to the folder of the split.
        out: the folder to write to.
        options: None: the defaults.

    Returns:
        number of training and of test documents.

    Raises:
        FileNotFoundError: there are no scenes.
        ValueError: an option is out of range.
    """
    options = options or DocumentOptions()
    options.check()
    paths, digests = scene_files(scenes, SPLITS)
    documents = {split: list(_documents(paths[split], split, options)) for split in SPLITS}
    content = [
        (f'{split}.jsonl', ''.join(json.dumps(document) + '\n' for document in rows).encode())
        for split, rows in {**documents, 'texts': _texts(paths['train'], options)}.items()
    ]
    wanted = {'version': VERSION, 'scenes': digests, **options._asdict()}
    write_generated(Path(out), RECORD, wanted, content, len(content), 'writing documents')
    return tuple(len(documents[split]) for split in SPLITS)


def _documents(path: Path, split: str, options: DocumentOptions) -> Iterator[dict]:
    scenes = read_scenes(path)
    rng = np.random.default_rng([options.seed, *f'{split} documents'.encode()])
    captions = [make_captions(rng, scene) for scene in scenes]
    for number in range(options.rounds if split == 'train' else 1):
        order = rng.permutation(len(scenes)).tolist()
        for start in range(0, len(order) - options.pictures + 1, options.pictures):
            parts: list[dict] = []
            for place in order[start : start + options.pictures]:
                parts += [{'image': scenes[place].file_name}, {'text': captions[place][number]}]
            yield {'document': parts}


def _texts(path: Path, options: DocumentOptions) -> Iterator[dict]:
    rng = np.random.default_rng([options.seed, *b'texts'])
    for scene in read_scenes(path):
        captions = make_captions(rng, scene)
        most = min(options.pictures, len(captions))
        orders = [rng.permutation(len(captions))[: 1 + number % most] for number in range(2 * most)]
        texts = [_in_a_row([captions[place] for place in order]) for order in orders]
        yield {'image': scene.file_name, 'texts': list(dict.fromkeys(texts))}


def _in_a_row(captions: list[str]) -> str:
    return '. '.join([*(caption.removesuffix('.') for caption in captions[:-1]), captions[-1]])
