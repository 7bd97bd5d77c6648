"""The tasks of Florence-2 (arXiv 2311.06242), each with the sentence that asks for it."""

from dataclasses import dataclass
from typing import Literal

from florence_mm.utils.nearest import did_you_mean

#: What an answer consists of: one text; texts with boxes each; boxes; texts with a quadrilateral each; outlines; texts
#: with boxes or an outline each.
Answer = Literal['text', 'labelled_boxes', 'boxes', 'labelled_quads', 'polygons', 'labelled_shapes']


@dataclass(frozen=True)
class Task:
    """A task: how it is asked, and what answers it.

    Attributes:
        name: its name here.
        mark: its name in the public code, such as ``<OD>``; never part of a prompt.
        sentence: the prompt, with ``{input}`` where a text or a region is put in.
        takes: what is given with the task.
        answers: what an answer consists of.
    """

    name: str
    mark: str
    sentence: str
    takes: Literal['nothing', 'text', 'region']
    answers: Answer


def _task(name: str, mark: str, sentence: str, answers: Answer) -> Task:
    takes = 'nothing' if '{input}' not in sentence else 'region' if 'region {input}' in sentence else 'text'
    return Task(name, mark, sentence, takes, answers)


#: The fifteen tasks by name; the sentences are those of the public checkpoints.
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _task('caption', '<CAPTION>', 'What does the image describe?', 'text'),
        _task('detailed_caption', '<DETAILED_CAPTION>', 'Describe in detail what is shown in the image.', 'text'),
        _task(
            'more_detailed_caption',
            '<MORE_DETAILED_CAPTION>',
            'Describe with a paragraph what is shown in the image.',
            'text',
        ),
        _task('detection', '<OD>', 'Locate the objects with category name in the image.', 'labelled_boxes'),
        _task(
            'dense_region_caption',
            '<DENSE_REGION_CAPTION>',
            'Locate the objects in the image, with their descriptions.',
            'labelled_boxes',
        ),
        _task('region_proposal', '<REGION_PROPOSAL>', 'Locate the region proposals in the image.', 'boxes'),
        _task(
            'phrase_grounding',
            '<CAPTION_TO_PHRASE_GROUNDING>',
            'Locate the phrases in the caption: {input}',
            'labelled_boxes',
        ),
        _task(
            'open_vocabulary_detection',
            '<OPEN_VOCABULARY_DETECTION>',
            'Locate {input} in the image.',
            'labelled_shapes',
        ),
        _task(
            'referring_segmentation',
            '<REFERRING_EXPRESSION_SEGMENTATION>',
            'Locate {input} in the image with mask',
            'polygons',
        ),
        _task(
            'region_segmentation',
            '<REGION_TO_SEGMENTATION>',
            'What is the polygon mask of region {input}',
            'polygons',
        ),
        _task('region_category', '<REGION_TO_CATEGORY>', 'What is the region {input}?', 'text'),
        _task('region_description', '<REGION_TO_DESCRIPTION>', 'What does the region {input} describe?', 'text'),
        _task('region_ocr', '<REGION_TO_OCR>', 'What text is in the region {input}?', 'text'),
        _task('ocr', '<OCR>', 'What is the text in the image?', 'text'),
        _task('ocr_with_region', '<OCR_WITH_REGION>', 'What is the text in the image, with regions?', 'labelled_quads'),
    )
}

_BY_MARK = {task.mark: task for task in TASKS.values()}


def find_task(name: str) -> Task:
    """Find a task by its name or its public mark.

    Raises:
        ValueError: there is no such task.

    >>> find_task('<OD>').name, find_task('caption').mark
    ('detection', '<CAPTION>')
    """
    task = TASKS.get(name) or _BY_MARK.get(name)
    if task is None:
        otherwise = f'; give one of {", ".join(TASKS)}'
        raise ValueError(f'there is no task {name!r}{did_you_mean(name, [*TASKS, *_BY_MARK], otherwise)}')
    return task
