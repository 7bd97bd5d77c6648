"""Data set of images in one folder per class."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from florence_mm.errors import DataError, shown, shown_path
from florence_mm.language.class_names import load_class_names
from florence_mm.language.folder_names import match_names
from florence_mm.language.labels import is_blank
from florence_mm.registry import DATASETS
from florence_mm.utils.json_files import read_json
from florence_mm.utils.text_files import is_encodable

from .arguments import require
from .base import ImageTextDataset

IMAGE_EXTENSIONS = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff', '.gif', '.ppm', '.pgm')


@DATASETS.register_module()
class ImageFolderText(ImageTextDataset):
    """Class-labelled images in ``data_root/FOLDER/**``; the class name is the text.

    Folders, and the images in each, are sorted by name; hidden files and folders are left out. An image beside the
    folders, which has no class, and a file that is not an image are unusable rows.

    Args:
        data_root (str): The folder of the class folders.
        class_names: The names of the classes. None: the folder's name with spaces for underscores. A dict or a json
            file: folder to name. A list, a text file with one name per line, ``'imagenet1k'`` or ``'digits'``: the
            classes in the order of their labels. Names that are the folders' own belong to them by name, in whatever
            order; the names of folders 0 to n - 1 are at these places; other names belong to the folders in their
            sorted order, and the first are logged (:func:`florence_mm.language.folder_names.match_names`). Folders
            with the same name are one class with a dict or None, and separate classes with a list.
        extensions (Sequence[str]): Extensions of image files, in lower case.
        data_prefix, skip_bad, pipeline, test_mode, metainfo, indices, lazy_init: see
            :class:`ImageTextDataset`.

    Raises:
        FileNotFoundError: there is no such folder.
        DataError: there are no class folders, one is empty or has no name, a name has no folder, names of a list
            cannot be told apart, or a file is not an image (and may not be skipped).
    """

    def __init__(
        self,
        data_root: str,
        class_names: str | Mapping[str, str] | Sequence[str] | None = None,
        extensions: Sequence[str] = IMAGE_EXTENSIONS,
        data_prefix: str | dict = '',
        skip_bad: dict | None = None,
        pipeline: Sequence[dict | Callable] = (),
        test_mode: bool = False,
        metainfo: Mapping | None = None,
        indices: int | Sequence[int] | None = None,
        lazy_init: bool = False,
    ) -> None:
        right = isinstance(extensions, Sequence) and not isinstance(extensions, str) and len(extensions) > 0
        right = right and all(isinstance(item, str) and item.startswith('.') for item in extensions)
        require('extensions', extensions, right, "a list such as ['.jpg', '.png']")
        self.extensions = tuple(extension.lower() for extension in extensions)
        self._names = _names_of_classes(class_names)
        super().__init__(
            data_root=data_root,
            data_prefix=data_prefix,
            classes=self._names if isinstance(self._names, list) else None,
            skip_bad=skip_bad,
            pipeline=pipeline,
            test_mode=test_mode,
            metainfo=metainfo,
            indices=indices,
            lazy_init=lazy_init,
        )

    def iter_rows(self) -> Iterator[dict | DataError]:
        """Yield one row per image file."""
        root = Path(self.data_prefix['img_path'] or self.data_root)
        if not root.is_dir():
            raise FileNotFoundError(f'there is no image folder {root}; correct `data_root` and `data_prefix`')
        entries = sorted(path for path in root.iterdir() if not path.name.startswith('.'))
        folders = [path for path in entries if path.is_dir()]
        if not folders:
            raise DataError(f'{root} has no class folders; expected one folder a class with its images')
        classes = self._classes([folder.name for folder in folders], root)
        for file in entries:
            if file.is_symlink() and not file.exists():
                yield DataError(f'{shown_path(file)} is a link that leads nowhere; restore what it names, or remove it')
            elif file.suffix.lower() in self.extensions and not file.is_dir():
                yield DataError(f'{shown_path(file)} is in no class folder; move it into one, or elsewhere')
        owners: dict[str, tuple[Path, int]] = {}
        for folder, class_index in zip(folders, classes, strict=True):
            files = _files(folder, root)
            for real in {os.path.realpath(file.parent) for file in files}:
                owner, its_class = owners.setdefault(real, (folder, class_index))
                if its_class != class_index:
                    raise DataError(
                        f'the images in {shown_path(Path(real))} have the classes of {shown_path(owner)} and '
                        f'{shown_path(folder)}, through a link; remove the link'
                    )
            if not files:
                raise DataError(f'the class folder {folder} is empty; put its images there or remove it')
            for file in files:
                if file.suffix.lower() not in self.extensions:
                    yield DataError(f'{shown_path(file)} is not an image; expected one of {", ".join(self.extensions)}')
                elif not is_encodable(str(file)):
                    yield DataError(f'the name of {shown_path(file)} is not UTF-8; rename it')
                else:
                    yield {'image': file.relative_to(root).as_posix(), 'line': None, 'class_index': class_index}

    def _classes(self, folders: list[str], root: Path) -> list[int]:
        if isinstance(self._names, list):
            try:
                places = match_names(folders, self._names)
            except ValueError as error:
                raise DataError(f'{root}: {error}; give `class_names` as a dict from folder to name') from None
            pairs = ', '.join(f'{folder} is {self._names[places[i]]!r}' for i, folder in enumerate(folders[:5]))
            print_log(f'{root}: class names by folder: {pairs}{", ..." if len(folders) > 5 else ""}', 'current')
            return places
        if self._names is None:
            names = [folder.replace('_', ' ') for folder in folders]
        else:
            given = set(self._names)
            for wrong, what in ((set(folders) - given, 'name'), (given - set(folders), 'folder')):
                if wrong:
                    raise DataError(f'{root}: no {what} for {", ".join(map(repr, sorted(wrong)[:5]))} in `class_names`')
            names = [self._names[folder] for folder in folders]
        indices = []
        for folder, name in zip(folders, names, strict=True):
            try:
                indices.append(self.class_names.index(name))
            except ValueError as error:
                raise DataError(f'the class folder {shown_path(root / folder)}: {error}; correct its name') from None
        return indices


def _names_of_classes(class_names: Any) -> list[str] | dict[str, str] | None:
    """Load names from a json file or as :func:`load_class_names` does, and check those of a dict."""
    where = 'class_names'
    if isinstance(class_names, str) and class_names.lower().endswith('.json'):
        where = class_names
        class_names = read_json(class_names, (dict, list), 'correct `class_names`')
    if not isinstance(class_names, Mapping):
        return load_class_names(class_names)
    for folder, name in class_names.items():
        if not isinstance(folder, str) or not isinstance(name, str) or is_blank(name):
            raise DataError(f'{where}: the folder {folder!r} has the name {shown(name)}; expected text for both')
    return dict(class_names)


def _files(folder: Path, root: Path) -> list[Path]:
    """The files in a folder and those in it, through links too, sorted; hidden ones are left out."""
    files, seen = [], {os.path.realpath(root)}

    def refuse(error: OSError) -> None:
        raise error

    for parent, inside, names in os.walk(folder, onerror=refuse, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link to a folder around it
            inside.clear()
            continue
        seen.add(real)
        inside[:] = [name for name in inside if not name.startswith('.')]
        files += [Path(parent, name) for name in names if not name.startswith('.')]
    return sorted(files)
