"""The tabs of the page: what each asks, which models serve it, and how an inferencer's result is shown."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from florence_mm.errors import DataError, UsageError, shown
from florence_mm.formats.image import read_size
from florence_mm.language.task_list import TASKS, find_task

#: Most pixels of an uploaded picture; one of 40 million takes 120 MB when it is decoded.
MAX_PIXELS = 40_000_000


class Answer(NamedTuple):
    """What a tab shows.

    Attributes:
        drawing: the drawn picture or video; None if there is none.
        rows: rows of the table.
        said: a sentence.
    """

    drawing: Path | None
    rows: list[list[Any]]
    said: str


@dataclass(frozen=True)
class Tab:
    """A tab of the page.

    Attributes:
        name: name of the tab and of its option of ``florence-mm demo``.
        title: text on the tab.
        purpose: what it does, a sentence.
        tasks: tasks of the models that serve it, see :data:`florence_mm.config.metafiles.TASKS`.
        inferencer: name of the inferencer in :mod:`florence_mm.apis`.
        asks: label of its text field; None for no text.
        asked: what to write there, a sentence.
        hint: example of a text.
        columns: head of its table.
        run: function from inferencer, uploaded file, text and a folder for drawings to the answer; with ``choices``
            also from the chosen one.
        media: 'image' or 'video'.
        needs_file: whether there is no answer without an upload.
        choices: what the user chooses among; the first one at the beginning.
    """

    name: str
    title: str
    purpose: str
    tasks: tuple[str, ...]
    inferencer: str
    asks: str | None
    asked: str | None
    hint: str
    columns: tuple[str, ...]
    run: Callable[..., Answer]
    media: str = 'image'
    needs_file: bool = True
    choices: tuple[str, ...] = ()


def check_upload(file: str | Path | None, media: str) -> Path:
    """Check an upload before anything of it is decoded.

    Args:
        file: the uploaded file; None if there is none.
        media: 'image' or 'video'.

    Returns:
        the file.

    Raises:
        UsageError: there is no file.
        DataError: it is no image, has more than :data:`MAX_PIXELS`, or is empty.
    """
    if file is None:
        raise UsageError(f'there is no {media} yet; upload one, or choose an example')
    file = Path(file)
    if not file.stat().st_size:
        raise DataError(f'{file.name} is empty; upload another {media}')
    if media == 'image':
        width, height = read_size(file)
        if width * height > MAX_PIXELS:
            raise DataError(
                f'{file.name} has {width} x {height} pixels and the page takes {MAX_PIXELS // 10**6} million; '
                'upload a smaller copy'
            )
    return file


def _first(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The result of the one input; raises DataError with its sentence if it failed."""
    (result,) = results
    if 'error' in result:
        raise DataError(result['error'])
    return result


def _text(text: str | None) -> str | None:
    return text.strip() or None if text else None


def _ranked(result: dict[str, Any]) -> list[list[Any]]:
    return [[name, round(score, 3)] for name, score in zip(result['labels'], result['scores'], strict=True)]


def _classify(inferencer: Any, file: Path, text: str, folder: Path) -> Answer:
    result = _first(inferencer(file, classes=_text(text), out_dir=folder))
    rows = _ranked(result)
    return Answer(folder / result['picture'], rows, f'most likely: {rows[0][0]} ({rows[0][1]:.0%})')


def _detect(inferencer: Any, file: Path, text: str, folder: Path) -> Answer:
    result = _first(inferencer(file, classes=_text(text), out_dir=folder))
    rows = [
        [name, round(score, 3), ', '.join(f'{value:.0f}' for value in box)]
        for name, score, box in zip(result['labels'], result['scores'], result['boxes'], strict=True)
    ]
    return Answer(folder / result['picture'], rows, f'{len(rows)} objects')


def _recognize(inferencer: Any, file: Path, text: str, folder: Path) -> Answer:
    result = _first(inferencer(file, classes=_text(text), out_dir=folder))
    rows = _ranked(result)
    return Answer(folder / result['video'], rows, f'most likely: {rows[0][0]} ({rows[0][1]:.0%})')


def _search(inferencer: Any, file: Path | None, text: str, folder: Path) -> Answer:
    query = _text(text)
    if (file is None) == (query is None):
        raise UsageError('a search is for a text or a picture; write a text, or upload a picture and leave it empty')
    (result,) = inferencer.search(query if file is None else file, top=8, out_dir=folder)
    rows = [[name, round(score, 3)] for name, score in zip(result['files'], result['scores'], strict=True)]
    return Answer(folder / 'search.png' if rows else None, rows, f'{len(rows)} nearest')


def _ask(inferencer: Any, file: Path, text: str, folder: Path) -> Answer:
    question = _text(text)
    if question is None:
        raise UsageError('there is no question yet; write one')
    result = _first(inferencer(file, questions=question, out_dir=folder))
    (asked,) = result['answers']
    rows = [[answer, round(score, 3)] for answer, score in zip(asked['answers'], asked['scores'], strict=True)]
    return Answer(folder / result['picture'], rows, f'{question} {rows[0][0]}')


def _caption(inferencer: Any, file: Path, text: str, folder: Path) -> Answer:
    result = _first(inferencer(file, caption=True, out_dir=folder))
    return Answer(
        folder / result['picture'], [[result['caption'], round(result['caption_score'], 3)]], result['caption']
    )


def _solve(inferencer: Any, file: Path, text: str, folder: Path, task: str) -> Answer:
    given = _text(text)
    if find_task(task).takes == 'region':
        question: dict[str, Any] = {'region': None if given is None else _region(given)}
    else:
        question = {'text': given}
    result = _first(inferencer(file, task, **question, out_dir=folder))
    if 'answer' in result:
        rows, said = [[result['answer'], None, '']], result['answer'] or 'nothing'
    else:
        rows = [[found['text'], round(found['score'], 3), _corners(found)] for found in result['regions']]
        said = f'{len(rows)} regions'
    return Answer(folder / result['picture'], rows, '; '.join([said, *result['faults']]))


def _region(text: str) -> list[float]:
    """Read the four numbers of a region."""
    try:
        return [float(number) for number in text.replace(',', ' ').split()]
    except ValueError:
        raise UsageError(f'the region is {shown(text)}; write four numbers: left, top, right, bottom') from None


def _corners(found: dict[str, Any]) -> str:
    if 'box' in found:
        return ', '.join(f'{value:.0f}' for value in found['box'])
    parts = found.get('polygons') or [found['quad']]
    return '; '.join(' '.join(f'{x:.0f},{y:.0f}' for x, y in part) for part in parts)


_CLASSES = 'Classes'
_NAMED = 'Names with commas between; left empty, they are those of the model.'
TABS = (
    Tab(
        'classify',
        'Classify',
        'Choose among classes that you name.',
        ('zero-shot-classification', 'classification'),
        'ImageInferencer',
        _CLASSES,
        _NAMED,
        'cat, dog, bench',
        ('class', 'probability'),
        _classify,
    ),
    Tab(
        'search',
        'Search',
        'Find the pictures of a folder that are nearest to a text or to a picture.',
        ('zero-shot-classification', 'image-retrieval'),
        'RetrievalInferencer',
        'Text',
        'A text to search for; left empty, pictures like the uploaded one are searched.',
        'a dog on a beach',
        ('file', 'cosine'),
        _search,
        needs_file=False,
    ),
    Tab(
        'detect',
        'Detect',
        'Find objects and draw boxes around them.',
        ('detection', 'zero-shot-detection'),
        'DetectionInferencer',
        _CLASSES,
        _NAMED,
        'cat, dog, bench',
        ('class', 'score', 'box: left, top, right, bottom'),
        _detect,
    ),
    Tab(
        'video',
        'Video',
        'Recognize what happens in a video.',
        ('video-classification', 'video-retrieval'),
        'VideoInferencer',
        _CLASSES,
        _NAMED,
        '',
        ('class', 'probability'),
        _recognize,
        'video',
    ),
    Tab(
        'ask',
        'Ask',
        'Ask a question about a picture.',
        ('visual-question-answering',),
        'MultimodalInferencer',
        'Question',
        None,
        'how many digits are there?',
        ('answer', 'probability'),
        _ask,
    ),
    Tab(
        'caption',
        'Caption',
        'Describe a picture in a sentence.',
        ('captioning',),
        'MultimodalInferencer',
        None,
        None,
        '',
        ('caption', 'mean log-probability of a token'),
        _caption,
    ),
    Tab(
        'solve',
        'Tasks',
        'Solve any task of a model that answers by writing: objects, phrases, outlines, texts.',
        ('vision-tasks',),
        'TaskInferencer',
        'Text or region',
        'A caption or phrase for tasks of a text; left, top, right and bottom in pixels for tasks of a region.',
        'a dog and its ball',
        ('text', 'score', 'corners'),
        _solve,
        choices=tuple(sorted(TASKS, key=lambda name: name != 'detection')),
    ),
)
