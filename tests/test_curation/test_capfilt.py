import json
import re

import numpy as np
import pytest
from pyarrow import parquet
from raw_pairs import good, picture, write_tar

from florence_mm.curation.capfilt import MANIFEST, REJECTED, CapFiltSettings, run_capfilt
from florence_mm.curation.capfilt_texts import PART, seed_of
from florence_mm.curation.options import CapFiltOptions, InputOptions
from florence_mm.datasets.manifest import ImageTextManifest
from florence_mm.datasets.shards import ImageTextShards
from florence_mm.errors import UsageError


class Captions:
    """Writes the seed, but nothing at all of the pictures of some seeds."""

    def __init__(self, name='writer', silent=()):
        self.name, self.silent, self.seen = name, set(silent), 0

    def __call__(self, images, seeds, top_p):
        self.seen += len(images)
        assert all(image.dtype == np.uint8 and image.shape[2] == 3 for image in images) and len(images) == len(seeds)
        return [['' if seed in self.silent else f'drawn {seed} {top_p}' for seed in own] for own in seeds]


class Matches:
    """Finds what begins with a given word, by the word's probability; 0.75 for all others."""

    def __init__(self, name='filter', **words):
        self.name, self.words = name, words

    def __call__(self, images, texts, pairs):
        assert len(set(texts)) == len(texts) and all(0 <= place < len(images) for place, _ in pairs)
        return np.array([self.words.get(texts[text].split()[0], 0.75) for _, text in pairs])


@pytest.fixture
def pairs(tmp_path):
    """Six pictures, one of which is not there, one is no picture, and one has three texts."""
    folder = tmp_path / 'raw'
    folder.mkdir()
    for number in range(5):
        (folder / f'{number}.jpg').write_bytes(picture(number) if number != 3 else b'<html>404</html>')
    rows = [
        {'image': '0.jpg', 'text': 'true of 0'},
        {'image': '1.jpg', 'texts': ['true of 1', 'false of 1', ' . ']},
        {'image': '2.jpg', 'text': 'false of 2', 'label': 'two', 'query': 'a search'},
        {'image': '3.jpg', 'text': 'true of 3'},
        {'image': '4.jpg'},
        {'image': '5.jpg', 'text': 'true of 5'},
    ]
    path = folder / 'pairs.jsonl'
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    return path


def settings_of(path, out, kind='manifest', shards=False, prefix=None, **options):
    return CapFiltSettings(InputOptions(kind, str(path), prefix=prefix), out, CapFiltOptions(**options), shards)


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def drawn(number, seed=0, text=0):
    return f'drawn {seed_of(picture(number), seed, text)} 0.9'


def test_kept_and_rejected_texts_are_all_texts_each_with_its_source(pairs, tmp_path):
    silent = [seed_of(picture(4), 0, 0)]
    found = run_capfilt(settings_of(pairs, tmp_path / 'out'), Captions(silent=silent), Matches(true=0.9, false=0.1))
    web, synthetic = {'source': 'web', 'match': 0.9}, {'source': 'synthetic', 'match': 0.75}
    assert rows_of(found.manifest) == [
        {'image': '0.jpg', 'text': 'true of 0', **web},
        {'image': '0.jpg', 'text': drawn(0), **synthetic},
        {'image': '1.jpg', 'text': 'true of 1', **web},
        {'image': '1.jpg', 'text': drawn(1), **synthetic},
        {'image': '2.jpg', 'text': drawn(2), **synthetic, 'query': 'a search'},
    ]
    other = {'source': 'web', 'match': None}
    assert rows_of(found.rejected) == [
        {'image': '1.jpg', 'text': 'false of 1', **web, 'match': 0.1, 'reason': 'low_score'},
        {'image': '1.jpg', 'text': ' . ', **other, 'reason': 'blank_text'},
        {'image': '2.jpg', 'text': 'false of 2', **web, 'match': 0.1}
        | {'label': 'two', 'query': 'a search', 'reason': 'low_score'},
        {'image': '3.jpg', 'text': 'true of 3', **other, 'reason': 'undecodable'},
        {'image': '4.jpg', 'text': '', **other, 'reason': 'no_text'},
        {'image': '4.jpg', 'text': '', **other, 'source': 'synthetic', 'reason': 'blank_text'},
        {'image': '5.jpg', 'text': 'true of 5', **other, 'reason': 'no_image'},
    ]
    report = found.report.content
    assert report['pictures'] == 4
    assert report['web'] == {
        'texts': 8,
        'kept': 2,
        'rejected': {'no_image': 1, 'no_text': 1, 'blank_text': 1, 'undecodable': 1, 'low_score': 2},
    }
    assert report['synthetic'] == {'texts': 4, 'kept': 3, 'rejected': {'blank_text': 1}}
    assert {name: len(examples) for name, examples in found.report.examples.items()} == {
        'both kept': 2,
        'synthetic kept': 1,
    }


def test_the_new_manifest_is_read_for_training_with_the_folder_of_the_old_one(pairs, tmp_path):
    found = run_capfilt(settings_of(pairs, tmp_path / 'out'), Captions(), Matches())
    data = ImageTextManifest(str(found.manifest), data_prefix=str(pairs.parent))
    assert len(data) == 8  # four web texts and as many drawn ones
    assert data.get_data_info(0)['extra'] == {'source': 'web', 'match': 0.75}
    assert data.get_data_info(0)['img_path'] == str(pairs.parent / '0.jpg')


def test_a_text_of_exactly_the_threshold_is_kept(pairs, tmp_path):
    run_capfilt(settings_of(pairs, tmp_path / 'a', threshold=0.75), Captions(), Matches())
    assert len(rows_of(tmp_path / 'a' / MANIFEST)) == 8
    with pytest.raises(UsageError, match='no text of 12 is kept at threshold 0.76; lower it'):
        run_capfilt(settings_of(pairs, tmp_path / 'b', threshold=0.76), Captions(), Matches())


def test_batch_size_and_place_change_nothing(pairs, tmp_path):
    expected = None
    for size in (1, 3, 100):
        out = tmp_path / f'out{size}'
        run_capfilt(settings_of(pairs, out, batch_size=size), Captions(), Matches(true=0.9, false=0.1))
        written = [(out / name).read_bytes() for name in (MANIFEST, REJECTED, 'report/report.json')]
        assert expected in (None, written)
        expected = written


def test_each_caption_of_a_picture_has_a_seed_of_its_own(pairs, tmp_path):
    found = run_capfilt(settings_of(pairs, tmp_path / 'out', texts=2, seed=7), Captions(), Matches())
    texts = [row['text'] for row in rows_of(found.manifest) if row['source'] == 'synthetic']
    assert texts == [drawn(number, 7, text) for number in (0, 1, 2, 4) for text in (0, 1)]
    assert len(set(texts)) == 8


def test_values_that_are_no_numbers_are_no_matches(pairs, tmp_path):
    found = run_capfilt(settings_of(pairs, tmp_path / 'out'), Captions(), Matches(drawn=float('nan')))
    assert found.report.content['synthetic'] == {'texts': 4, 'kept': 0, 'rejected': {'score_not_finite': 4}}


def test_a_stopped_run_goes_on_and_gives_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr('florence_mm.curation.capfilt_texts.PART', 4)
    write_tar(tmp_path / 'raw/0.tar', [member for number in range(10) for member in good(number)])
    whole = run_capfilt(settings_of(tmp_path / 'raw', tmp_path / 'a', 'tars', True), Captions(), Matches())

    class Killed(Captions):
        def __call__(self, images, seeds, top_p):
            if self.seen == 8:
                raise KeyboardInterrupt
            return super().__call__(images, seeds, top_p)

    settings = settings_of(tmp_path / 'raw', tmp_path / 'b', 'tars', True, batch_size=2)
    with pytest.raises(KeyboardInterrupt):
        run_capfilt(settings, Killed(), Matches())
    rest = Captions()
    found = run_capfilt(settings, rest, Matches())
    assert rest.seen == 2
    assert found.report.content == whole.report.content
    assert found.rejected.read_bytes() == whole.rejected.read_bytes()
    tars = [next((tmp_path / name / 'shards').glob('*.tar')).read_bytes() for name in 'ab']
    assert tars[0] == tars[1] and not (tmp_path / 'b/state/texts/00000').exists()


def test_another_threshold_asks_no_model(pairs, tmp_path):
    settings = settings_of(pairs, tmp_path / 'out')
    run_capfilt(settings, Captions(), Matches(true=0.9))
    asked = Captions()
    found = run_capfilt(settings_of(pairs, tmp_path / 'out', threshold=0.8), asked, Matches(true=0.9))
    assert asked.seen == 0
    assert [row['text'] for row in rows_of(found.manifest)] == ['true of 0', 'true of 1']


def test_a_picture_that_changed_is_looked_at_again(pairs, tmp_path):
    run_capfilt(settings_of(pairs, tmp_path / 'out'), Captions(), Matches())
    (pairs.parent / '5.jpg').write_bytes(picture(5))
    asked = Captions()
    found = run_capfilt(settings_of(pairs, tmp_path / 'out'), asked, Matches())
    assert asked.seen == 5 and rows_of(found.manifest)[-1]['text'] == drawn(5)


def test_tars_become_shards_with_the_source_of_each_text(tmp_path):
    members = [*good(0, 'true'), *good(1, 'false'), ('0002.jpg', picture(2))]
    write_tar(tmp_path / 'raw/0.tar', members)
    settings = settings_of(tmp_path / 'raw', tmp_path / 'out', 'tars', True)
    found = run_capfilt(settings, Captions(), Matches(false=0.1))
    assert found.manifest is None and not (tmp_path / 'out' / MANIFEST).exists()
    data = ImageTextShards(str(tmp_path / 'out/shards'))
    said = [data.get_data_info(row) for row in range(len(data))]
    assert [one['text'] for one in said] == ['true', drawn(0), drawn(1), drawn(2)]
    assert [one['extra']['source'] for one in said] == ['web', 'synthetic', 'synthetic', 'synthetic']
    assert [row['reason'] for row in rows_of(found.rejected)] == ['low_score', 'no_text']


def test_a_manifest_becomes_shards_of_the_same_texts_too(pairs, tmp_path):
    found = run_capfilt(settings_of(pairs, tmp_path / 'out', shards=True), Captions(), Matches(false=0.1))
    data = ImageTextShards(found.shards.root)
    said = [data.get_data_info(row) for row in range(len(data))]
    listed = rows_of(found.manifest)
    assert [one['text'] for one in said] == [row['text'] for row in listed] and len(listed) == 6
    assert [one['extra']['source'] for one in said] == [row['source'] for row in listed]


def test_shards_are_never_of_another_threshold_than_the_manifest(pairs, tmp_path):
    run_capfilt(settings_of(pairs, tmp_path / 'out', shards=True), Captions(), Matches(true=0.9))
    with pytest.raises(UsageError, match=r'has shards of an earlier run; ask for them again with --shards, or remove'):
        run_capfilt(settings_of(pairs, tmp_path / 'out', threshold=0.8), Captions(), Matches(true=0.9))
    settings = settings_of(pairs, tmp_path / 'out', threshold=0.8, shards=True)
    found = run_capfilt(settings, Captions(), Matches(true=0.9))
    assert len(rows_of(found.manifest)) == len(ImageTextShards(found.shards.root)) == 2


@pytest.mark.parametrize(
    ('caption', 'match', 'sentence'),
    [
        (
            lambda seeds: ['a'] * len(seeds),
            0.5,
            r'captioner writer returned \[1, 1\] captions of 2 .* with \[2, 2\] seeds',
        ),
        (lambda seeds: [['a', 'b']] * (len(seeds) - 1), 0.5, r'returned \[2\] captions of 2 pictures'),
        (None, 1.5, r'the filter filter returned \[1\.5, 1\.5, 1\.5\] .* return a probability'),
        (None, -2.0, r'returned \[-2\.0, .* pairs; return a probability for each pair'),
    ],
)
def test_models_that_do_not_return_what_they_should(pairs, tmp_path, caption, match, sentence):
    captioner = Captions()
    if caption is not None:
        captioner = type(
            'Other', (), {'name': 'writer', '__call__': lambda self, images, seeds, top_p: caption(seeds)}
        )()
    with pytest.raises(ValueError, match=sentence):
        run_capfilt(
            settings_of(pairs, tmp_path / 'out', texts=2, batch_size=2),
            captioner,
            Matches(true=match, false=match, drawn=match, a=match, b=match),
        )


def test_parts_are_of_a_size_that_loses_minutes():
    assert PART == 256


def test_the_table_of_texts_has_all_probabilities(pairs, tmp_path):
    found = run_capfilt(settings_of(pairs, tmp_path / 'out'), Captions(), Matches(true=0.123456))
    table = parquet.read_table(found.texts[0]).to_pylist()
    assert [row['match'] for row in table if row['text'].startswith('true') and row['drop'] is None] == [0.123456] * 2
    assert [row['id'] for row in table] == list(range(12))


@pytest.mark.parametrize(
    ('changed', 'sentence'),
    [
        ({'seed': 1}, 'holds a run with seed=0 instead of 1; name another folder, or remove this one to begin anew'),
        ({'top_p': 0.5}, 'holds a run with top_p=0.9 instead of 0.5'),
        ({'texts': 2}, 'holds a run with texts=1 instead of 2'),
        ({'captioner': 'other'}, 'holds a run with another captioner'),
        ({'filter': 'other'}, 'holds a run with another filter'),
        ({'source': 'other'}, 'holds a run with another source'),
    ],
)
def test_a_run_is_not_continued_with_other_settings(pairs, tmp_path, changed, sentence):
    run_capfilt(settings_of(pairs, tmp_path / 'out'), Captions(), Matches())
    models = Captions(changed.pop('captioner', 'writer')), Matches(changed.pop('filter', 'filter'))
    if changed.pop('source', None):
        pairs = pairs.rename(pairs.with_name('others.jsonl'))
    with pytest.raises(UsageError, match=re.escape(sentence)):
        run_capfilt(settings_of(pairs, tmp_path / 'out', **changed), *models)


def test_a_manifest_without_pictures_is_refused(pairs, tmp_path):
    settings = settings_of(pairs, tmp_path / 'out', prefix=str(tmp_path))
    with pytest.raises(UsageError, match=r'no picture of .*pairs\.jsonl can be read \(no_image: 8\)'):
        run_capfilt(settings, Captions(), Matches())


def test_a_folder_with_other_files_is_refused(pairs):
    with pytest.raises(UsageError, match=r'holds 0\.jpg, which curation did not write; name another folder'):
        run_capfilt(settings_of(pairs, pairs.parent), Captions(), Matches())


def test_what_was_written_is_no_source(pairs, tmp_path):
    run_capfilt(settings_of(pairs, tmp_path / 'out'), Captions(), Matches())
    settings = settings_of(tmp_path / 'out' / MANIFEST, tmp_path / 'out', prefix=str(pairs.parent))
    with pytest.raises(UsageError, match='which this run writes to; name another work or out folder'):
        run_capfilt(settings, Captions(), Matches())


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [
        ({'threshold': 1.01}, 'threshold=1.01 must be a probability, from 0 to 1'),
        ({'threshold': -0.1}, 'threshold=-0.1 must be a probability'),
        ({'threshold': float('nan')}, 'threshold=nan must be a probability'),
        ({'top_p': 0.0}, 'top_p=0.0 must be above 0, and at most 1'),
        ({'top_p': 1.5}, 'top_p=1.5 must be above 0'),
        ({'texts': 0}, 'texts=0 must be a whole number from 1'),
        ({'batch_size': 1.5}, 'batch_size=1.5 must be a whole number from 1'),
        ({'seed': -1}, 'seed=-1 must be a whole number from 0'),
    ],
)
def test_options_out_of_range_are_refused(options, sentence):
    with pytest.raises(UsageError, match=re.escape(sentence)):
        CapFiltOptions(**options)


@pytest.mark.parametrize(
    ('kind', 'sentence'),
    [('tars', 'lie in tars, which a manifest cannot name; ask for shards'), ('parquet', 'make shards of it with')],
)
def test_sources_that_cannot_be_written_as_a_manifest_are_refused(tmp_path, kind, sentence):
    with pytest.raises(UsageError, match=sentence):
        settings_of(tmp_path / 'raw', tmp_path / 'out', kind)


def test_a_file_is_no_folder_to_write_to(pairs):
    with pytest.raises(UsageError, match=r'pairs\.jsonl is a file; name a folder to write to'):
        settings_of(pairs, pairs)
