"""Data set of videos with one class each, listed in a text file, for mmaction2's pipelines and recognizers."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mmengine.dataset import BaseDataset

from florence_mm.errors import DataError
from florence_mm.language.class_names import load_class_names
from florence_mm.registry import DATASETS

from .arguments import build_transforms, classes_given_once, image_prefix


@DATASETS.register_module()
class VideoList(BaseDataset):
    """Video classification data set: the list of mmaction2's ``VideoDataset``, one path and class index per line.

    The class index follows the last ``delimiter``, so that paths may have spaces. Empty lines are skipped. Unlike in
    mmaction2, every unusable line is an error that names it.

    A sample enters the pipeline with ``filename``, ``label``, ``start_index`` 0 and ``modality`` 'RGB', as in
    mmaction2, and ``source`` ("file, line n") for messages. ``metainfo`` has ``classes`` where given;
    ``largest_label`` is the largest label and its line.

    Args:
        ann_file (str): The list.
        data_root (str): Folder that relative paths start from.
        data_prefix (str | dict): Folder of the videos, ``dict(video='videos')`` or ``'videos'``.
        classes (str | Sequence[str] | None): Names of the classes in the order of their indices: a list, or a text
            file with one name per line (its path is not relative to ``data_root``).
        delimiter (str): Separator of path and class index.
        pipeline, test_mode, metainfo, indices, lazy_init: passed to :class:`mmengine.dataset.BaseDataset`; transforms
            are looked up in our registry first.

    Raises:
        FileNotFoundError: there is no list.
        DataError: the list has no videos or is not text, or a line lacks its path or class or has an unknown class.
        ValueError: arguments contradict each other, or ``classes`` is neither a list nor a file.
    """

    def __init__(
        self,
        ann_file: str,
        data_root: str = '',
        data_prefix: str | dict = '',
        classes: str | Sequence[str] | None = None,
        delimiter: str = ' ',
        pipeline: Sequence[dict | Callable] = (),
        test_mode: bool = False,
        metainfo: Mapping | None = None,
        indices: int | Sequence[int] | None = None,
        lazy_init: bool = False,
    ) -> None:
        if not delimiter:
            raise ValueError('delimiter is empty; name what stands between path and class, for instance a space')
        classes, metainfo = classes_given_once(classes, metainfo)
        names = load_class_names(classes)
        if names is not None:
            metainfo['classes'] = tuple(names)
        self.delimiter = delimiter
        super().__init__(
            ann_file=ann_file,
            metainfo=metainfo,
            data_root=data_root,
            data_prefix=image_prefix(data_prefix, 'video'),
            indices=indices,
            pipeline=build_transforms(pipeline),
            test_mode=test_mode,
            lazy_init=lazy_init,
        )

    def load_data_list(self) -> list[dict]:
        """Load the videos in the order of the list: ``filename``, ``label`` and ``line`` of each."""
        path = Path(self.ann_file)
        if not path.is_file():
            raise FileNotFoundError(f'there is no list of videos {path}; make it or correct `ann_file` and `data_root`')
        try:
            lines = path.read_text(encoding='utf-8-sig').splitlines()
        except UnicodeDecodeError:
            raise DataError(
                f'{path} is not UTF-8 text; it must have a path and the number of its class a line'
            ) from None
        entries = [self._entry(text, number) for number, text in enumerate(lines, 1) if text.strip()]
        if not entries:
            raise DataError(f'{path} lists no videos; write a path and the number of its class a line')
        largest = max(entries, key=lambda entry: entry['label'])
        self.largest_label = (largest['label'], largest['line'])
        return entries

    def _entry(self, text: str, line: int) -> dict:
        name, found, number = text.strip().rpartition(self.delimiter)
        place = f'{self.ann_file}, line {line}'
        if not found or not name.strip() or not number.isdecimal():
            raise DataError(
                f'{place}: {text.strip()!r} is not a path and the number of its class with {self.delimiter!r} between'
            )
        label, classes = int(number), self._metainfo.get('classes')
        if classes is not None and label >= len(classes):
            raise DataError(
                f'{place}: class {label} of {name!r} is outside 0 to {len(classes) - 1}; correct it or `classes`'
            )
        return {'filename': str(Path(self.data_prefix['video'], name.strip())), 'label': label, 'line': line}

    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the label of a video in a list, for :class:`mmengine.dataset.ClassBalancedDataset`."""
        return [self.get_data_info(idx)['label']]

    def get_data_info(self, idx: int) -> dict:
        """Return the sample that enters the pipeline (see the class)."""
        info = super().get_data_info(idx)
        info['source'] = f'{self.ann_file}, line {info.pop("line")}'
        return {**info, 'start_index': 0, 'modality': 'RGB'}
