"""Common list of classes of several sources, by names and synonyms."""

from collections.abc import Mapping, Sequence

from florence_mm.errors import DataError
from florence_mm.language.labels import normalize_text

#: categories of a source: id -> name
Categories = dict[int | str, str]


def class_key(name: str) -> str:
    """Normalise a class name for comparison, with spaces for underscores (``'Fire_hydrant'``)."""
    return normalize_text(name.replace('_', ' '))


class Taxonomy:
    """Map the categories of every source to one sorted list of classes.

    Names that are equal after :func:`class_key` are one class, and so are synonyms. A synonym for a single source,
    ``'coco:mouse'``, has priority over a general one.

    Args:
        sources (Sequence[tuple[str, Categories]]): Name and categories of each source.
        synonyms (Mapping[str, Sequence[str]]): Class name -> its other names.

    Attributes:
        classes (list[str]): Names in the order of their ids, which start at 1.
        unused (list[str]): Synonyms that occur in no source.

    Raises:
        DataError: a name is empty, stands for two classes, or is itself a synonym of another.
    """

    def __init__(
        self, sources: Sequence[tuple[str, Categories]], synonyms: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self.sources = [(name, dict(categories)) for name, categories in sources]
        self._synonyms = self._read_synonyms(synonyms or {})
        used: set[tuple[str | None, str]] = set()
        names: list[dict[int | str, str]] = []
        self.by_synonym: list[set[int | str]] = []
        for source, categories in self.sources:
            keys = {id_: self._key(name, source) for id_, name in categories.items()}
            hits = {id_: self._hit(source, key) for id_, key in keys.items()}
            used.update(hit for hit in hits.values() if hit is not None)
            names.append({id_: key if hits[id_] is None else self._synonyms[hits[id_]] for id_, key in keys.items()})
            self.by_synonym.append({id_ for id_, hit in hits.items() if hit is not None})
        self.classes = sorted({name for mapped in names for name in mapped.values()})
        index = {name: number for number, name in enumerate(self.classes, 1)}
        #: for each source: category id -> class id
        self.class_of = [{id_: index[name] for id_, name in mapped.items()} for mapped in names]
        #: for each source: class id -> ids of the categories it is made of
        self.members: list[dict[int, set[int | str]]] = [{} for _ in names]
        for mapped, members in zip(self.class_of, self.members, strict=True):
            for id_, class_ in mapped.items():
                members.setdefault(class_, set()).add(id_)
        self.unused = sorted(
            name if source is None else f'{source}:{name}' for source, name in self._synonyms.keys() - used
        )

    def _read_synonyms(self, synonyms: Mapping[str, Sequence[str]]) -> dict[tuple[str | None, str], str]:
        sources = {name for name, _ in self.sources}
        targets: dict[tuple[str | None, str], str] = {}
        for name, others in synonyms.items():
            target = self._key(name, 'synonyms')
            for other in others:
                source, colon, rest = other.partition(':')
                place = (source, rest) if colon and source in sources else (None, other)
                place = (place[0], self._key(place[1], 'synonyms'))
                if targets.setdefault(place, target) != target:
                    raise DataError(f'synonyms: {other!r} stands for both {targets[place]!r} and {target!r}; keep one')
        for target in sorted(set(targets.values())):
            further = targets.get((None, target), target)
            if further != target:
                raise DataError(
                    f'synonyms: {target!r} has other names but is itself another name of {further!r}; list all names '
                    f'under {further!r}'
                )
        return targets

    def _hit(self, source: str, key: str) -> tuple[str | None, str] | None:
        return next((place for place in ((source, key), (None, key)) if place in self._synonyms), None)

    @staticmethod
    def _key(name: str, where: str) -> str:
        key = class_key(name)
        if not key:
            raise DataError(f'{where}: the class name {name!r} is empty')
        return key

    def describe(self) -> list[dict]:
        """List every class with the categories it is made of, for the report."""
        described = []
        for class_, name in enumerate(self.classes, 1):
            parts = [
                {
                    'source': source,
                    'category_id': id_,
                    'name': categories[id_],
                    'by': 'synonym' if id_ in self.by_synonym[number] else 'name',
                }
                for number, (source, categories) in enumerate(self.sources)
                for id_ in sorted(self.members[number].get(class_, ()), key=str)
            ]
            described.append({'id': class_, 'name': name, 'from': parts})
        return described
