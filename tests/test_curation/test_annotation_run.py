import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
from raw_pairs import bomb, good, picture, write_tar

from florence_mm.curation import annotation, annotation_pictures
from florence_mm.curation.annotation import ANNOTATIONS, DROPPED, Models, run_annotation
from florence_mm.curation.annotation_items import Item
from florence_mm.curation.annotation_options import FilterOptions, RefineOptions
from florence_mm.curation.annotation_parsing import Parse, Word
from florence_mm.curation.annotation_pictures import PictureOptions, list_pictures
from florence_mm.curation.annotation_settings import AnnotationSettings, make_annotation_settings
from florence_mm.curation.annotation_sources import RegionTexts, choose_region_texts, crop
from florence_mm.datasets.tasks import TaskManifest
from florence_mm.errors import DataError, UsageError
from florence_mm.visualization.annotation import draw_annotation_report

LEFT, RIGHT = (0.0, 0.0, 0.4, 0.4), (0.6, 0.6, 1.0, 1.0)


class Finds:
    """Finds the same items in each picture, and notes the mean of each picture that it has seen."""

    tasks = ('detection',)

    def __init__(self, *items, source='detector', stop=None):
        self.items, self.source, self.name = list(items), source, f'{source} {items}'
        self.seen, self.stop = [], stop

    def __call__(self, images, known):
        if self.stop is not None and len(self.seen) >= self.stop:
            raise KeyboardInterrupt
        assert len(images) == len(known) and all(image.dtype == np.uint8 for image in images)
        assert all(item.drop is None for items in known for item in items)
        self.seen += [float(image.mean()) for image in images]
        return [list(self.items) for _ in images]


class Trains:
    """A model whose score is the share of dogs among the regions that it is trained on."""

    def __init__(self, name='trainer'):
        self.name, self.trained = name, []

    def __call__(self, data, folder):
        rows = [json.loads(line) for line in data.annotations.read_text().splitlines()]
        texts = [region['text'] for row in rows for region in row.get('regions', ())]
        self.trained.append((data.round, len(texts)))
        (folder / 'weights').write_text(str(data.round))
        return Finds(Item('detection', 'dog', LEFT, texts.count('dog') / len(texts)), source='model')


def detection(*regions):
    return [{'text': text, 'boxes': [list(box)]} for text, box in regions]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Parts of two pictures, and no waiting for the disk."""
    monkeypatch.setattr(annotation_pictures, 'PART', 2)
    monkeypatch.setattr('os.fsync', lambda descriptor: None)


@pytest.fixture(scope='module')
def tasks(tmp_path_factory):
    """Seven pictures, of which one is damaged and one is not there."""
    folder = tmp_path_factory.mktemp('raw')
    for number in range(6):
        (folder / f'{number}.jpg').write_bytes(picture(number) if number != 3 else b'<html>404</html>')
    rows = [
        {'image': f'{number}.jpg', 'task': 'detection', 'regions': detection(('dog', LEFT), ('it', RIGHT))}
        for number in range(7)
    ]
    rows.append({'image': '0.jpg', 'task': 'caption', 'answer': 'a dog'})
    rows.append({'image': '1.jpg', 'task': 'phrase_grounding', 'text': 'a dog', 'regions': detection(('a dog', RIGHT))})
    (folder / 'tasks.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    return folder / 'tasks.jsonl'


def settings_of(path, out, rounds=0, **fields):
    fields = {'refine': RefineOptions(rounds), 'batch_size': 2, **fields}
    return AnnotationSettings(PictureOptions(str(path)), out, **fields)


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file() and path.name != '.lock'
    }


SPECIALIST = (
    Item('detection', 'dog', (0.0, 0.0, 0.4, 0.5), 0.8),
    Item('detection', 'cat', RIGHT, math.nan),
    Item('detection', 'cat', (0.5, 0.5, 1.5, 1.0), 0.9),
    Item('detection', 'cat', RIGHT, 0.1),
    Item('region_category', 'cat', RIGHT, 0.9),
)


def test_everything_is_kept_or_dropped_for_a_reason(tasks, tmp_path):
    (one,) = run_annotation(settings_of(tasks, tmp_path / 'out'), Models((Finds(*SPECIALIST),)))
    content = one.report.content
    assert content['pictures'] == 7 and content['unreadable'] == {'no_image': 1, 'undecodable': 1}
    # given: 14 regions, of which 4 are in pictures that nobody sees; 5 finds in each of the 5 others
    region = content['kinds']['region']
    assert region['annotations'] == 14 + 25 and region['kept'] == 10
    assert region['dropped'] == {
        'no_image': 2,
        'undecodable': 2,
        'score_not_finite': 5,
        'bad_box': 5,
        'blacklisted': 5,
        'merged': 5,
        'low_score': 5,
    }
    assert region['annotations'] == region['kept'] + sum(region['dropped'].values())
    assert region['sources'] == {
        'detector': {'annotations': 25, 'kept': 5},
        'given': {'annotations': 14, 'kept': 5},
    }
    assert content['kinds']['text']['kept'] == content['kinds']['phrase']['kept'] == 1
    kept, dropped = rows_of(one.annotations), rows_of(one.dropped)
    assert [row['image'] for row in kept if row['task'] == 'detection'] == [f'{n}.jpg' for n in (0, 1, 2, 4, 5)]
    # 1 - 0.5 * 0.2, and the lower edge goes 0.8 / 1.3 of the way to 0.5
    assert kept[0]['regions'] == [{'text': 'dog', 'boxes': [[0, 0, 0.4, 0.46154]], 'score': 0.9}]
    assert {'image': '0.jpg', 'task': 'region_category', 'region': list(RIGHT), 'answer': 'cat'} in kept
    assert len(dropped) == sum(region['dropped'].values()) and dropped[0]['drop'] == 'blacklisted'
    assert (tmp_path / 'out' / ANNOTATIONS).read_bytes() == one.annotations.read_bytes()
    # as training reads it
    data = TaskManifest(str(one.annotations), data_prefix=str(tasks.parent), pipeline=[])
    assert len(data) == len(kept) and data[0]['gt_target'].regions[0].text == 'dog'


def test_rounds_merge_with_what_the_specialists_found(tasks, tmp_path):
    trainer = Trains()
    rounds = run_annotation(settings_of(tasks, tmp_path / 'out', 2), Models((Finds(*SPECIALIST),), trainer=trainer))
    # 5 dogs and a phrase (0.8 of them dogs by 5 / 6); then 5 dogs, as the model does not look for phrases: the same
    assert trainer.trained == [(1, 6), (2, 6)]
    for one in rounds[1:]:
        (first, *_) = rows_of(one.annotations)
        # both rounds begin with 0.9: 1 - 0.1 * (1 - 5 / 6)
        assert first['regions'][0]['score'] == pytest.approx(0.98333, abs=1e-5)
        region = one.report.content['kinds']['region']
        assert region['annotations'] == 14 + 25 + 5 == region['kept'] + sum(region['dropped'].values())
        assert region['dropped']['merged'] == 10
    assert rounds[1].report.content['kinds']['text']['kept'] == 1


def test_an_annotation_that_the_model_contradicts_is_dropped_for_that(tasks, tmp_path):
    class Doubts(Trains):
        def __call__(self, data, folder):
            return Finds(Item('detection', 'cat', LEFT, 0.9), source='model')

    models = Models(trainer=Doubts())
    rounds = run_annotation(settings_of(tasks, tmp_path / 'out', 1), models)
    region = rounds[1].report.content['kinds']['region']
    assert region['dropped']['contradicted'] == 5 and region['most frequent'] == [['cat', 5]]


def test_kinds_that_are_not_refined_stay(tasks, tmp_path):
    settings = settings_of(tasks, tmp_path / 'out', refine=RefineOptions(1, ('text',)))
    first, second = run_annotation(settings, Models((Finds(*SPECIALIST),), trainer=Trains()))
    assert first.annotations.read_bytes() == second.annotations.read_bytes()


@pytest.fixture(scope='module')
def whole(tasks, tmp_path_factory):
    """The files of a run that was not stopped."""
    out = tmp_path_factory.mktemp('whole') / 'out'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(annotation_pictures, 'PART', 2)
        run_annotation(settings_of(tasks, out, 2), Models((Finds(*SPECIALIST),), trainer=Trains()))
    return files_of(out)


@pytest.mark.parametrize(
    ('name', 'after'),
    [
        *(('write_part', 0), ('write_part', 3), ('write_part', 9), ('write_part', 14)),
        *(('write_record', 0), ('write_record', 1), ('write_record', 12)),
        *(('task_line', 4), ('write_atomic', 0), ('make_report', 0), ('make_report', 2)),
    ],
)
def test_a_run_that_was_killed_ends_with_the_same_bytes(tasks, tmp_path, whole, monkeypatch, name, after):
    out, calls = tmp_path / 'out', []
    where = annotation_pictures if name == 'write_record' and not after else annotation  # of the list of pictures too
    function = getattr(where, name)

    def killed(*args, **kwargs):
        calls.append(1)
        if len(calls) > after:
            raise KeyboardInterrupt
        return function(*args, **kwargs)

    models = Models((Finds(*SPECIALIST),), trainer=Trains())
    settings = settings_of(tasks, out, 2)
    with monkeypatch.context() as patch:
        patch.setattr(where, name, killed)
        try:
            run_annotation(settings, models)
        except KeyboardInterrupt:
            assert files_of(out) != whole
        else:
            assert len(calls) <= after
    run_annotation(settings, models)
    assert files_of(out) == whole


@pytest.mark.parametrize('stop', [0, 2, 3])
def test_a_run_whose_specialist_was_killed_sees_each_part_once(tasks, tmp_path, whole, stop):
    out, specialist = tmp_path / 'out', Finds(*SPECIALIST, stop=stop)
    settings, models = settings_of(tasks, out, 2), Models((specialist,), trainer=Trains())
    with pytest.raises(KeyboardInterrupt):
        run_annotation(settings, models)
    specialist.stop = None
    run_annotation(settings, models)
    assert files_of(out) == whole and len(specialist.seen) == 5
    trained = models.trainer.trained[:]
    run_annotation(settings, models)  # and a finished run does nothing
    assert files_of(out) == whole and len(specialist.seen) == 5 and models.trainer.trained == trained


def test_what_has_changed_is_made_again_and_nothing_else(tasks, tmp_path, whole):
    out, specialist, trainer = tmp_path / 'out', Finds(*SPECIALIST), Trains()
    models = Models((specialist,), trainer=trainer)
    strict = settings_of(tasks, out, 2, filter=FilterOptions(min_score=0.95))
    run_annotation(strict, models)
    assert files_of(out) != whole
    run_annotation(settings_of(tasks, out, 2), models)
    assert files_of(out) == whole and len(specialist.seen) == 5 and len(trainer.trained) == 4
    run_annotation(settings_of(tasks, out, 0), models)
    assert not (out / 'round1').exists() and (out / 'round0' / DROPPED).exists()
    # another specialist
    run_annotation(settings_of(tasks, out, 2), Models((Finds(*SPECIALIST[:2]),), trainer=trainer))
    assert files_of(out) != whole


def test_batches_change_nothing(tasks, tmp_path, whole):
    out = tmp_path / 'out'
    run_annotation(settings_of(tasks, out, 2, batch_size=1), Models((Finds(*SPECIALIST),), trainer=Trains()))
    assert files_of(out) == whole


@pytest.mark.parametrize('kind', ['folder', 'manifest', 'tars'])
def test_pictures_of_curation(tmp_path, kind):
    folder = tmp_path / 'raw'
    folder.mkdir()
    if kind == 'tars':
        write_tar(folder / '0.tar', [*good(0), ('0001.jpg', bomb()), ('0001.txt', b'huge')])
    else:
        (folder / '0000.jpg').write_bytes(picture(0))
        (folder / '0001.png').write_bytes(bomb())
        for name in ('0000', '0001'):
            (folder / f'{name}.txt').write_text('a picture of thing 0' if name == '0000' else 'huge')
    rows = [
        {'image': name, 'text': text} for name, text in (('0000.jpg', 'a picture of thing 0'), ('0001.png', 'huge'))
    ]
    (tmp_path / 'pairs.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    path = tmp_path / 'pairs.jsonl' if kind == 'manifest' else folder
    options = PictureOptions(str(path), kind, str(folder) if kind == 'manifest' else None)
    settings = AnnotationSettings(options, tmp_path / 'out')
    (one,) = run_annotation(settings, Models((Finds(*SPECIALIST[:1]),)))
    caption, found = rows_of(one.annotations)
    assert caption['answer'] == 'a picture of thing 0' and found['regions'][0]['text'] == 'dog'
    assert one.report.content['unreadable'] == {'bomb': 1}
    assert (options.root(tmp_path / 'out') / caption['image']).read_bytes() == picture(0)
    assert caption['image'] == ('00000/000000.jpg' if kind == 'tars' else '0000.jpg')


def test_a_picture_that_is_lost_between_rounds_is_named(tasks, tmp_path):
    folder = tmp_path / 'raw'
    shutil.copytree(tasks.parent, folder)

    class Loses(Trains):
        def __call__(self, data, root):
            (folder / '5.jpg').unlink()
            return super().__call__(data, root)

    models = Models((Finds(*SPECIALIST),), trainer=Loses())
    with pytest.raises(UsageError, match=r'the picture .*raw/5\.jpg cannot be read, and was read before; restore it'):
        run_annotation(settings_of(folder / 'tasks.jsonl', tmp_path / 'out', 1), models)


def test_another_picture_of_equal_size_in_a_tar_takes_the_place_of_the_first(tmp_path):
    folder, out = tmp_path / 'raw', tmp_path / 'out'
    folder.mkdir()
    for byte in (b'a', b'b'):
        data = picture(0) + byte  # behind the end of the picture
        write_tar(folder / '0.tar', [('0000.jpg', data), ('0000.txt', b'a dog')])
        options = PictureOptions(str(folder), 'tars')
        list_pictures(options, out / 'state', out)
        assert (options.root(out) / '00000/000000.jpg').read_bytes() == data


def test_the_text_nearest_to_a_region_is_chosen():
    class Nearest:
        name = 'by length'

        def __call__(self, crops, texts):
            assert [one.shape for one in crops] == [(4, 8, 3)] * len(texts)
            return [[-abs(len(text) - 5) if text != 'nan!!' else math.nan for text in each] for each in texts]

    class Chunks:
        name = 'chunks'

        def __call__(self, texts):
            return [Parse((Word(text, text, 'NOUN', 0),), ('a dog',) if 'red' in text else ()) for text in texts]

    image = np.zeros((10, 20, 3), np.uint8)
    items = [
        Item('detection', 'dog', LEFT, 0.5),
        Item('region_description', 'a red dog', (0.0, 0.0, 0.4, 0.42)),
        Item('dense_region_caption', 'nan!!', LEFT),
        Item('detection', 'cat', RIGHT),
        Item('caption', 'a dog'),
    ]
    found = choose_region_texts(image, items, Nearest(), Chunks())
    assert found[:2] == items[:2] and found[3:5] == items[3:] and found[2].drop == 'farther_text'
    assert found[5:] == [Item('dense_region_caption', 'a dog', LEFT, 0.5, 'nearest')]
    # without a parser: dog is nearer than a red dog
    assert choose_region_texts(image, items, Nearest())[5].text == 'dog'
    assert choose_region_texts(image, items, Nearest(), Chunks(), RegionTexts(chunks=0))[5].text == 'dog'
    written = [*items[:2], replace(items[2], text='A DOG')]
    assert choose_region_texts(image, written, Nearest(), Chunks()) == written  # it is there already
    assert choose_region_texts(image, items[3:], Nearest()) == items[3:]
    assert crop(image, (0.999, 0.999, 1.0, 1.0)).shape == (1, 1, 3)


def test_the_report_and_its_pictures(tasks, tmp_path):
    (one,) = run_annotation(settings_of(tasks, tmp_path / 'out'), Models((Finds(*SPECIALIST),)))
    text = (tmp_path / 'out/round0/report/report.md').read_text()
    assert '| region | 39 | 10 | 1.00 | 2 |' in text and '| region | blacklisted | 5 |' in text
    content = one.report.content
    # the kept: five dogs and five cats, and a phrase at the right
    side = 'side of a square of equal area, of the picture'
    assert sum(content['histograms'][side]['kept']) == content['boxes'] == 11
    centres = np.array(content['centres'])
    assert centres[12, 12] == 6 and centres[3, 3] == 5 and centres.sum() == 11
    draw_annotation_report(one.report, tmp_path / 'drawn')
    names = {path.name for path in (tmp_path / 'drawn').iterdir()}
    reasons = set(content['kinds']['region']['dropped']) - {'no_image', 'undecodable'}
    assert names == {'histograms.png', 'centres.png', *(f'examples_{name}.png' for name in ('kept', *reasons))}


@pytest.mark.parametrize(
    ('change', 'says'),
    [
        ({'pictures': None}, "the config does not set 'pictures'; see docs/annotation.md"),
        ({'picture': {}}, "the config has 'picture', which is no setting of annotating; did you mean 'pictures'"),
        ({'pictures': {'path': 'x', 'kind': 'folder'}}, 'no specialists, and pictures of a folder have no annotations'),
        (
            {'pictures': {'path': 'x', 'kind': 'zip'}},
            "pictures.kind='zip' must be one of tasks, manifest, folder, tars",
        ),
        ({'filter': {'min_scor': 1}}, "filter has 'min_scor', which is no option of it; did you mean 'min_score'"),
        ({'batch_size': 0}, 'batch_size=0 must be a whole number from 1'),
    ],
)
def test_settings_that_are_refused(tmp_path, change, says):
    config = {'pictures': {'path': 'x.jsonl'}, 'out': str(tmp_path / 'out'), **change}
    with pytest.raises(UsageError, match=says):
        make_annotation_settings(config)


@pytest.mark.parametrize(
    ('settings', 'models', 'says'),
    [
        ({'filter': FilterOptions(max_objects=3)}, Models(), 'filter.max_objects needs a parser; add parser='),
        ({'refine': RefineOptions(1)}, Models(), 'refine.rounds needs a model that is trained; add trainer='),
        ({}, Models((Finds(), Finds())), "two specialists are named 'detector'; give one of them another source"),
        ({'filter': FilterOptions(words=['dog', 'a dog'], min_text_score=1)}, Models(), None),
    ],
)
def test_runs_that_are_refused(tasks, tmp_path, settings, models, says):
    settings = settings_of(tasks, tmp_path / 'out', **settings)
    if says is None:
        run_annotation(settings, models)  # the caption is kept
    else:
        with pytest.raises(UsageError, match=says):
            run_annotation(settings, models)


def test_inputs_that_are_refused(tasks, tmp_path):
    out = tmp_path / 'out'
    with pytest.raises(UsageError, match='there is no task file .*none.jsonl; correct pictures.path'):
        run_annotation(settings_of(tmp_path / 'none.jsonl', out), Models())
    (tmp_path / 'bad.jsonl').write_text('{"image": "a.jpg", "task": "detecton", "regions": []}\n')
    with pytest.raises(DataError, match="bad.jsonl, line 1: there is no task 'detecton'"):
        run_annotation(settings_of(tmp_path / 'bad.jsonl', out), Models())
    line = {'image': 'a.jpg', 'task': 'detection', 'regions': detection(('dog', (0, 0, 1.5, 1)))}
    (tmp_path / 'bad.jsonl').write_text(json.dumps(line) + '\n')
    with pytest.raises(DataError, match='bad.jsonl, line 1: .*outside the picture'):
        run_annotation(settings_of(tmp_path / 'bad.jsonl', out), Models())
    (tmp_path / 'gone.jsonl').write_text('{"image": "a.jpg", "task": "caption", "answer": "a dog"}\n')
    with pytest.raises(UsageError, match=r'no picture of .*gone.jsonl can be read \(no_image: 1\); correct its paths'):
        run_annotation(settings_of(tmp_path / 'gone.jsonl', out), Models())
    with pytest.raises(UsageError, match=r'no annotation of 1 is kept in round 0 \(low_score: 1\); lower the limits'):
        (tasks.parent / 'one.jsonl').write_text('{"image": "0.jpg", "task": "detection", "regions": []}\n')
        weak = Finds(Item('detection', 'dog', LEFT, 0.1))
        run_annotation(settings_of(tasks.parent / 'one.jsonl', out), Models((weak,)))
    with pytest.raises(ValueError, match="specialist 'detector' returned 0 lists of annotations for 2 pictures"):

        class Short(Finds):
            def __call__(self, images, known):
                return []

        run_annotation(settings_of(tasks, tmp_path / 'other'), Models((Short(),)))
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full/mine.txt').write_text('')
    with pytest.raises(UsageError, match='holds mine.txt, which'):
        run_annotation(settings_of(tasks, tmp_path / 'full'), Models())
