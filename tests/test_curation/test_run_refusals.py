"""What a run of curation must not do in silence: lose pairs, read its own files, or compare with nothing."""

import json
import logging

import cv2
import numpy as np
import pytest
from raw_pairs import good, picture, write_tar

from florence_mm.curation.run import curate
from florence_mm.curation.settings import make_settings
from florence_mm.curation.stage_c import MARK
from florence_mm.curation.state import held
from florence_mm.datasets.shards import ImageTextShards
from florence_mm.errors import DataError, UsageError

pytestmark = pytest.mark.usefixtures('one_process')


def settings_of(folder, **options):
    defaults = {'inputs': [{'kind': 'tars', 'path': str(folder / 'raw')}], 'stage_c': {'shards': 1}}
    return make_settings({'work': str(folder / 'work'), 'out': str(folder / 'out'), **defaults, **options})


def texts_of(folder):
    data = ImageTextShards(str(folder))
    return sorted(data.get_data_info(row)['text'] for row in range(len(data)))


def test_augmented_pairs_are_read_back(tmp_path):
    template = good(1, 'a photo of a dog', label_text='dog', augmented=True)
    write_tar(tmp_path / 'raw/0.tar', [*good(0, 'a cat'), *template])
    assert curate(settings_of(tmp_path)).shards.augmented.tolist() == [1]
    assert texts_of(tmp_path / 'out') == ['a cat', 'a photo of a dog']
    assert len(ImageTextShards(str(tmp_path / 'out'), drop_augmented=True)) == 1


def test_manifests_of_one_name_in_two_folders(tmp_path):
    for number, name in enumerate('ab'):
        (tmp_path / 'raw' / name).mkdir(parents=True)
        (tmp_path / 'raw' / name / '0.jpg').write_bytes(picture(number))
        (tmp_path / 'raw' / name / 'pairs.jsonl').write_text(json.dumps({'image': '0.jpg', 'text': f'of {name}'}))
    curate(settings_of(tmp_path, inputs=[{'kind': 'manifest', 'path': str(tmp_path / 'raw/*/pairs.jsonl')}]))
    assert texts_of(tmp_path / 'out') == ['of a', 'of b']


def test_a_row_with_several_texts_is_a_pair_for_each(tmp_path):
    (tmp_path / 'raw').mkdir()
    for number in range(2):
        (tmp_path / f'raw/{number}.jpg').write_bytes(picture(number))
    rows = [{'image': '0.jpg', 'texts': ['a first', 'a second', 7]}, {'image': '1.jpg', 'texts': []}]
    (tmp_path / 'raw/pairs.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    source = {'kind': 'manifest', 'path': str(tmp_path / 'raw/pairs.jsonl')}
    found = curate(settings_of(tmp_path, inputs=[source], stage_b={'duplicates': 'texts'}))
    assert found.by_reason == {'kept': 2, 'no_text': 1, 'invalid_text': 1}
    assert texts_of(tmp_path / 'out') == ['a first', 'a second']


def test_two_pictures_of_a_folder_whose_names_differ_in_case_are_two_pairs(tmp_path):
    write_tar(tmp_path / 'raw/0.tar', good(0))
    for number, name in enumerate(('1.JPG', '1.jpg')):
        (tmp_path / 'raw' / name).write_bytes(picture(number))
    (tmp_path / 'raw/1.txt').write_text('one text')
    found = curate(settings_of(tmp_path, inputs=[{'kind': 'folder', 'path': str(tmp_path / 'raw')}]))
    assert found.by_reason == {'kept': 1, 'no_text': 1}


@pytest.mark.parametrize('kind', ['tars', 'folder'])
def test_a_run_does_not_read_what_it_writes(tmp_path, kind):
    write_tar(tmp_path / 'raw/0.tar', good(0))
    (tmp_path / 'raw/0.jpg').write_bytes(picture(1))
    (tmp_path / 'raw/0.txt').write_text('a text')
    path = {'tars': tmp_path / '**/*.tar', 'folder': tmp_path}[kind]
    settings = settings_of(tmp_path, inputs=[{'kind': kind, 'path': str(path)}])
    (tmp_path / 'out').mkdir()
    if kind == 'tars':
        curate(settings)
    with pytest.raises(UsageError, match=r'which this run writes to; name another work or out folder'):
        curate(settings)


def test_nothing_kept_says_why_and_leaves_the_earlier_set(tmp_path):
    write_tar(tmp_path / 'raw/0.tar', [*good(0), ('1.jpg', picture(1))])
    curate(settings_of(tmp_path))
    with pytest.raises(UsageError, match=r'^no pair of 2 was kept \(no_text: 1, too_small: 1\), so there is nothing'):
        curate(settings_of(tmp_path, stage_a={'min_side': 500}))
    assert len(texts_of(tmp_path / 'out')) == 1


def test_two_runs_do_not_write_to_one_set(tmp_path):
    write_tar(tmp_path / 'raw/0.tar', good(0))
    curate(settings_of(tmp_path))
    with (
        held(tmp_path / 'out' / MARK, 'not reached'),
        pytest.raises(UsageError, match=r'another run writes to .*out; let it end, or name another out folder'),
    ):
        curate(settings_of(tmp_path, work=str(tmp_path / 'other')))


@pytest.mark.parametrize('least', [32, 81])
def test_pictures_of_an_evaluation_set_count_without_texts_and_at_any_size(tmp_path, least):
    write_tar(tmp_path / 'raw/0.tar', [('0.jpg', picture(3, (192, 160))), ('0.txt', b'a text'), *good(1)])
    (tmp_path / 'evaluation').mkdir()
    (tmp_path / 'evaluation/3.png').write_bytes(picture(3, (96, 80), '.png'))
    evaluation = [{'kind': 'folder', 'path': str(tmp_path / 'evaluation')}]
    write_tar(tmp_path / 'raw/1.tar', [('2.jpg', picture(9, (192, 160))), ('2.txt', b'another')])
    found = curate(settings_of(tmp_path, evaluation=evaluation, stage_a={'min_side': least}))
    assert found.by_reason['evaluation_duplicate'] == 1


class Embed:
    """Features of the smallest picture, which crops keep."""

    name, least, width = 'corner', 1, 12

    def prepare(self, image):
        return cv2.resize(image, (2, 2), interpolation=cv2.INTER_AREA).ravel().astype(np.float32) - 128

    def __call__(self, images, texts):
        features = np.stack(images)
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        assert all(texts)
        return features, features


def test_evaluation_pictures_without_texts_are_compared_by_embedding(tmp_path):
    other = cv2.imencode('.png', cv2.imdecode(np.frombuffer(picture(3), np.uint8), 1)[:, ::-1])[1].tobytes()
    write_tar(tmp_path / 'raw/0.tar', [('0.png', other), ('0.txt', b'a flipped picture'), *good(1)])
    (tmp_path / 'evaluation').mkdir()
    (tmp_path / 'evaluation/3.png').write_bytes(other)
    options = {
        'evaluation': [{'kind': 'folder', 'path': str(tmp_path / 'evaluation')}],
        'stage_a': {'embeddings': True},
        'stage_b': {'near_cosine': 0.99, 'near_bits': 0},
        'model': {'name': 'corner'},
    }
    curate(settings_of(tmp_path, **options), Embed)
    from pyarrow import parquet

    rows = parquet.read_table(tmp_path / 'work/evaluation/stage_a/00000.parquet').to_pylist()
    assert [row['drop'] for row in rows] == [None] and np.linalg.norm(rows[0]['embedding']) == pytest.approx(
        1, abs=1e-2
    )


def test_evaluation_pictures_without_a_hash_stand_for_no_picture(tmp_path, caplog):
    blank = cv2.imencode('.png', np.full((90, 90, 3), 200, np.uint8))[1].tobytes()
    write_tar(tmp_path / 'raw/0.tar', [*good(1), ('b.png', blank), ('b.txt', b'a blank wall')])
    (tmp_path / 'evaluation').mkdir()
    (tmp_path / 'evaluation/3.jpg').write_bytes(picture(3)[:600])  # a size, and no pixels
    evaluation = [{'kind': 'folder', 'path': str(tmp_path / 'evaluation')}]
    with pytest.raises(UsageError, match='evaluation: none of 1 pictures can be read; correct the paths'):
        curate(settings_of(tmp_path, evaluation=evaluation))
    (tmp_path / 'evaluation/4.jpg').write_bytes(picture(4))
    with caplog.at_level(logging.WARNING):
        found = curate(settings_of(tmp_path, evaluation=evaluation))
    assert found.by_reason == {'kept': 2}


@pytest.mark.parametrize('count', ['-1', '1e3', '4294967297', 'null', '"7"'])
def test_a_count_beside_a_tar_that_is_none(tmp_path, count):
    write_tar(tmp_path / 'raw/0.tar', good(0))
    (tmp_path / 'raw/0_stats.json').write_text(f'{{"successes": {count}}}')
    with pytest.raises(DataError, match=r"0_stats\.json has no count 'successes' from 0 to 4294967296; remove it"):
        curate(settings_of(tmp_path))


def test_a_damaged_table_beside_a_tar(tmp_path):
    write_tar(tmp_path / 'raw/0.tar', good(0))
    (tmp_path / 'raw/0.parquet').write_bytes(b'PAR1 and no more')
    with pytest.raises(DataError, match=r'0\.parquet beside the tar is not a whole parquet file .* copy it again'):
        curate(settings_of(tmp_path))


@pytest.mark.parametrize('twice', ['image', 'text'])
def test_a_column_that_occurs_twice_is_not_chosen_in_silence(tmp_path, twice):
    import pyarrow as pa
    from pyarrow import parquet

    columns = {'image': [picture(0)], 'text': ['a text']}
    names = [*columns, twice]
    (tmp_path / 'raw').mkdir()
    parquet.write_table(pa.table([pa.array(columns[name]) for name in names], names), tmp_path / 'raw/0.parquet')
    with pytest.raises(DataError, match=rf"0\.parquet: the column '{twice}' occurs twice; name or drop one"):
        curate(settings_of(tmp_path, inputs=[{'kind': 'parquet', 'path': str(tmp_path / 'raw')}]))


@pytest.mark.parametrize('name', ['work', 'out'])
def test_a_file_in_place_of_a_folder(tmp_path, name):
    (tmp_path / name).write_text('a file')
    with pytest.raises(UsageError, match=rf"{name}='.*{name}' is no folder; name another one"):
        settings_of(tmp_path)
