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
        if not isinstance(sources, list) or not all(isinstance(source, dict) for source in sources):
            raise DataError(f'{path}: `sources` must be a list of objects with name and category_ids; merge it again')
        for source in sources:
            place = f'{path}: the source {source.get("name")!r}'
            if not isinstance(source.get('name'), str) or not (source.get('category_ids') or source.get('federated')):
                raise DataError(f'{place} has no name or no category_ids; merge the file again')
            if source['name'] in self.labels:
                raise DataError(f'{place} occurs twice; merge the file again')
            _require_ids(source, 'category_ids', all_ids, place)
            self.labels[source['name']] = None if source.get('federated') else self._to_labels(source['category_ids'])
        for image in content['images']:
            for key in ('neg_category_ids', 'not_exhaustive_category_ids'):
                if key in image:
                    _require_ids(image, key, all_ids, f'{path}: image {image["id"]}')
        if sources:
            for image in content['images']:
                if not isinstance(image.get('source'), str) or image['source'] not in self.labels:
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


def _require_ids(item: Mapping, key: str, known: set[int], where: str) -> None:
    ids = item.get(key, [])
    if not isinstance(ids, list) or not all(type(id_) is int for id_ in ids):
        raise DataError(f'{where} has {key} {ids!r}; expected a list of category ids')
    unknown = sorted(set(ids) - known)
    if unknown:
        raise DataError(f'{where} has unknown {key} {unknown[:5]}; name ids of the list `categories`')
