"""Inferencer for retrieval: pictures or videos that fit a text, or that resemble a picture, from an index on disk."""

import json
import logging
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import print_log
from PIL import Image

from florence_mm.errors import DataError, UsageError
from florence_mm.formats.feature_index import DTYPES, FeatureIndex
from florence_mm.formats.index_files import HEAD
from florence_mm.models.protocol import TwoTowerModel
from florence_mm.utils.files import refuse_overwriting, write_atomic
from florence_mm.visualization.retrieval import draw_retrieval_grid

from .base import Inferencer, list_inputs, read_picture
from .embedding import embed_packed, embed_texts, fingerprint
from .indexed_files import DRAWN, IndexReport, file_stamp, fresh_items, is_file, item_key, item_state
from .inputs import PICTURES, Picture, ReadInput
from .named import from_anywhere
from .setup import check_count, wrong_kind
from .video_inputs import VIDEOS, VideoPipeline, any_pipeline, middle_frame, open_file, split_windows

_AT_ONCE = 256  # rows written together
_GREY = np.full((8, 8, 3), 200, np.uint8)  # in place of a result that cannot be read


class RetrievalInferencer(Inferencer):
    """Search pictures or videos by text or by picture with a two-tower model.

    ::

        inferencer = RetrievalInferencer('configs/...py', 'checkpoint.pth')
        inferencer.index('photos/', 'photos.index')
        results = inferencer.search('a dog on a beach', out_dir='found')

    An index is a folder, see :class:`~florence_mm.formats.feature_index.FeatureIndex`. It remembers the size and time
    of every file, so indexing again only embeds what is new or changed, and goes on where a kill stopped it.

    Args:
        config (str | Path | Config): Config of a :class:`UniCL`, its file, or the name of a model; with a video encoder
            the items are videos, otherwise pictures.
        checkpoint (str | Path | None): File or URL with all weights of the model; None: weights from ``init_cfg``.
        device (str | None): The device; None: the GPU if there is one.
        batch_size (int): Pictures per batch.
        precision (str): Precision, see :class:`Inferencer`.

    Raises:
        UsageError: config or checkpoint is missing, or the config has no two-tower model or no test pipeline.
        ValueError: the checkpoint lacks weights of the model.
    """

    _pipeline = staticmethod(any_pipeline)

    def __init__(
        self,
        config: str | Path | Config,
        checkpoint: str | Path | None = None,
        device: str | None = None,
        batch_size: int = 1,
        precision: str = 'fp32',
    ) -> None:
        super().__init__(config, checkpoint, device, batch_size, precision)
        if not isinstance(self.model, TwoTowerModel):
            raise wrong_kind(self.cfg, self.model, 'a two-tower model, such as UniCL')
        self._kind = VIDEOS if self.of_videos else PICTURES
        given = {'config': self.cfg.filename if isinstance(config, Config) else config, 'checkpoint': checkpoint}
        self._source = {key: None if value is None else from_anywhere(value) for key, value in given.items()}
        self._index: FeatureIndex | None = None
        self._fingerprint: str | None = None

    @property
    def source(self) -> tuple[str | None, str | None]:
        """Config and checkpoint, as an index that it makes names them."""
        return self._source['config'], self._source['checkpoint']

    @property
    def of_videos(self) -> bool:
        """Whether the items are videos."""
        return isinstance(self.pipeline, VideoPipeline)

    @property
    def _at_once(self) -> int:
        return 1 if self.of_videos else self.batch_size

    def open(self, path: str | Path) -> FeatureIndex:
        """Open an index for :meth:`search`.

        Args:
            path: its folder.

        Raises:
            UsageError: there is none, or it is of another model or other weights.
            DataError: a file of it is damaged or missing.
        """
        index = FeatureIndex.open(path)
        if index.head.get('fingerprint') != self._own_fingerprint():
            raise UsageError(
                f'the index {path} was made with other weights or another model or precision '
                f'({index.head.get("config")}, {index.head.get("checkpoint")}); use those, or make a new index in '
                'another folder'
            )
        self._index = index
        return index

    def index(
        self, items: Picture | Iterable[Picture], path: str | Path, dtype: str | None = None, skip_bad: bool = True
    ) -> IndexReport:
        """Embed pictures or videos, and append them to an index, which is made if there is none.

        Items whose file has vanished leave the index, also those that are not among ``items``; where more than a
        quarter of the rows no longer count, they are removed from the files. Above 100,000 items the graph of near
        neighbours is built, if faiss is installed. An index to which nothing could be added is not made.

        Args:
            items: Files, folders (with subfolders, sorted), globs, URLs, a list of those, or a generator.
            path: The folder of the index.
            dtype: ``'float32'`` or ``'float16'``; None: that of the index, of a new one float32.
            skip_bad: Continue after an item that cannot be read or processed; False raises its error.

        Raises:
            UsageError: there are no items, the index is of another model or ``dtype``, the folder has other files, or
                the disk is full; what was indexed is kept.
            DataError: an item cannot be read, and ``skip_bad`` is off; or the index is damaged.
        """
        listed: Iterable = list_inputs(items, self._kind)
        is_new = not (Path(path) / HEAD).exists()
        if is_new:
            self._index = FeatureIndex.create(path, self._described(), self._width(), dtype or DTYPES[0])
        else:
            self._index = self._to_append(path, dtype)
        index, report = self._index, IndexReport()
        try:
            index.lock()
            known = {index.items[row]['file']: row for row in np.flatnonzero(index.alive)}
            gone = [row for file, row in known.items() if is_file(file) and file_stamp(file) is None]
            report.vanished = len(gone)
            if gone:
                index.append(np.empty((0, index.head['dims']), np.float32), [], gone)
            fresh: Iterable = fresh_items(index, listed, known, report)
            # a list is counted, so that the log has the time left
            self._add(list(fresh) if isinstance(listed, list) else fresh, known, report, skip_bad)
            index.tidy()
        finally:
            index.close()
            if is_new and not index.items:
                index.remove()
        return report

    def _to_append(self, path: str | Path, dtype: str | None) -> FeatureIndex:
        index = self.open(path)
        if dtype not in (None, index.head['dtype']):
            raise UsageError(
                f'the index {path} has {index.head["dtype"]}; leave dtype={dtype!r} out, or make a new index in '
                'another folder'
            )
        return index

    def _add(self, fresh: Iterable[Any], known: dict[str, int], report: IndexReport, skip_bad: bool) -> None:
        """Embed items and append them in parts, each of which is on disk before the next."""
        if not isinstance(fresh, list):
            # whether a generator has anything is known after its first item
            first = list(islice(fresh, 1))
            fresh = chain(first, fresh) if first else []
        if isinstance(fresh, list) and not fresh:
            return
        rows: list[np.ndarray] = []
        kept: list[dict[str, Any]] = []
        old: list[int] = []

        def save() -> None:
            if kept:
                self._index.append(np.stack(rows), kept, old)
            for part in (rows, kept, old):
                part.clear()

        try:
            for result in self._stream(fresh, self._embed, f'indexing {self._kind.plural}', skip_bad):
                if 'error' in result:
                    report.failed.append(result)
                    continue
                rows.append(result['features'])
                kept.append({'file': item_key(result['file']), **result['stamp']})
                before = known.get(kept[-1]['file'])
                if before is not None and self._index.alive[before]:
                    old.append(before)
                    report.changed += 1
                else:
                    report.added += 1
                known[kept[-1]['file']] = len(self._index.items) + len(kept) - 1
                if len(kept) == _AT_ONCE:
                    save()
        finally:
            save()

    def search(
        self,
        queries: Picture | Sequence[Picture],
        top: int = 5,
        out_dir: str | Path | None = None,
        exact: bool | None = None,
    ) -> list[dict[str, Any]]:
        """Search the index that was made or opened last.

        Args:
            queries: A text, or a picture (a ``Path``, an array or a picture of Pillow; a ``str`` is a text), or a list
                of those.
            top: Most items found per query.
            out_dir: Folder for ``search.png``, a grid of what was found, and ``search.json``; None writes nothing.
            exact: Compare with every item; False: with those that a graph of near neighbours proposes; None: with
                every one up to 100,000 items.

        Returns:
            One dict per query: ``query`` (the text, or the picture's file, None for one in memory), ``files``, best
            first, and ``scores`` (cosines); ``changed``, those of the files that are others than in the index. Items
            whose file has vanished are left out.

        Raises:
            UsageError: no index is open or it is empty, there are no queries, or a number is out of range.
            DataError: a picture cannot be read.
        """
        if self._index is None:
            raise UsageError('no index is open; call index(items, path) to make one or open(path)')
        if out_dir is not None and (Path(out_dir) / HEAD).is_file():
            raise UsageError(f'out_dir {out_dir} is the folder of an index; name another one')
        if not len(self._index):
            raise UsageError(f'the index {self._index.folder} has no {self._kind.plural}; index some first')
        check_count('top', top)
        one = isinstance(queries, (str, Path, np.ndarray, Image.Image)) or not isinstance(queries, Iterable)
        queries = [queries] if one else list(queries)
        if not queries:
            raise UsageError('there are no queries; give a text or a picture')
        pictures = [None if isinstance(query, str) else read_picture(query) for query in queries]
        results = []
        for query, picture in zip(queries, pictures, strict=True):
            feature = self._query_text(query) if picture is None else self._query_picture(picture)
            shown = query if isinstance(query, str) else str(query) if isinstance(query, Path) else None
            results.append({'query': shown, **self._find(feature, top, exact)})
        if out_dir is not None:
            self._write(results, pictures, top, Path(out_dir))
        return results

    def _find(self, feature: np.ndarray, top: int, exact: bool | None) -> dict[str, list]:
        """Search for one feature, and look whether the files found are still those of the index."""
        asked = top
        while True:
            rows, scores = self._index.search(feature, asked, exact)
            states = [item_state(self._index, row) for row in rows]
            there = [i for i, state in enumerate(states) if state != 'vanished'][:top]
            if len(there) == top or len(rows) < asked:
                break
            asked *= 2
        files = [self._index.items[rows[i]]['file'] for i in there]
        changed = [self._index.items[rows[i]]['file'] for i in there if states[i] == 'changed']
        for word, number in (('vanished', states.count('vanished')), ('changed', len(changed))):
            if number:
                text = f'{number} of the files found have {word} since they were indexed; index them again'
                print_log(text, 'current', logging.WARNING)
        return {'files': files, 'scores': [round(float(scores[i]), 4) for i in there], 'changed': changed}

    def _query_text(self, text: str) -> np.ndarray:
        if not text.strip():
            raise UsageError('a query is empty; write a text')
        return embed_texts(self.model, [text])[0]

    def _query_picture(self, picture: np.ndarray) -> np.ndarray:
        if self.of_videos:
            raise UsageError(
                f'config {self.cfg.filename} is of a video model, which takes no picture; search by a text'
            )
        return embed_packed(self.model, self.cfg, pseudo_collate([self.pipeline(picture)]))[0]

    def _read(self, item: Any) -> Any:
        """Read a picture; leave a video to be read when it is embedded."""
        if not isinstance(item, (str, Path)):
            raise DataError(
                getattr(item, 'sentence', f'an index is of files; save the {self._kind.name} to a file first')
            )
        return None if self.of_videos else read_picture(item)

    def _embed(self, batch: Sequence[ReadInput]) -> list[dict[str, Any]]:
        """Embed a batch of read items, with the size and time of their files."""
        stamps = [file_stamp(one.file) if is_file(one.file) else {} for one in batch]
        prepared = [self._prepare_video(one) if self.of_videos else self.pipeline(one.image, one.file) for one in batch]
        features = embed_packed(self.model, self.cfg, pseudo_collate(prepared))
        return [{'features': row, 'stamp': stamp} for row, stamp in zip(features, stamps, strict=True)]

    def _prepare_video(self, video: ReadInput) -> dict[str, Any]:
        reader = open_file(video.file, 'pyav')
        try:
            return self.pipeline(next(split_windows(reader, None, None)))[0]
        finally:
            reader.close()

    def _width(self) -> int:
        # of any text, as pictures and texts have features of one width
        return int(embed_texts(self.model, ['red']).shape[1])

    def _own_fingerprint(self) -> str:
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self.model, self.cfg, self.pipeline.pipeline)
        return self._fingerprint

    def _described(self) -> dict[str, Any]:
        return {'kind': self._kind.name, 'fingerprint': self._own_fingerprint(), **self._source}

    def _write(self, results: list[dict], pictures: list[np.ndarray | None], top: int, folder: Path) -> None:
        """Draw the grid, and write the results."""
        files = list(dict.fromkeys(file for result in results for file in result['files']))
        for name in DRAWN:
            refuse_overwriting(folder / name, files, 'out_dir')
        if files:
            similarity = torch.full((len(results), len(files)), -torch.inf)
            for row, result in enumerate(results):
                for file, score in zip(result['files'], result['scores'], strict=True):
                    similarity[row, files.index(file)] = score
            names = [result['query'] or 'a picture' for result in results]
            shown = [self._look(file) for file in files]
            draw_retrieval_grid(names, shown, similarity, folder / DRAWN[0], top=top, pictures=pictures)
        content = {'index': str(self._index.folder), 'queries': results}
        write_atomic(folder / DRAWN[1], json.dumps(content, indent=1) + '\n')

    def _look(self, file: str) -> np.ndarray:
        try:
            return middle_frame(file) if self.of_videos else read_picture(file)
        except DataError as error:
            print_log(str(error), 'current', logging.WARNING)
            return _GREY
