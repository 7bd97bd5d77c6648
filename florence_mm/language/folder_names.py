"""Which name of a list belongs to which class folder."""

import re
from collections.abc import Sequence

from .labels import normalize_text


def match_names(folders: Sequence[str], names: Sequence[str]) -> list[int]:
    """Find the name of each folder in a list of class names.

    1. Names that are the folders' own, in whatever order, belong to them by name (spaces and underscores, and upper
       and lower case, are alike).
    2. Folders that are the numbers 0 to n - 1 have the names at these places.
    3. Other names belong to the folders in their sorted order, as with the folders of ImageNet (n01440764, ...) and
       the list of its class names.

    Args:
        folders (Sequence[str]): Folders, sorted.
        names (Sequence[str]): As many names.

    Returns:
        list[int]: The place in ``names`` of each folder's name.

    Raises:
        ValueError: the order cannot be told: some names are folders and some are not, a name has words of another
            folder, two folders have one name, or the numbers that are the folders are in another order when sorted as
            texts. The message is only the reason.

    >>> match_names(['cat', 'hot_dog'], ['hot dog', 'cat'])
    [1, 0]
    >>> match_names(['0', '1'], ['zero', 'one'])
    [0, 1]
    """
    if len(folders) != len(names):
        raise ValueError(f'{len(folders)} class folders, but there are {len(names)} names')
    by_name: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        by_name.setdefault(_key(name), []).append(place)
    own = [by_name.get(_key(folder), []) for folder in folders]
    found = [folder for folder, places in zip(folders, own, strict=True) if places]
    if len(found) == len(folders):
        if len({place for places in own for place in places}) < len(names) or any(len(places) > 1 for places in own):
            raise ValueError('two folders or two names differ only in upper and lower case, spaces or underscores')
        return [places[0] for places in own]
    numbers = [int(folder) for folder in folders if folder.isascii() and folder.isdecimal()]
    if not found and len(numbers) == len(folders):
        if sorted(numbers) == list(range(len(folders))):
            return numbers
        if numbers != sorted(numbers):
            raise ValueError('the folders are numbers whose order as texts is another')
    if found:
        missing = next(folder for folder, places in zip(folders, own, strict=True) if not places)
        raise ValueError(f'some names are those of folders, such as {found[0]!r}, but none is that of {missing!r}')
    words = [set(_key(folder).split()) for folder in folders]
    for place, name in enumerate(names):
        said = set(re.findall(r'\w+', _key(name)))
        others = [folder for folder, its in zip(folders, words, strict=True) if its and its <= said]
        if others and folders[place] not in others:
            raise ValueError(f'the name {name!r} is in the place of {folders[place]!r}, but names {others[0]!r}')
    return list(range(len(folders)))


def _key(name: str) -> str:
    return normalize_text(name.replace('_', ' '))
