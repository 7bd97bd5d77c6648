"""The format of tasks against transformers' post-processing of Florence-2, and where that is wrong."""

import math
import random

import numpy as np
import pytest
import torch
from random_targets import random_target

import florence_mm  # noqa: F401  (before transformers)
from florence_mm.language.regions import Region, Target, signed_area
from florence_mm.language.tasks import TASKS, TaskFormat, find_task
from florence_mm.utils.boxes import box_iou

SIZE = (640, 427)  # width, height
WORDS = ['dog', 'a', 'red', '7', "dog's", '(left)', 'no. 5', 'größte', '象']


class Tokenizer:
    """All that the post-processing needs of one."""

    all_special_tokens = ('<s>', '</s>', '<pad>')
    bos_token_id = 0


def theirs(task, text, size=SIZE, **config):
    module = pytest.importorskip('transformers.models.florence2.processing_florence2')
    kinds = {
        'text': 'pure_text',
        'labelled_boxes': 'description_with_bboxes',
        'boxes': 'bboxes',
        'labelled_quads': 'ocr',
        'polygons': 'polygons',
        'labelled_shapes': 'description_with_bboxes_or_polygons',
    }
    kind = 'phrase_grounding' if task == 'phrase_grounding' else kinds[find_task(task).answers]
    processor = module.Florence2PostProcessor(config={kind: config}, tokenizer=Tokenizer())
    return processor(text=text, image_size=size, parse_tasks=kind)[kind]


def flat(shape):
    return [number for point in shape for number in point]


def regions_of(task, text):
    """Theirs as label, kind and numbers in pixels, one for each shape."""
    for found in theirs(task, text):
        if 'quad_box' in found:
            yield found['text'], 'quad', [found['quad_box']]
        elif 'polygons' in found:
            yield found['cat_name'], 'polygons', found['polygons']
        else:
            boxes = found['bbox'] if task == 'phrase_grounding' else [found['bbox']]
            yield from ((found['cat_name'], 'boxes', [box]) for box in boxes)


def ours(task, text):
    width, height = SIZE
    for region in TaskFormat().parse(task, text).target.regions:
        # letters outside ASCII are lost in theirs
        name = (
            region.text.encode('ascii', 'ignore').decode()
            if task != 'ocr_with_region' and region.boxes
            else region.text
        )
        yield from (
            (name, 'boxes', [[x0 * width, y0 * height, x1 * width, y1 * height]]) for x0, y0, x1, y1 in region.boxes
        )
        for kind, shapes in (('polygons', region.polygons), ('quad', [region.quad] if region.quad else [])):
            if shapes:
                yield name, kind, [flat((x * width, y * height) for x, y in shape) for shape in shapes]


@pytest.mark.parametrize('task', [name for name, task in TASKS.items() if task.answers != 'text'])
def test_answers_are_parsed_as_by_transformers(task, monkeypatch):
    monkeypatch.setattr('random_targets.WORDS', WORDS)
    rng, compared = random.Random(task), 0
    for _ in range(60):
        target = random_target(rng, task)
        if task == 'open_vocabulary_detection':  # theirs takes boxes or outlines in one answer
            kind = rng.choice(['boxes', 'polygons'])
            target = Target(regions=tuple(region for region in target.regions if getattr(region, kind)))
        text = TaskFormat().write(task, target)
        pairs = list(zip(ours(task, text), regions_of(task, f'</s><s>{text}</s>'), strict=True))
        for (name, kind, shapes), (their_name, their_kind, their_shapes) in pairs:
            # letters outside ASCII alone leave a space behind that theirs does not strip
            assert (' '.join(name.split()), kind) == (' '.join(their_name.split()), their_kind)
            for shape, their_shape in zip(shapes, their_shapes, strict=True):
                # theirs are cut to whole pixels; a box of one bin lies a quarter of a bin around its centre
                difference = np.subtract(shape, their_shape)
                assert difference.shape == (len(shape),)
                assert difference.min() > -0.17 and difference.max() < 1.17
                compared += 1
    assert compared > 60


def test_texts_are_as_by_transformers():
    for task in ('caption', 'ocr', 'region_category'):
        assert TaskFormat().parse(task, 'A dog, größte 象.').target.text == theirs(task, 'A dog, größte 象.')


def test_bins_are_as_by_transformers():
    module = pytest.importorskip('transformers.models.florence2.processing_florence2')
    processor = module.Florence2PostProcessor(config={}, tokenizer=Tokenizer())
    rng = np.random.default_rng(0)
    for size in (SIZE, (64, 64), (1000, 333)):
        points = rng.random((2000, 2)) * size
        fractions = points / size
        inner = (np.abs(fractions * 1000 - np.round(fractions * 1000)) > 1e-3).all(1)  # apart from rounding in fp32
        expected = processor.quantize(torch.tensor(points[inner]), size).tolist()
        task_format = TaskFormat()
        assert [[task_format.bin_of(x) for x in point] for point in fractions[inner]] == expected
        back = processor.dequantize(torch.tensor(expected), size)
        centres = torch.tensor(expected).add(0.5).div(1000).mul(torch.tensor(size))
        assert (centres - back).abs().max() < 1  # cut to whole pixels
        assert processor.quantize(torch.tensor([[*size]], dtype=torch.float32), size).tolist() == [[999, 999]]
    assert TaskFormat().bin_of(1.0) == 999


# --- where transformers is wrong --------------------------------------------------------------------------------------


def test_transformers_cuts_coordinates_to_whole_pixels_and_ours_stay_fractions():
    box, size = (20.7, 30.9, 26.8, 36.9), 64
    text = TaskFormat().write('detection', Target(regions=(Region('a', boxes=(tuple(x / size for x in box),)),)))
    (cut,) = theirs('detection', text, (size, size))
    assert cut['bbox'] == [20, 30, 26, 36]
    (whole,) = TaskFormat().parse('detection', text).target.regions[0].boxes
    kept, lost = (box_iou(np.array([box]), size * np.array([x]))[0, 0] for x in (whole, np.divide(cut['bbox'], size)))
    assert kept > 0.98 and lost < 0.65


def test_transformers_drops_letters_outside_ascii_and_ours_keeps_them():
    text = TaskFormat().write('detection', Target(regions=(Region('größte 象', boxes=((0, 0, 1, 1),)),)))
    assert [found['cat_name'] for found in theirs('detection', text)] == ['grte ']
    assert TaskFormat().parse('detection', text).target.regions[0].text == 'größte 象'


def test_transformers_cuts_texts_at_a_less_than_sign_and_ours_keeps_them():
    text = TaskFormat().write('detection', Target(regions=(Region('x<y', boxes=((0, 0, 1, 1),)),)))
    assert [found['cat_name'] for found in theirs('detection', text)] == ['y']
    assert TaskFormat().parse('detection', text).target.regions[0].text == 'x<y'


def test_transformers_leaves_the_closing_edge_out_of_the_area_of_a_text_and_ours_does_not():
    square = ((0.5, 0.5), (0.6, 0.5), (0.6, 0.6), (0.5, 0.6))  # 1 % of the picture
    text = TaskFormat().write('ocr_with_region', Target(regions=(Region('exit', quad=square),)))
    assert len(theirs('ocr_with_region', text, (1000, 1000), AREA_THRESHOLD=0.012)) == 1  # though it is smaller
    (region,) = TaskFormat().parse('ocr_with_region', text).target.regions
    assert math.isclose(signed_area(region.quad), 0.01, rel_tol=1e-9)


def test_transformers_takes_what_is_no_shape_and_ours_says_so():
    for task, text in (
        ('region_segmentation', '<loc_1><loc_2><loc_3><loc_4>'),  # two points
        ('detection', 'a<loc_9><loc_9><loc_1><loc_1>'),  # ends before it begins
        ('detection', 'a<loc_1><loc_1><loc_2><loc_1200>'),  # outside
    ):
        assert len(theirs(task, text)) == 1
        parsed = TaskFormat().parse(task, text)
        assert not parsed.target.regions and parsed.faults and parsed.text == text
