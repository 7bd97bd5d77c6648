"""Which classes an image was searched for, in files whose images come from sources with different classes."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from florence_mm.errors import DataError


class LabelSources:
    """What a COCO-format file says about the classes that its images were searched for.

    Three kinds of files:

    - plain: every category in every image; nothing is said;
    - merged: the top level has ``sources``, a list of ``name``, ``category_ids`` and perhaps ``federated``, and each
      image has ``source``, a name. An image was searched for all categories of its source, unless the source is
      federated;
    - LVIS (no ``sources``, but images with ``neg_category_ids``): all images are federated.

    A federated image was searched for the categories of its boxes and its ``neg_category_ids``. Of those in
    ``not_exhaustive_category_ids`` not every object has a box, so nothing can be said about the rest of the image
    and they are no negatives there (LVIS, arXiv 1908.03195, section 2).

    Args:
        content (dict): The file.
        label_of (Mapping[int, int]): Label of each category id that is a class. Empty: nothing is said, as where all
            boxes are of one class, which no source annotates in full.
        path (str): The file's name, for messages.

    Raises:
        DataError: an image has no source or an unknown one, or a source has unknown categories.
    """

    def __init__(self, content: dict, label_of: Mapping[int, int], path: str) -> None:
        self.label_of = label_of
        sources = content.get('sources') or []
        federated = not sources and any('neg_category_ids' in image for image in content['images'])
        self.active = bool(label_of) and (bool(sources) or federated)
        self.labels: dict[str | None, np.ndarray | None] = {None: None} if federated else {}
        known = {category['id'] for category in content['categories']}
        for source in sources:
            unknown = sorted(set(source.get('category_ids', [])) - known)
            if 'name' not in source or unknown or not source.get('category_ids') and not source.get('federated'):
                what = f'unknown category_ids {unknown[:5]}' if unknown else 'no name or no category_ids'
                raise DataError(f'{path}: the source {source.get("name")!r} has {what}; merge the file again')
            self.labels[source['name']] = None if source.get('federated') else self._to_labels(source['category_ids'])
        if sources:
            for image in content['images']:
                if image.get('source') not in self.labels:
                    raise DataError(
                        f'{path}: image {image["id"]} has source {image.get("source")!r}, which is none of '
                        f'{", ".join(map(repr, self.labels))}; merge the file again'
                    )

    def _to_labels(self, category_ids: Any) -> np.ndarray:
        labels = {self.label_of[i] for i in category_ids if i in self.label_of}
        return np.array(sorted(labels), dtype=np.int64)

    def entry(self, image: dict, positive: Iterable[int]) -> dict:
        """What is kept of an image with boxes of the categories ``positive``: its source, or labels of its own."""
        if not self.active:
            return {}
        source = image.get('source') if None not in self.labels else None
        if self.labels[source] is not None:
            return {'source': source}
        searched = (
            set(positive)
            .union(image.get('neg_category_ids', []))
            .difference(image.get('not_exhaustive_category_ids', []))
        )
        return {'source': source, 'own_labels': self._to_labels(searched)}

    def annotated_labels(self, info: dict) -> np.ndarray | None:
        """The labels ``(n,)`` int64 that the image of ``info`` was searched for, ascending; None: all.

        Arrays of a whole source are shared between images, as a source may have thousands of classes.
        """
        if not self.active:
            return None
        own = info.pop('own_labels', None)
        return self.labels[info['source']] if own is None else own
