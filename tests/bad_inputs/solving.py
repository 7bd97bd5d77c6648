"""Bad inputs: what is asked of models that answer tasks, and what the data engine annotates with them."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from PIL import Image
from raw_pairs import bomb
from small_tasks import DATASET, MODEL, config

from florence_mm.apis import TaskInferencer
from florence_mm.datasets.tasks import TaskManifest
from florence_mm.registry import MODELS

from .case import ROOT, BadInput, command

AREA = 'solving tasks and annotating with them'
_TOWERS = str(ROOT / 'configs/unicl/unicl_coswin-micro_1xb64-36e_digits.py')
_BLACK = np.zeros((40, 80, 3), np.uint8)
_BOX = [0.1, 0.1, 0.5, 0.5]
_DOG = {'text': 'dog', 'boxes': [_BOX]}
_NAN = math.nan


def _pictures() -> None:
    """Write pictures that are good, cut off, huge, empty and none."""
    Image.fromarray(_BLACK).save('good.png')
    Path('cut.png').write_bytes(Path('good.png').read_bytes()[:60])
    Path('empty.png').write_bytes(b'')
    Path('text.png').write_text('no picture')
    Path('huge.png').write_bytes(bomb())


def _asked(task: Any, text: Any = None, region: Any = None, image: Any = _BLACK, **model: Any) -> Callable:
    """Ask the small model in Python; returns the keys of the result, in order."""

    def run(folder: Path) -> Any:
        _pictures()
        torch.manual_seed(0)
        (result,) = TaskInferencer(config(**model), device='cpu')(image, task, text, region, skip_bad=False)
        return sorted(result)

    return run


def _unparsed(folder: Path) -> Any:
    """A model that may write anything; whether what it wrote came with sentences."""
    torch.manual_seed(0)
    heads = {'tasks': {'type': 'florence_mm.TaskHead', 'max_length': 12, 'constrained': False}}
    (result,) = TaskInferencer(config(heads=heads), device='cpu')(_BLACK, 'detection')
    return bool(result['written']), result['regions'], len(result['faults']) > 0


def _too_long(folder: Path) -> Any:
    """A target longer than the decoder: what is learned, and that it is counted."""
    model = MODELS.build({**MODEL, 'max_text_len': 8})
    rows = [{'image': 'good.png', 'task': 'detection', 'regions': [_DOG] * 9}]
    _pictures()
    Path('tasks.jsonl').write_text(json.dumps(rows[0]) + '\n')
    sample = TaskManifest('tasks.jsonl', pipeline=DATASET['pipeline'])[0]
    data = model.data_preprocessor({'inputs': [sample['inputs']], 'data_samples': [sample['data_samples']]}, True)
    loss = model(**data, mode='loss')['loss_tasks']
    return bool(loss.isfinite()), model.heads['tasks'].num_cut


def _files() -> tuple[str, str]:
    """Write config and weights of the small model."""
    torch.manual_seed(0)
    config().dump('small.py')
    torch.save({'state_dict': MODELS.build(MODEL).state_dict(), 'meta': {}}, 'small.pth')
    return 'small.py', 'small.pth'


def _solve(*words: object) -> Callable[[Path], Any]:
    """Run the command; returns its status and what it has written. A refusal must leave nothing."""

    def run(folder: Path) -> Any:
        _pictures()
        model = _files()
        before = set(folder.rglob('*'))
        try:
            status = command('tools/solve.py', *model, *words).status
        finally:
            new = sorted(path.name for path in set(folder.rglob('*')) - before if path.is_file())
        errors = sum('error' in one for one in json.loads(Path('out.json').read_text())['images']) if new else 0
        return status, new, errors

    return _leaving_nothing(run, 'out.json')


def _leaving_nothing(run: Callable[[Path], Any], name: str) -> Callable[[Path], Any]:
    def checked(folder: Path) -> Any:
        try:
            return run(folder)
        except Exception:
            left = [path.name for path in folder.rglob('*') if path.name in (name, f'{name}.part')]
            if left:
                raise AssertionError(f'the refusal left {left}') from None
            raise

    return checked


def _row(**change: Any) -> dict[str, Any]:
    row = {'image': 'good.png', 'task': 'detection', 'regions': [_DOG]} | change
    return {key: value for key, value in row.items() if value is not None}


def _grounding(phrase: str, text: str | None = 'a dog') -> dict[str, Any]:
    return _row(task='phrase_grounding', text=text, regions=[{**_DOG, 'text': phrase}])


def _annotate(rows: Any = None, specialist: dict | None = None, out: str = 'out', **changes: Any) -> Callable:
    """Run the command on a task file whose second line is of a user, and a good specialist."""

    def run(folder: Path) -> Any:
        _pictures()
        model, weights = _files()
        lines = [json.dumps(_row()), *(one if isinstance(one, str) else json.dumps(one) for one in rows or ())]
        Path('tasks.jsonl').write_text('\n'.join(lines) + '\n')
        Path('taken').mkdir()
        Path('taken/mine.txt').write_text('mine')
        good = {'kind': 'task', 'model': model, 'checkpoint': weights, 'tasks': ['caption']}
        given = {
            'pictures': {'path': 'tasks.jsonl'},
            'out': out,
            'specialists': [{**good, **(specialist or {})}],
            'device': 'cpu',
            **changes,
        }
        Config(given).dump('annotate.py')
        status = command('tools/annotate.py', 'annotate.py').status
        kept = [json.loads(line) for line in Path(out, 'annotations.jsonl').read_text().splitlines()]
        return status, len(kept)

    return _leaving_nothing(run, 'annotations.jsonl')


def _manifest(row: Any) -> Callable[[Path], Any]:
    def run(folder: Path) -> Any:
        _pictures()
        lines = [json.dumps(_row()), row if isinstance(row, str) else json.dumps(row)]
        Path('tasks.jsonl').write_text('\n'.join(lines) + '\n')
        return len(TaskManifest('tasks.jsonl', pipeline=[]))

    return run


def _python() -> list[BadInput]:
    region = 'region_category'
    questions = {
        'an unknown task': (('detecton',), "there is no task 'detecton'; did you mean 'detection'"),
        'no name of a task': ((None,), 'None'),
        'a number as task': ((5,), '5'),
        'a list of tasks': ((['caption', 'ocr'],), "['caption', 'ocr']"),
        'a task without its text': (('phrase_grounding',), 'takes a text and got none; give one'),
        'a task with a blank text': (('phrase_grounding', '  '), 'is empty'),
        'a task with a number as text': (('phrase_grounding', 5), '5'),
        'a task with a mark in its text': (('phrase_grounding', 'a <loc_5> dog'), 'the mark <loc_5>'),
        'a text for a task that takes none': (('caption', 'a dog'), "takes nothing and got a text, 'a dog'"),
        'a text for a task that takes a region': ((region, 'a dog'), "takes a region and got a text, 'a dog'"),
        'a task without its region': ((region,), 'takes a region and got none; give one'),
        'a region for a task that takes none': (('ocr', None, (1, 2, 3, 4)), 'takes nothing and got a region'),
        'a region of no width': ((region, None, (5, 5, 5, 9)), 'with x0 < x1 and y0 < y1'),
        'a region that is not a number': ((region, None, (0, 0, _NAN, 9)), 'nan'),
        'a region without end': ((region, None, (0, 0, math.inf, 9)), 'inf'),
        'a region of three numbers': ((region, None, (0, 0, 9)), '(0, 0, 9)'),
        'a region of words': ((region, None, ['a', 'b', 'c', 'd']), "'a'"),
        'a region that is a text': ((region, None, '0 0 9 9'), "'0 0 9 9'"),
        'a region beyond the picture': ((region, None, (0, 0, 81, 9)), ('80 x 40', 'outside the picture')),
        'a region left of the picture': ((region, None, (-1, 0, 9, 9)), ('80 x 40', 'outside the picture')),
    }
    rows = [BadInput(words, _asked(*question), says) for words, (question, says) in questions.items()]
    pictures = {
        'missing': ('none.png', 'none.png'),
        'cut off': ('cut.png', 'cut.png'),
        'empty': ('empty.png', 'empty.png'),
        'a text': ('text.png', 'text.png'),
        'huge': ('huge.png', 'huge.png'),
        'an array of floats': (_BLACK / 255, 'float64'),
        'of no pixels': (_BLACK[:0], '(0, 80, 3)'),
    }
    rows += [
        BadInput(f'a picture that is {words}', _asked('ocr', image=image), says)
        for words, (image, says) in pictures.items()
    ]
    keys = ['faults', 'file', 'height', 'region', 'score', 'task', 'width', 'written', 'answer']
    whole = tuple(np.float32([0, 0, 80, 40]))
    rows += [
        BadInput('a region as large as the picture', _asked(region, None, whole), gives=sorted(keys)),
        BadInput('a region of a hundredth of a pixel', _asked(region, None, (5, 5, 5.01, 5.01)), gives=sorted(keys)),
        BadInput(
            'a text longer than any prompt',
            _asked('phrase_grounding', 'a dog ' * 3000),
            gives=sorted({*keys, 'text', 'regions'} - {'region', 'answer'}),
        ),
        BadInput('a model that writes what does not parse', _unparsed, gives=(True, [], True)),
        BadInput('a target longer than the decoder', _too_long, gives=(True, 1)),
        BadInput(
            'a captioner for tasks',
            _asked('ocr', heads={'caption': {'type': 'florence_mm.FusionCaptionHead'}}),
            'no head that solves tasks',
        ),
        BadInput(
            'a classifier for tasks',
            lambda folder: TaskInferencer(_TOWERS, device='cpu'),
            ('UniCL', 'solves tasks, such as Florence2'),
        ),
    ]
    return rows


def _commands() -> list[BadInput]:
    out = ('--out', 'out.json')
    rows = {
        'without a task': (('good.png',), '--task'),
        'with an unknown task': (('good.png', '--task', 'captoin', *out), "did you mean 'caption'"),
        'without a text': (('good.png', '--task', 'referring_segmentation', *out), 'takes a text'),
        'with three numbers': (('good.png', '--task', 'region_ocr', '--region', 1, 2, 3), '--region'),
        'with a region of words': (('good.png', '--task', 'region_ocr', '--region', *'abcd'), "'a'"),
        'with a region of NaN': (('good.png', '--task', 'region_ocr', '--region', 'nan', 0, 9, 9, *out), 'nan'),
        'with a region turned round': (('good.png', '--task', 'region_ocr', '--region', 9, 9, 1, 1, *out), 'x0 < x1'),
        'on a missing picture': (('none.png', '--task', 'ocr'), 'none.png'),
        'on a damaged picture': (('cut.png', '--task', 'ocr'), 'cut.png'),
        'over its picture': (('good.png', '--task', 'ocr', '--out', 'good.png'), 'good.png'),
        'over its weights': (('good.png', '--task', 'ocr', '--out', 'small.pth'), 'small.pth'),
    }
    found = [BadInput(f'solve {words}', _solve(*line), says) for words, (line, says) in rows.items()]
    return [
        *found,
        BadInput(
            'solve on a good picture and a damaged one',
            _solve('good.png', 'cut.png', '--task', 'caption', *out),
            gives=(1, ['out.json'], 1),
        ),
        BadInput(
            'solve with a region that one picture has not',
            _solve('good.png', '--task', 'region_ocr', '--region', 0, 0, 99, 9),
            'outside the picture',
        ),
    ]


def _lines() -> list[BadInput]:
    """Lines of task files, for training and for annotating."""
    rows = {
        'an unknown task': (_row(task='detecton'), "did you mean 'detection'"),
        'a box outside the picture': (_row(regions=[{'text': 'dog', 'boxes': [[0, 0, 2, 1]]}]), 'outside the picture'),
        'a box of no height': (_row(regions=[{'text': 'dog', 'boxes': [[0, 0.5, 1, 0.5]]}]), 'is empty'),
        'a box of NaN': (_row(regions=[{'text': 'dog', 'boxes': [[0, 0, _NAN, 1]]}]), 'finite numbers'),
        'a polygon of two points': (
            _row(task='region_segmentation', region=_BOX, regions=[{'polygons': [[[0, 0], [1, 1]]]}]),
            'has 2 points; a polygon needs at least 3',
        ),
        'a phrase that is not in its caption': (_grounding('cat'), "'cat' is not in the caption 'a dog'"),
        'no caption': (_grounding('dog', None), 'takes a text and got none'),
        'no region': (_row(task='region_category', regions=None, answer='dog'), 'takes a region and got none'),
        'a region of no size': (
            _row(task='region_category', regions=None, answer='dog', region=[0.5, 0.5, 0.5, 0.5]),
            'is empty',
        ),
        'no answer': (_row(regions=None), 'no answer'),
        'no JSON': ('{"image": ', 'line 2'),
        'a list': ('[]', 'line 2'),
    }
    found = []
    for words, (row, says) in rows.items():
        says = ('tasks.jsonl', 'line 2', says)
        found.append(BadInput(f'a task file with {words}', _manifest(row), says))
        found.append(BadInput(f'annotate a task file with {words}', _annotate([row]), says))
    return found


def _annotating() -> list[BadInput]:
    specialists = {
        'no tasks': ({'tasks': []}, 'tasks is empty'),
        'a text as tasks': ({'tasks': 'caption'}, 'give a tuple of names of tasks'),
        'an unknown task': ({'tasks': ['<ODD>']}, "did you mean '<OD>'"),
        'texts that no task takes': ({'texts': ['a dog']}, 'no task of caption takes a text'),
        'a text with a mark': ({'tasks': ['open_vocabulary_detection'], 'texts': ['<poly>']}, 'the mark <poly>'),
        'an unknown kind': ({'kind': 'tasks'}, "did you mean 'task'"),
        'an unknown option': ({'txts': ['a']}, "did you mean 'texts'"),
        'missing weights': ({'checkpoint': 'none.pth'}, 'none.pth'),
        'weights that are none': ({'checkpoint': 'text.png'}, 'text.png'),
        'a model of another kind': (
            {'model': _TOWERS, 'checkpoint': None},
            'such as Florence2',
        ),
    }
    rows = [
        BadInput(f'annotate with a specialist of {words}', _annotate(specialist=change), says)
        for words, (change, says) in specialists.items()
    ]
    for name in ('none', 'cut', 'empty', 'text', 'huge'):
        files = {'pictures': {'path': 'other.jsonl'}}
        rows.append(BadInput(f'annotate the picture {name}.png alone', _alone(f'{name}.png', files), 'no picture of'))
    rows += [
        BadInput(
            'annotate a good picture and damaged ones',
            _annotate([_row(image='cut.png')], filter={'min_text_score': 0.0}),
            gives=(0, 2),
        ),
        BadInput('annotate no task file', _annotate(pictures={'path': 'none.jsonl'}), 'none.jsonl'),
        BadInput('annotate into a file', _annotate(out='tasks.jsonl'), 'tasks.jsonl is a file'),
        BadInput("annotate into somebody's folder", _annotate(out='taken'), 'taken'),
        BadInput('annotate in rounds without a trainer', _annotate(refine={'rounds': 1}), 'refine.rounds'),
        BadInput(
            'annotate with a trainer of another data set',
            _annotate(trainer={'kind': 'config', 'config': 'small.py', 'specialist': {'kind': 'task'}}),
            'trains on 0 data sets of the type TaskManifest',
        ),
    ]
    return rows


def _alone(name: str, changes: dict) -> Callable[[Path], Any]:
    annotate = _annotate(**changes)

    def run(folder: Path) -> Any:
        Path('other.jsonl').write_text(json.dumps(_row(image=name)) + '\n')
        return annotate(folder)

    return run


def cases() -> list[BadInput]:
    """The inputs."""
    return [*_python(), *_commands(), *_lines(), *_annotating()]
