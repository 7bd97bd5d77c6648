"""The index of a shard: where in its tar the image and the text of each sample are, so that any of them is one read.

``00000.tar`` has its index beside it, ``00000.index.npy``: an array of 28 bytes a sample. Not here: the list of the
shards of a set (``shards``).
"""

import io
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from florence_mm.errors import DataError, shown_path
from florence_mm.utils.files import write_atomic

from .shard_samples import IMAGES, TEXTS, RawSample, group_samples, is_augmented, read_range
from .tar import SPARSE, TRUNCATED, Damage, Member, read_members

AUGMENTED = 1
#: A sample without an image or a text has the kind 255 and the size 0 there.
NONE = 255
ROW = np.dtype(
    [
        ('image_offset', '<u8'),
        ('text_offset', '<u8'),
        ('image_size', '<u4'),
        ('text_size', '<u4'),
        ('image_kind', 'u1'),  # place in IMAGES
        ('text_kind', 'u1'),  # place in TEXTS
        ('flags', '<u2'),  # AUGMENTED
    ]
)


class Place(NamedTuple):
    """Where a sample's image and text are; an extension is None, and the size 0, if the sample lacks it."""

    image: str | None
    image_offset: int
    image_size: int
    text: str | None
    text_offset: int
    text_size: int

    @property
    def first(self) -> int:
        """Byte at which the first of them that the sample has begins."""
        if self.image is None:
            return self.text_offset
        return self.image_offset if self.text is None else min(self.image_offset, self.text_offset)


def index_path(tar: str | Path) -> Path:
    """Path of a shard's index.

    >>> index_path('set/00000.tar').name
    '00000.index.npy'
    """
    tar = Path(tar)
    return tar.with_name(f'{tar.name.removesuffix(".tar")}.index.npy')


class ShardIndex(Sequence[Place]):
    """Places of the samples of one shard.

    Args:
        rows (np.ndarray): ``(N,)`` of :data:`ROW`, usually mapped from the file.
        tar (Path): the shard, for messages.
    """

    def __init__(self, rows: np.ndarray, tar: str | Path) -> None:
        self.rows, self.tar = rows, Path(tar)

    @classmethod
    def read(cls, tar: str | Path) -> 'ShardIndex':
        """Map the index beside a shard into memory.

        Raises:
            FileNotFoundError: there is no index.
            DataError: it is damaged, or of another format.
        """
        path = index_path(tar)
        try:
            rows = np.load(path, mmap_mode='r')
        except FileNotFoundError:  # not asked before: another process may remove it from a cache at any moment
            raise FileNotFoundError(
                f'{shown_path(tar)} has no index {path.name} beside it; make one with '
                'florence_mm.formats.shards.write_set'
            ) from None
        except (ValueError, EOFError, OSError) as error:
            raise DataError(
                f'the index {shown_path(path)} cannot be read ({error}); remove it and write the set again'
            ) from None
        if rows.dtype != ROW or rows.ndim != 1:
            raise DataError(f'{shown_path(path)} is no index of a shard of this version; remove it and write it again')
        return cls(rows, tar)

    @classmethod
    def build(cls, tar: str | Path) -> 'ShardIndex':
        """Read the headers of a whole shard; other formats' shards may hold samples without an image or a text.

        Raises:
            FileNotFoundError: there is no such file.
            DataError: the tar is damaged, cut off or compressed, or has no samples.
        """
        members: list[Member] = []
        for member in read_members(tar):
            if isinstance(member, Damage):
                if member.reason == SPARSE:
                    raise DataError(
                        f'{shown_path(tar)} has a sparse member at byte {member.offset}, whose holes GNU tar has left '
                        'out; write the tar again without --sparse'
                    )
                how = 'is cut off' if member.reason == TRUNCATED else 'has a damaged header'
                raise DataError(
                    f'{shown_path(tar)} {how} at byte {member.offset}; copy it again, or let tools/curate.py write new '
                    'shards of what is whole'
                )
            members.append(member)
        samples = [one for one in group_samples(members) if one.first(IMAGES) or one.first(TEXTS)]
        if not samples:
            raise DataError(f'{shown_path(tar)} has no images or texts; expected members such as 0001.jpg and 0001.txt')
        index = cls.of(samples, tar)
        for number, place in enumerate(index):
            if place.text == 'json' and is_augmented(read_range(tar, place.text_offset, place.text_size)):
                index.rows['flags'][number] = AUGMENTED
        return index

    @classmethod
    def of(cls, samples: Sequence[RawSample], tar: str | Path) -> 'ShardIndex':
        """Make the index of samples.

        Raises:
            DataError: an image or a text has 4 GiB or more.
        """
        rows = np.zeros(len(samples), ROW)
        rows['image_kind'] = rows['text_kind'] = NONE
        for row, sample in zip(rows, samples, strict=True):
            for name, extensions in (('image', IMAGES), ('text', TEXTS)):
                found = sample.first(extensions)
                if found is None:
                    continue
                extension, member = found
                if member.size >= 1 << 32:
                    raise DataError(f'{shown_path(tar)}: {member.name} has {member.size} bytes; leave it out')
                row[f'{name}_offset'], row[f'{name}_size'] = member.offset, member.size
                row[f'{name}_kind'] = extensions.index(extension)
        return cls(rows, tar)

    def write(self) -> Path:
        """Write the index beside its shard, atomically, and return its path."""
        file = io.BytesIO()
        np.save(file, self.rows)
        path = index_path(self.tar)
        write_atomic(path, file.getvalue())
        return path

    @cached_property
    def originals(self) -> np.ndarray:
        """Numbers of the samples that are not augmented, ``(M,)`` int64."""
        return np.flatnonzero(self.rows['flags'] & AUGMENTED == 0)

    def check_fits(self, size: int) -> None:
        """Check that all places are inside a tar of ``size`` bytes.

        Raises:
            DataError: one is not.
        """
        ends = [self.rows[f'{name}_offset'] + self.rows[f'{name}_size'] for name in ('image', 'text')]
        last = int(max(end.max(initial=0) for end in ends))
        if last > size:
            raise DataError(
                f'{shown_path(self.tar)} has {size} bytes, but its index places a sample up to byte {last}; copy both '
                'again'
            )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Place:
        row = self.rows[number]
        image, text = int(row['image_kind']), int(row['text_kind'])
        return Place(
            None if image == NONE else IMAGES[image],
            int(row['image_offset']),
            int(row['image_size']),
            None if text == NONE else TEXTS[text],
            int(row['text_offset']),
            int(row['text_size']),
        )
