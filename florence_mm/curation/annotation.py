"""The data engine of Florence-2 (arXiv 2311.06242, section 3): annotate pictures, filter, refine in rounds.

Specialists annotate the pictures. What the filters keep is a task file, on which a model is trained; its predictions
are merged with the old annotations, which are filtered again, and so on. Merging begins with the annotations of the
specialists in every round, so that a model's own finds count once, not once a round.

A run that was stopped goes on where it was, and ends with the same bytes. A step whose input or options have changed
is done again, with all that was made of it.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from florence_mm.errors import UsageError, shown_path
from florence_mm.formats.tasks import task_line
from florence_mm.utils.digests import blake2b_of
from florence_mm.utils.files import replacing, write_atomic
from florence_mm.utils.json_files import read_json
from florence_mm.utils.progress import ProgressLog

from . import annotation_reasons as reasons
from .annotation_filters import filter_items
from .annotation_items import Item, item_line, rows_of
from .annotation_merging import merge_predictions, merge_sources
from .annotation_parsing import Parser
from .annotation_pictures import Picture, list_pictures, read_part, read_picture_file, write_part
from .annotation_report import AnnotationReport, make_report
from .annotation_settings import AnnotationSettings
from .annotation_sources import (
    Specialist,
    TextChooser,
    Trainer,
    TrainingData,
    annotate,
    choose_region_texts,
)
from .capfilt_texts import decode_or_reason
from .options import as_json
from .stage_c import claim_folder
from .state import combined_digest, one_run, read_record, write_record

ANNOTATIONS, DROPPED, REPORT = 'annotations.jsonl', 'dropped.jsonl', 'report'
#: File by which a folder is known as one that the data engine writes to.
MARK = '.annotation'
_STATE = 'state'


class Models(NamedTuple):
    """What a run works with.

    Attributes:
        specialists: sources of annotations, in their order; none: what is given alone.
        chooser: chooses texts of regions; None: they stay.
        parser: parses texts; None: nothing that needs a parse.
        trainer: trains a model in each round of refining.
    """

    specialists: tuple[Specialist, ...] = ()
    chooser: TextChooser | None = None
    parser: Parser | None = None
    trainer: Trainer | None = None


class Round(NamedTuple):
    """What a round has made: 0 of annotating, others of refining.

    Attributes:
        annotations: task file of what is kept.
        dropped: the other annotations, each with its reason.
        report: numbers and examples.
        parts: the pictures with all their annotations, see :func:`.annotation_pictures.read_part`. The old ones of a
            picture come first, in the order in which they were given and found.
    """

    annotations: Path
    dropped: Path
    report: AnnotationReport
    parts: list[Path]


def run_annotation(settings: AnnotationSettings, models: Models) -> list[Round]:
    """Annotate, filter and refine; the same bytes whether it was stopped or not.

    Args:
        settings: see :class:`AnnotationSettings`.
        models: see :class:`Models`.

    Returns:
        the rounds; the last one's annotations are also ``annotations.jsonl`` in the folder.

    Raises:
        UsageError: there are no pictures, none can be read, nothing is kept, what an option needs is missing, or
            another run works in the folder.
        DataError: a whole file cannot be read.
    """
    _check_needs(settings, models)
    claim_folder(settings.out, MARK, 'annotate')
    with one_run(settings.out / _STATE):
        run = _Run(settings, models)
        rounds = [run.first()]
        for number in range(1, settings.refine.rounds + 1):
            rounds.append(run.refine(number, rounds[-1].annotations))
        for stale in settings.out.glob('round*'):  # of an earlier run with more rounds
            number = stale.name.removeprefix('round')
            if number.isdecimal() and int(number) >= len(rounds):
                shutil.rmtree(stale)
        with replacing(settings.out / ANNOTATIONS) as temporary:
            shutil.copyfile(rounds[-1].annotations, temporary)
    return rounds


def _check_needs(settings: AnnotationSettings, models: Models) -> None:
    option = settings.filter.needing_parser()
    if option is not None and models.parser is None:
        raise UsageError(f"{option} needs a parser; add parser='en_core_web_sm', or another model of spaCy")
    if settings.refine.rounds and models.trainer is None:
        raise UsageError('refine.rounds needs a model that is trained; add trainer=dict(...) to the config')
    names = [specialist.source for specialist in models.specialists]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f'two specialists are named {name!r}; give one of them another source')


class _Run:
    """The steps of a run, each of which writes parts with records."""

    def __init__(self, settings: AnnotationSettings, models: Models) -> None:
        self.settings, self.models = settings, models
        self.out, self.state = settings.out, settings.out / _STATE
        self.root = settings.pictures.root(self.out)
        self.parts = list_pictures(settings.pictures, self.state, self.out)
        self.parser = None if models.parser is None else models.parser.name

    # --- rounds -------------------------------------------------------------------------------------------------------

    def first(self) -> Round:
        """Annotate and filter."""
        models, settings = self.models, self.settings
        made_of = {
            'step': 'annotate',
            'specialists': [[one.source, one.name] for one in models.specialists],
            'chooser': None
            if models.chooser is None
            else [models.chooser.name, self.parser, as_json(settings.region_texts)],
            'merge': as_json(settings.merge),
        }
        found = self._parts(0, 'found', self.parts, made_of, self._annotate)
        self._check_any_picture(found)
        return self._finish(0, found)

    def refine(self, number: int, annotations: Path) -> Round:
        """Train on the last round's annotations, predict, merge and filter."""
        model = _Trained(self.models.trainer, TrainingData(annotations, self.root, number), self._folder(number))
        made_of = {
            'step': 'refine',
            'model': model.made_of,
            'merge': as_json(self.settings.merge),
            'kinds': self.settings.refine.kinds,
        }
        old = [self._folder(0) / 'found' / part.name for part in self.parts]
        found = self._parts(number, 'found', old, made_of, lambda path: self._predict(path, model))
        return self._finish(number, found)

    def _finish(self, number: int, found: list[Path]) -> Round:
        made_of = {'step': 'filter', 'filter': as_json(self.settings.filter), 'parser': self.parser}
        if number:
            made_of['old'] = [blake2b_of(self._folder(0) / 'found' / part.name) for part in self.parts]
        filtered = self._parts(number, 'filtered', found, made_of, lambda path: self._filter(path, number))
        out = self.out / f'round{number}'
        paths = out / ANNOTATIONS, out / DROPPED
        report = make_report(filtered, number, self.root, self.settings.report, self.models.parser)
        if not report.kept:
            raise UsageError(
                f'no annotation of {report.total} is kept in round {number} ({report.reasons()}); lower the limits of '
                '`filter`, or add a specialist'
            )
        self._write(filtered, *paths)
        report.write(out / REPORT)
        return Round(*paths, report, filtered)

    # --- steps of a part ----------------------------------------------------------------------------------------------

    def _annotate(self, path: Path) -> Iterator[Picture]:
        """Let the specialists see the pictures of a part, and merge what they say."""
        merge, chooser = self.settings.merge, self.models.chooser
        for batch in _batches(read_part(path), self.settings.batch_size):
            images = [self._see(picture) for picture in batch]
            seen = [n for n, image in enumerate(images) if image is not None]
            known = [batch[n].items for n in seen]
            found = annotate([images[n] for n in seen], known, self.models.specialists) if seen else []
            for n, items in zip(seen, found, strict=True):
                items = merge_sources(items, merge)
                if chooser is not None:
                    options = self.settings.region_texts
                    items = choose_region_texts(images[n], items, chooser, self.models.parser, options)
                batch[n].items = items
            yield from batch

    def _predict(self, path: Path, model: '_Trained') -> Iterator[Picture]:
        """Let the trained model see the pictures of a part, and merge its predictions."""
        kinds = self.settings.refine.kinds
        for batch in _batches(read_part(path), self.settings.batch_size):
            seen = [picture for picture in batch if picture.drop is None]
            images = [self._see(picture) for picture in seen]
            lost = next((one.image for one, image in zip(seen, images, strict=True) if image is None), None)
            if lost is not None:
                raise UsageError(
                    f'the picture {shown_path(self.root / lost)} cannot be read, and was read before; restore it and '
                    'run the command again'
                )
            known = [[item for item in picture.items if item.drop is None] for picture in seen]
            predictor = model.load()
            found = annotate(images, [[] for _ in seen], [_Knowing(predictor, known)]) if seen else []
            for picture, items in zip(seen, found, strict=True):
                new = [item for item in items if item.kind in kinds]
                asked = [n for n, item in enumerate(picture.items) if item.kind in kinds]
                old = [picture.items[n] for n in asked]
                merged = merge_predictions(old, new, self.settings.merge, predictor.tasks)
                for n, item in zip(asked, merged, strict=False):
                    picture.items[n] = item
                picture.items += merged[len(asked) :]
            yield from batch

    def _see(self, picture: Picture) -> np.ndarray | None:
        """Decode a picture; one that cannot be loses its annotations, for that reason."""
        image = None
        if picture.drop is None:
            data = read_picture_file(self.root, picture.image)
            image, picture.drop = (None, reasons.NO_IMAGE) if data is None else decode_or_reason(data)
        if image is not None:
            picture.size = image.shape[1], image.shape[0]
        if picture.drop is not None:
            picture.items = [item.dropped(picture.drop) for item in picture.items]
        return image

    def _filter(self, path: Path, number: int) -> Iterator[Picture]:
        pictures = read_part(path)
        found = filter_items([picture.items for picture in pictures], self.settings.filter, self.models.parser)
        old = [picture.items for picture in read_part(self._folder(0) / 'found' / path.name)] if number else found
        for picture, items, before in zip(pictures, found, old, strict=True):
            for n, one in enumerate(before):
                prior = self.settings.merge.prior if one.score is None else one.score
                if items[n].drop == reasons.LOW_SCORE and items[n].score < prior:
                    items[n] = replace(items[n], drop=reasons.CONTRADICTED)
            picture.items = items
            yield picture

    # --- files --------------------------------------------------------------------------------------------------------

    def _folder(self, number: int) -> Path:
        return self.state / f'round{number}'

    def _parts(
        self,
        number: int,
        name: str,
        sources: Sequence[Path],
        made_of: dict[str, Any],
        make: Callable[[Path], Iterable[Picture]],
    ) -> list[Path]:
        """Make a part of each part of the step before, unless it is there and was made of the same."""
        written = []
        progress = ProgressLog(f'round {number}: {made_of["step"]}', len(sources))
        for done, source in enumerate(sources):
            path = self._folder(number) / name / source.name
            of = made_of | {'input': blake2b_of(source)}
            record = path.with_suffix('.json')
            if read_record(record, of) is None:
                record.unlink(missing_ok=True)
                write_part(path, list(make(source)))
                write_record(record, of, [path], {})
            written.append(path)
            progress.update(done + 1)
        return written

    def _write(self, parts: Sequence[Path], kept: Path, dropped: Path) -> None:
        """Write the task file of what is kept, and the rest with its reasons."""
        with ExitStack() as stack:
            files = [
                stack.enter_context(stack.enter_context(replacing(path)).open('w', encoding='utf-8'))
                for path in (kept, dropped)
            ]
            for picture in (picture for part in parts for picture in read_part(part)):
                items = [item for item in picture.items if item.drop is None]
                lines = [task_line(row) for row in rows_of(picture.image, items)]
                others = [{'image': picture.image, **item_line(item)} for item in picture.items if item.drop]
                for file, objects in zip(files, (lines, others), strict=True):
                    file.writelines(json.dumps(line, ensure_ascii=False) + '\n' for line in objects)

    def _check_any_picture(self, parts: Sequence[Path]) -> None:
        counts: dict[str, int] = {}
        for picture in (picture for part in parts for picture in read_part(part)):
            if picture.drop is None:
                return
            counts[picture.drop] = counts.get(picture.drop, 0) + 1
        found = ', '.join(f'{name}: {count}' for name, count in counts.items())
        raise UsageError(
            f'no picture of {shown_path(self.settings.pictures.path)} can be read ({found}); correct its paths, or say '
            'with pictures.prefix which folder they begin in'
        )


class _Knowing(NamedTuple):
    """A specialist that is told what is known, and whose finds come without it."""

    specialist: Specialist
    known: list[list[Item]]

    @property
    def source(self) -> str:
        return self.specialist.source

    def __call__(self, images: Sequence[np.ndarray], _: Any) -> Sequence[Sequence[Item]]:
        return self.specialist(images, self.known)


class _Trained:
    """The model of a round, trained when it is first needed.

    Args:
        trainer: trains it.
        data: what it is trained on.
        folder: of the round's state.
    """

    def __init__(self, trainer: Trainer, data: TrainingData, folder: Path) -> None:
        self.made_of = combined_digest(trainer.name, blake2b_of(data.annotations), str(data.root), data.round)
        self._trainer, self._data, self._folder = trainer, data, folder / 'model'
        self._model: Specialist | None = None

    def load(self) -> Specialist:
        """Train the model, or load it; files of a model of other data are removed first."""
        if self._model is None:
            mark = self._folder / 'made_of.json'
            if not mark.is_file() or read_json(mark).get('made_of') != self.made_of:
                shutil.rmtree(self._folder, ignore_errors=True)
                write_atomic(mark, json.dumps({'made_of': self.made_of}))
            self._model = self._trainer(self._data, self._folder)
        return self._model


def _batches(pictures: Sequence[Picture], size: int) -> Iterator[list[Picture]]:
    left = iter(pictures)
    while batch := list(islice(left, size)):
        yield batch
