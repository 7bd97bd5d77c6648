"""A user's captions and questions in place of the data sets of a config."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from florence_mm.config.pick import type_name, walk_steps
from florence_mm.datasets.manifest import ImageTextManifest
from florence_mm.errors import DataError, UsageError, shown
from florence_mm.formats.captions import checked_caption, checked_captions, checked_path
from florence_mm.formats.rows import read_rows
from florence_mm.formats.vqa import answer_vocabulary
from florence_mm.utils.files import write_atomic

#: The official accuracy compares with this many annotators; the answer of a single one is repeated.
_ANNOTATORS = 10


class Files(NamedTuple):
    """A manifest of captions or questions.

    Attributes:
        file: captions as of ``ImageTextManifest``; or questions, a JSON object a line with ``image``, ``question`` and
            ``answer`` or ``answers``.
        images: folder of the pictures.
        regions: folder of region files of the pictures, for models that read no pixels.
    """

    file: Path
    images: Path
    regions: Path | None = None


@dataclass(frozen=True)
class OwnData:
    """What replaces the data of all configs; None leaves them as they are.

    Attributes:
        folder: where files in other formats, which are made of the manifests, are written.
    """

    folder: Path
    captions: Files | None = None
    questions: Files | None = None
    train_captions: Files | None = None
    train_questions: Files | None = None

    def check(self) -> None:
        """Read all manifests once, so that a bad row is told before anything is trained or tested.

        Raises:
            DataError: a row of a manifest is unusable, or its picture is not there.
        """
        for split, captions, questions in (
            ('test', self.captions, self.questions),
            ('train', self.train_captions, self.train_questions),
        ):
            if captions is not None:
                ImageTextManifest(str(captions.file), data_prefix=str(captions.images), test_mode=split == 'test')
            if questions is not None:
                self._as_vqa(questions, split)
            for files in filter(None, (captions, questions)):
                for where, row in _rows(files.file):
                    if not (files.images / row['image']).is_file():
                        raise DataError(
                            f'{where}: there is no picture {files.images / row["image"]}; correct the row, or the '
                            'folder of pictures'
                        )

    def replace_training(self, cfg: Config) -> bool:
        """Replace the training data of a config.

        Args:
            cfg: the config, which is changed.

        Returns:
            whether it trains on other data now.

        Raises:
            UsageError: the model needs region files, and there are none.
            DataError: a row of a manifest is unusable.
        """
        changed = self._replace(cfg.get('train_dataloader'), self.train_captions, self.train_questions, 'train')
        if changed and self.train_questions is not None:
            answers = self.folder / 'answers.txt'
            for step in walk_steps([cfg.model, cfg.train_dataloader, cfg.get('val_dataloader')]):
                for key in ('answers', 'answer_file'):
                    if isinstance(step.get(key), str) and step[key]:
                        step[key] = str(answers)
        return changed

    def replace_test(self, cfg: Config) -> bool:
        """Replace the test data of a config, and the examples that are put before its samples by training data.

        Args, Returns, Raises: see :meth:`replace_training`.
        """
        loader = cfg.get('test_dataloader')
        for step in [step for step in walk_steps(loader) if 'support' in step]:
            self._replace(step['support'], self.train_captions, self.train_questions, 'train')
        changed = self._replace(loader, self.captions, self.questions, 'test')
        if self.train_questions is not None:
            for step in walk_steps(loader):
                if step.get('answer_file'):
                    step['answer_file'] = str(self.folder / 'answers.txt')
        return changed

    def _replace(self, part: Any, captions: Files | None, questions: Files | None, split: str) -> bool:
        changed = False
        for step in list(_without_support(part)):
            kind = type_name(step)
            if kind in ('ImageTextManifest', 'TextManifest', 'TaskManifest') and captions is not None:
                if kind == 'TaskManifest' and not step['ann_file'].endswith('_caption.jsonl'):
                    continue
                file = self._as_tasks(captions, split) if kind == 'TaskManifest' else captions.file
                step['ann_file'] = str(file)
                if kind != 'TextManifest':
                    step['data_prefix'] = str(captions.images)
                _replace_regions(step, captions, split, 'captions')
                changed = True
            elif kind == 'WeightedMixture' and captions is not None:
                # documents of the embedded pictures; the pairs of the mixture are the user's
                kept = [one for one in step['datasets'] if type_name(one['dataset']) != 'DocumentDataset']
                step['datasets'] = kept or step['datasets']
            elif kind == 'VQADataset' and questions is not None:
                named = self._as_vqa(questions, split)
                step.update(
                    question_file=str(named[0]), ann_file=str(named[1]), data_prefix=str(questions.images)
                )  # fmt: skip
                step['img_pattern'] = '{}'
                _replace_regions(step, questions, split, 'questions')
                changed = True
        return changed

    def _as_tasks(self, captions: Files, split: str) -> Path:
        """Write captions as tasks of Florence-2."""
        rows = []
        for where, row in _rows(captions.file):
            try:
                texts = checked_captions(row['texts'] if 'texts' in row else [row.get('text')])
                image = checked_path(row.get('image'))
            except ValueError as error:
                raise DataError(f'{where}: {error}') from None
            rows.append(json.dumps({'image': image, 'task': 'caption', 'answers': texts}))
        file = self.folder / f'{split}_caption.jsonl'
        write_atomic(file, '\n'.join(rows) + '\n')
        return file

    def _as_vqa(self, questions: Files, split: str) -> tuple[Path, Path]:
        """Write questions in the format of VQAv2, and of those to train on the answers."""
        asked, annotated = [], []
        for number, (where, row) in enumerate(_rows(questions.file)):
            try:
                image, question = checked_path(row.get('image')), checked_caption(row.get('question'), 'question')
                answers = row['answers'] if 'answers' in row else [row.get('answer')]
                if not isinstance(answers, list) or not answers:
                    raise ValueError(f'`answers` is {shown(answers)}; give a list of texts')
                answers = [checked_caption(answer, 'answer') for answer in answers]
            except ValueError as error:
                raise DataError(f'{where}: {error}') from None
            main = max(answers, key=answers.count)
            given = answers * _ANNOTATORS if len(answers) == 1 else answers
            ids = {'image_id': image, 'question_id': number}
            asked.append({**ids, 'question': question})
            annotated.append(
                {
                    **ids,
                    'question_type': row.get('question_type', 'all'),
                    'answer_type': 'other',
                    'multiple_choice_answer': main,
                    'answers': [{'answer': answer} for answer in given],
                }
            )
        paths = self.folder / f'{split}_questions.json', self.folder / f'{split}_annotations.json'
        for path, key, content in zip(paths, ('questions', 'annotations'), (asked, annotated), strict=True):
            write_atomic(path, json.dumps({key: content}))
        if split == 'train':
            write_atomic(self.folder / 'answers.txt', ''.join(f'{a}\n' for a in answer_vocabulary(annotated, 1)))
        return paths


def keep_captions(cfg: Config) -> None:
    """Leave the test of captions alone in a config that tests several tasks."""
    loader, evaluator = cfg.get('test_dataloader'), cfg.get('test_evaluator')
    for step in walk_steps(loader):
        if any(type_name(one) == 'TaskManifest' for one in step.get('datasets', ())):
            step['datasets'] = [one for one in step['datasets'] if one['ann_file'].endswith('_caption.jsonl')]
            cfg.test_evaluator = [one for one in evaluator if type_name(one) == 'CaptionScores']
            return


def _rows(file: Path) -> Iterator[tuple[str, dict]]:
    found = False
    for line, row in read_rows(file):
        if isinstance(row, DataError):
            raise row
        found = True
        yield f'{file}, line {line}', row
    if not found:
        raise DataError(f'{file} has no rows; write one a line')


def _without_support(part: Any) -> Iterator[Any]:
    """Walk the steps of a part of a config, those of examples before samples left out."""
    left = {id(inner) for step in walk_steps(part) if 'support' in step for inner in walk_steps(step['support'])}
    return (step for step in walk_steps(part) if id(step) not in left)


def _replace_regions(dataset: Mapping, files: Files, split: str, what: str) -> None:
    for step in walk_steps(dataset.get('pipeline', ())):
        if type_name(step) == 'LoadRegions':
            if files.regions is None:
                option = '--train-regions' if split == 'train' else '--regions'
                raise UsageError(f'the model reads regions, and the {what} have none; give their folder with {option}')
            step['folder'] = str(files.regions)
