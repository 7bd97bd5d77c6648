"""The page: uploads, what is answered to them, and the page itself in a browser."""

import importlib.util
import itertools
import math
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image
from small_tasks import config as task_config

from florence_mm.apis import ImageInferencer, MultimodalInferencer, RetrievalInferencer, TaskInferencer
from florence_mm.apis.page import layout
from florence_mm.apis.page.examples import write_examples
from florence_mm.apis.page.models import PageModels
from florence_mm.apis.page.tasks import MAX_PIXELS, TABS, check_upload
from florence_mm.commands import demo
from florence_mm.errors import DataError, UsageError
from florence_mm.formats.video import encode_mp4
from florence_mm.language.regions import Region, Target
from florence_mm.models.multimodal.protocol import Solved

ROOT = Path(__file__).parents[2]
detection = runpy.run_path(str(ROOT / 'tests/test_apis/test_detection_inferencer.py'))
fusion = runpy.run_path(str(ROOT / 'tests/test_apis/test_multimodal_inferencer.py'))
world = detection['world']
CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
PIPELINE = [{'type': 'florence_mm.LoadImage'}, {'type': 'florence_mm.PackImageText'}]
CLASSIFIER = Config(
    {
        'model': {'type': lambda: world['classifier'](world['Pixels']())},
        'test_dataloader': {'dataset': {'type': 'florence_mm.ImageFolder', 'pipeline': PIPELINE}},
    }
)
HEADS = {**fusion['HEADS'], 'vqa': {'type': 'FusionVQAHead', 'answers': fusion['ANSWERS']}}
BY_NAME = {tab.name: tab for tab in TABS}


class HandModels(PageModels):
    """Models whose answers are known by hand, or random ones where any answer does."""

    def __init__(self, pictures):
        super().__init__({tab.name: ('config', 'checkpoint') for tab in TABS if tab.name != 'video'}, pictures=pictures)
        self._made = {}

    def get(self, tab, label):
        makers = {
            'classify': lambda: ImageInferencer(CLASSIFIER, None, 'cpu'),
            'search': lambda: RetrievalInferencer(CLASSIFIER, None, 'cpu'),
            'detect': detection['inferencer'],
            'solve': lambda: TaskInferencer(task_config(), None, 'cpu'),
            'ask': lambda: MultimodalInferencer(fusion['config'](fusion['model'](HEADS)), None, 'cpu'),
        }
        name = 'ask' if tab.name == 'caption' else tab.name
        if name not in makers:
            return super().get(tab, label)
        if name not in self._made:
            self._made[name] = makers[name]()
            if name == 'search':
                self._open_index(self._made[name], self.choices[name][0])
        return self._made[name]


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    pictures = tmp_path_factory.mktemp('page') / 'pictures'
    pictures.mkdir()
    for name, colour in {'red': (255, 0, 0), 'purple': (200, 0, 200), 'blue': (0, 0, 255)}.items():
        Image.fromarray(np.full((8, 8, 3), colour, np.uint8)).save(pictures / f'{name}.png')
    return HandModels(pictures)


@pytest.fixture(scope='module')
def uploads(tmp_path_factory):
    """Files that a user may upload, by what they are."""
    folder = tmp_path_factory.mktemp('uploads')
    Image.fromarray(detection['street']()).save(folder / 'street.png')
    Image.fromarray(np.full((32, 32, 3), (255, 0, 0), np.uint8)).save(folder / 'red.png')
    (folder / 'text.jpg').write_text('not a picture')
    (folder / 'empty.mp4').write_bytes(b'')
    (folder / 'clip.mp4').write_bytes(encode_mp4(np.zeros((4, 32, 32, 3), np.uint8), 4))
    Image.new('1', (10_000, 10_000)).save(folder / 'huge.png')
    return folder


def answer(models, folder, tab, file, text='', choice=None):
    file = None if file is None else str(file)
    return layout._answer(BY_NAME[tab], models, folder, itertools.count(), file, text, None, choice)


def test_options_of_the_command_are_the_tabs():
    assert tuple(tab.name for tab in TABS) == demo.TABS


def test_answers_by_hand(tmp_path, models, uploads):
    drawing, rows, said = answer(models, tmp_path, 'classify', uploads / 'red.png', 'red, blue')
    sure = 1 / (1 + math.exp(-world['TEMPERATURE']))
    assert rows == [['red', round(sure, 3)], ['blue', round(1 - sure, 3)]] and said == 'most likely: red (99%)'
    assert np.array_equal(np.array(Image.open(drawing))[10, 10], (255, 0, 0))
    for file, text in ((None, 'blue'), (uploads / 'red.png', '')):
        drawing, rows, said = answer(models, tmp_path, 'search', file, text)
        order = ['blue', 'purple', 'red'] if file is None else ['red', 'purple', 'blue']
        assert [Path(row[0]).stem for row in rows] == order and [row[1] for row in rows] == [1.0, 0.707, 0.0]
        assert said == '3 nearest' and Path(drawing).is_file()
    drawing, rows, said = answer(models, tmp_path, 'detect', uploads / 'street.png', 'red, blue')
    assert [(row[0], row[2]) for row in rows] == [('red', '8, 16, 40, 48'), ('blue', '64, 20, 100, 80')]
    assert said == '2 objects' and Image.open(drawing).width >= 128
    _, rows, said = answer(models, tmp_path, 'ask', uploads / 'street.png', 'is there a two?')
    assert {row[0] for row in rows} == set(fusion['ANSWERS']) and said == f'is there a two? {rows[0][0]}'
    drawing, rows, said = answer(models, tmp_path, 'caption', uploads / 'street.png')
    assert rows[0][0] == said and Path(drawing).is_file()


def test_tasks_are_answered_and_drawn(tmp_path, models, uploads, monkeypatch):
    corners = ((0.5, 0.5), (1.0, 0.5), (1.0, 1.0), (0.5, 1.0))
    targets = {
        'detection': Target(regions=(Region('dog', boxes=((0.25, 0.5, 0.5, 1.0),), score=0.5),)),
        'referring_segmentation': Target(regions=(Region(polygons=(corners,), score=0.5),)),
        'ocr_with_region': Target(regions=(Region('12', quad=corners, score=0.5),)),
        'region_category': Target('a dog'),
    }
    asked = []

    def solve(tokens, questions, generator=None):
        asked.extend(questions)
        return [Solved('', targets[questions[0].task], ('the rest is left out',), 0.0)]

    monkeypatch.setattr(models.get(BY_NAME['solve'], None).model, 'solve', solve)
    width, height = Image.open(uploads / 'street.png').size
    x, y = width // 2, height // 2
    outline = f'{x},{y} {width},{y} {width},{height} {x},{height}'
    for task, text, row in (
        (None, '', ['dog', 0.5, f'{width // 4}, {y}, {x}, {height}']),
        ('referring_segmentation', 'the dog', ['', 0.5, outline]),
        ('ocr_with_region', '', ['12', 0.5, outline]),
        ('region_category', f'0, 0, {x}, {y}', ['a dog', None, '']),
    ):
        drawing, rows, said = answer(models, tmp_path / str(task), 'solve', uploads / 'street.png', text, task)
        assert rows == [row] and Path(drawing).is_file()
        assert said == ('a dog' if task == 'region_category' else '1 regions') + '; the rest is left out'
    assert [one.task for one in asked] == list(targets)
    assert asked[1].text == 'the dog' and asked[3].region == (0, 0, 0.5, 0.5)


@pytest.mark.parametrize(
    ('task', 'text', 'said'),
    [
        ('detection', 'dog', 'detection takes nothing and got a text'),
        ('phrase_grounding', '', 'phrase_grounding takes a text and got none'),
        ('region_ocr', ' ', 'region_ocr takes a region and got none'),
        ('region_ocr', '1 2 three', "the region is '1 2 three'; write four numbers"),
        ('region_ocr', '9 9 1 1', 'with x0 < x1 and y0 < y1'),
        ('region_ocr', '0 0 9999 1', 'outside the picture'),
    ],
)
def test_tasks_that_are_asked_in_the_wrong_way(tmp_path, models, uploads, task, text, said):
    drawing, rows, sentence = answer(models, tmp_path, 'solve', uploads / 'street.png', text, task)
    assert drawing is None and rows == [] and said in sentence and sentence.startswith('**')


@pytest.mark.parametrize(
    ('tab', 'file', 'text', 'said'),
    [
        ('classify', None, 'a', 'there is no image yet; upload one'),
        ('search', None, '', 'a search is for a text or a picture'),
        ('search', 'red.png', 'red', 'leave it empty'),
        ('classify', 'text.jpg', 'a', 'text.jpg is not an image'),
        ('detect', 'huge.png', 'red', 'huge.png has 10000 x 10000 pixels and the page takes 40 million'),
        ('detect', 'street.png', ' , ', 'has no class name'),
        ('ask', 'street.png', '  ', 'there is no question yet'),
        ('video', 'empty.mp4', '', 'empty.mp4 is empty; upload another video'),
        ('video', 'clip.mp4', '', 'there is no model for this tab; run make zoo, or start the page with --video MODEL'),
    ],
)
def test_what_is_wrong_is_said_and_raises_nothing(tmp_path, models, uploads, monkeypatch, tab, file, text, said):
    monkeypatch.setenv('FLORENCE_MM_HOME', str(tmp_path / 'empty'))
    drawing, rows, sentence = answer(models, tmp_path, tab, file and uploads / file, text)
    assert drawing is None and rows == [] and said in sentence
    assert sentence.startswith('**') and '\n' not in sentence


def test_uploads_are_checked_before_they_are_decoded(uploads):
    assert check_upload(str(uploads / 'street.png'), 'image') == uploads / 'street.png'
    assert MAX_PIXELS < 10_000**2
    with pytest.raises(DataError, match='upload a smaller copy'):
        check_upload(uploads / 'huge.png', 'image')
    with pytest.raises(DataError, match='empty.mp4 is empty; upload another video'):
        check_upload(uploads / 'empty.mp4', 'video')


def test_a_tab_takes_a_name_or_a_config_and_a_checkpoint():
    assert [choice.label for choice in PageModels({'ask': ['mine/one.py', 'one.pth']}).choices['ask']] == ['one']
    with pytest.raises(UsageError, match='--ask got 3 values; give the name of a model, or a config and a checkpoint'):
        PageModels({'ask': ['a', 'b', 'c']})


def test_only_the_last_drawings_are_kept(tmp_path, models, uploads, monkeypatch):
    monkeypatch.setattr(layout, 'KEPT', 2)
    numbers = itertools.count()
    for _ in range(5):
        layout._answer(BY_NAME['classify'], models, tmp_path, numbers, str(uploads / 'red.png'), 'red, blue', None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['3', '4']


def test_examples_are_those_of_their_tabs(tmp_path):
    files = write_examples(tmp_path)
    assert set(files) == set(BY_NAME) and all(Path(file).is_file() for found in files.values() for file in found)
    assert Image.open(files['classify'][0]).size == (32, 32) and files['video'][0].endswith('.mp4')


@pytest.mark.skipif(
    importlib.util.find_spec('playwright') is None or CHROMIUM is None,
    reason='runs where Playwright (the extra browser) and Chromium are installed',
)
def test_the_page_in_a_browser(tmp_path, models, uploads):
    """Upload, press, see boxes and answers; bad uploads give a message and the page lives on."""
    from playwright.sync_api import sync_playwright

    page = layout.build_page(models, write_examples(tmp_path / 'examples'), tmp_path / 'results')
    address = layout.launch(page, '127.0.0.1', None, tmp_path, block=False)
    requests = []
    try:
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
            tab = browser.new_page()
            tab.set_default_timeout(60_000)
            tab.on('request', lambda request: requests.append(request.url))
            tab.goto(address)

            def press(name, file, text, expected):
                tab.get_by_role('tab', name=BY_NAME[name].title, exact=True).click()
                # an earlier upload is replaced
                clear = tab.locator(f'#{name}-file').get_by_label('Clear')
                if clear.count():
                    clear.click()
                tab.locator(f'#{name}-file input[type=file]').set_input_files(uploads / file)
                tab.locator(f'#{name}-file').get_by_text(Path(file).suffix).first.wait_for()
                if text is not None:
                    tab.locator(f'#{name}-text textarea, #{name}-text input').first.fill(text)
                tab.locator(f'#{name}-run').click()
                tab.locator(f'#{name}-said').get_by_text(expected).wait_for()

            press('detect', 'street.png', 'red, blue', '2 objects')
            drawn = tab.locator('#detect-drawing img')
            drawn.wait_for()
            assert drawn.evaluate('image => image.naturalWidth') >= 128
            assert tab.locator('#detect-table').get_by_text('8, 16, 40, 48').count() >= 1
            press('detect', 'text.jpg', 'red', 'text.jpg is not an image')
            press('detect', 'huge.png', 'red', '10000 x 10000 pixels')
            press('detect', 'street.png', 'red, blue', '2 objects')
            press('ask', 'street.png', 'is there a two?', 'is there a two?')
            press('video', 'empty.mp4', None, 'empty.mp4 is empty')
            browser.close()
    finally:
        page.close()
    assert [url for url in requests if not url.startswith((address, 'data:', 'blob:'))] == []
