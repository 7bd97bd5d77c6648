"""Classes annotated in each image of federated files: LVIS, and files merged from sources with different classes."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from florence_mm.errors import DataError


class LabelSources:
    """Look up the labels annotated in each image of a COCO-format file.

    A class is annotated in an image if every object of it has a box there, or if its absence was verified. The other
    classes may be present without a box, so they must not be negatives. Three kinds of files:

    - plain: every category is annotated in every image;
    - merged: the top level has ``sources``, a list of ``name``, ``category_ids`` and optionally ``federated``, and each
      image has ``source``, a name. All categories of its source are annotated, unless the source is federated;
    - LVIS (no ``sources``, but images with ``neg_category_ids``): all images are federated.

    In a federated image the categories of its boxes and its ``neg_category_ids`` are annotated, except
    ``not_exhaustive_category_ids``, of which not every object has a box (LVIS, arXiv 1908.03195, section 2).

    Args:
        content (dict): Content of the file.
        label_of (Mapping[int, int]): Category id to label. Empty: treat the file as plain, as for class-agnostic
            detection, where no source annotates the one class completely.
        path (str): Name of the file, for messages.

    Raises:
        DataError: an image names no source or an unknown one, or a source has unknown categories.
    """

    def __init__(self, content: dict, label_of: Mapping[int, int], path: str) -> None:
        self.label_of = label_of
        sources = content.get('sources') or []
        federated = not sources and any('neg_category_ids' in image for image in content['images'])
        self.active = bool(label_of) and (bool(sources) or federated)
        self.labels: dict[str | None, np.ndarray | None] = {None: None} if federated else {}
        all_ids = {category['id'] for category in content['categories']}
        for source in sources:
            unknown = sorted(set(source.get('category_ids', [])) - all_ids)
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
        """What to store for an image with boxes of the categories ``positive``: its source, or its annotated labels."""
        if not self.active:
            return {}
        source = image.get('source') if None not in self.labels else None
        if self.labels[source] is not None:
            return {'source': source}
        annotated = (
            set(positive)
            .union(image.get('neg_category_ids', []))
            .difference(image.get('not_exhaustive_category_ids', []))
        )
        return {'source': source, 'annotated_labels': self._to_labels(annotated)}

    def annotated_labels(self, info: dict) -> np.ndarray | None:
        """Return the labels annotated in an image, ``(n,)`` int64, ascending; None: all.

        Images of a source share one array, as it may have thousands of classes.

        Args:
            info (dict): Entry of the image, from which what :meth:`entry` stored is removed.
        """
        if not self.active:
            return None
        labels = info.pop('annotated_labels', None)
        return self.labels[info['source']] if labels is None else labels
