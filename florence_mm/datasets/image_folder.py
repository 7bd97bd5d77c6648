"""Data set of images in one folder per class."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from florence_mm.errors import DataError
from florence_mm.language.class_names import load_class_names
from florence_mm.registry import DATASETS

from .base import ImageTextDataset

IMAGE_EXTENSIONS = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff', '.gif', '.ppm', '.pgm')


@DATASETS.register_module()
class ImageFolderText(ImageTextDataset):
    """Class-labelled images in ``data_root/FOLDER/**``; the class name is the text.

    Folders, and the images in each, are sorted by name; hidden files are left out.

    Args:
        data_root (str): The folder of the class folders.
        class_names: The names of the classes. None: the folder's name with spaces for underscores. A dict or a json
            file: folder to name. A list, a text file with one name per line, ``'imagenet1k'`` or ``'digits'``: one name
            per folder, in the sorted order of the folders. Folders with the same name are one class with a dict or
            None, and separate classes with a list.
        extensions (Sequence[str]): Extensions of image files, in lower case.
        data_prefix, skip_bad, pipeline, test_mode, metainfo, indices, lazy_init: see
            :class:`ImageTextDataset`.

    Raises:
        FileNotFoundError: there is no such folder.
        DataError: there are no class folders, one is empty or has no name, a name has no folder, or a file is not an
            image (and may not be skipped).
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
        self.extensions = tuple(extension.lower() for extension in extensions)
        if isinstance(class_names, str) and class_names.endswith('.json'):
            class_names = json.loads(Path(class_names).read_text(encoding='utf-8'))
        self._names = dict(class_names) if isinstance(class_names, Mapping) else load_class_names(class_names)
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
        folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith('.'))
        if not folders:
            raise DataError(f'{root} has no class folders; expected one folder a class with its images')
        classes = self._classes([folder.name for folder in folders], root)
        for folder, class_index in zip(folders, classes, strict=True):
            files = sorted(p for p in folder.rglob('*') if not p.name.startswith('.') and not p.is_dir())
            if not files:
                raise DataError(f'the class folder {folder} is empty; put its images there or remove it')
            for file in files:
                if file.suffix.lower() in self.extensions:
                    yield {'image': file.relative_to(root).as_posix(), 'line': None, 'class_index': class_index}
                else:
                    yield DataError(f'{file} is not an image; expected one of {", ".join(self.extensions)}')

    def _classes(self, folders: list[str], root: Path) -> list[int]:
        if isinstance(self._names, list):
            if len(self._names) != len(folders):
                raise DataError(f'{root} has {len(folders)} class folders, but there are {len(self._names)} names')
            return list(range(len(folders)))
        if self._names is None:
            return [self.class_names.index(folder.replace('_', ' ')) for folder in folders]
        for wrong, what in ((set(folders) - set(self._names), 'name'), (set(self._names) - set(folders), 'folder')):
            if wrong:
                raise DataError(f'{root}: no {what} for {", ".join(map(repr, sorted(wrong)[:5]))} in `class_names`')
        return [self.class_names.index(self._names[folder]) for folder in folders]
