"""What stage B keeps of small tables, by hand, and the same bytes with every engine, number of threads and memory."""

import math
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from columns_by_hand import FAR, read_selected, write_sidecar
from pyarrow import parquet

from florence_mm.curation.columns import make_id
from florence_mm.curation.options import StageBOptions
from florence_mm.curation.reasons import STAGE_B
from florence_mm.curation.stage_b import select
from florence_mm.errors import DataError, UsageError

ENGINES = ['duckdb', 'daft']


@pytest.fixture(params=ENGINES)
def engine(request):
    pytest.importorskip(request.param, reason=f'{request.param} runs where the extra of its name is installed')
    return request.param


def run(tmp_path, rows, evaluation=(), width=None, **options):
    sidecar = write_sidecar(tmp_path / 'a/00000.parquet', rows, width=width)
    select([sidecar], tmp_path / 'b', StageBOptions(**options), evaluation)
    return read_selected(tmp_path / 'b')


def test_scores(tmp_path, engine):
    # 0.3 is 0.30000001 in float32: as a double, it would be kept either way, its neighbour below not
    below = float(np.nextafter(np.float32(0.3), np.float32(0)))
    rows = [{'score': value} for value in (0.3, below, math.nan, math.inf, -math.inf, 0.9, -0.1)]
    kept, drops, _ = run(tmp_path, rows, engine=engine, min_score=0.3)
    assert kept == [0, 5]
    assert drops == {
        1: 'low_score',
        2: 'score_not_finite',
        3: 'score_not_finite',
        4: 'score_not_finite',
        6: 'low_score',
    }
    assert run(tmp_path, rows, engine=engine)[0] == [0, 1, 5, 6]


def test_a_score_that_is_missing_is_no_low_one(tmp_path, engine):
    with pytest.raises(UsageError, match='min_score=0.3 needs scores, which 2 pairs lack; give stage A a model'):
        run(tmp_path, [{'score': 0.9}, {}, {}, {'drop': 'no_text'}], engine=engine, min_score=0.3)


@pytest.mark.parametrize(
    ('duplicates', 'bits', 'expected'),
    [('one', 3, [0, 3, 6]), ('one', 0, [0, 2, 3, 5, 6]), ('texts', 3, [0, 1, 3, 6]), ('all', 3, [0, 1, 2, 3, 4, 5, 6])],
)
def test_near_duplicates(tmp_path, engine, duplicates, bits, expected):
    rows = [
        {'phash': FAR[0], 'label': 1},
        {'phash': FAR[0], 'label': 2},  # the same picture with another text
        {'phash': FAR[0] ^ 0b111, 'label': 1},  # three bits from the first
        {'phash': FAR[1], 'label': 1},
        {'phash': FAR[1], 'label': 1},
        {'phash': FAR[1] ^ (1 << 63), 'label': 1},
        {'phash': FAR[1] ^ 0b1111, 'label': 1},  # four bits away
        {'phash': FAR[2], 'label': 1, 'drop': 'too_small'},
    ]
    kept, drops, _ = run(tmp_path, rows, engine=engine, duplicates=duplicates, near_bits=bits)
    assert kept == expected
    assert drops == {i: 'near_duplicate' for i in range(7) if i not in expected}


def test_a_dropped_picture_stands_for_nothing(tmp_path, engine):
    # 0 is near 1, and 1 near 2; the score drops 0, so 1 stays and 2 goes
    rows = [
        {'phash': FAR[0], 'score': 0.1},
        {'phash': FAR[0] ^ 0b11, 'score': 0.9},
        {'phash': FAR[0] ^ 0b11111, 'score': 0.9},
    ]
    kept, drops, _ = run(tmp_path, rows, engine=engine, min_score=0.5)
    assert (kept, drops) == ([1], {0: 'low_score', 2: 'near_duplicate'})


def test_evaluation_sets(tmp_path, engine):
    listed = write_sidecar(
        tmp_path / 'test/00000.parquet',
        [
            {'phash': FAR[10]},
            {'phash': FAR[11], 'drop': 'no_text'},  # a picture to be evaluated on, with or without a text
            {'phash': 0, 'width': 0, 'drop': 'undecodable'},
            {'phash': FAR[13]},
        ],
    )
    rows = [
        {'phash': FAR[0]},
        {'phash': FAR[10]},
        {'phash': FAR[10]},
        {'phash': FAR[11] ^ 0b111},
        {'phash': FAR[11] ^ 0b1111},  # near to the one before, which goes for another reason
        {'phash': 0},
        {'phash': FAR[13] ^ 1},
        {'phash': FAR[13]},
    ]
    kept, drops, _ = run(tmp_path, rows, [listed], engine=engine)
    assert kept == [0, 4, 5]
    assert drops == dict.fromkeys([1, 2, 3, 6, 7], 'evaluation_duplicate')
    assert run(tmp_path, rows, [listed], engine=engine, duplicates='all')[1] == drops


def test_balance_takes_the_smallest_of_sampling(tmp_path, engine):
    top = 2**64 - 1  # beyond a signed integer
    rows = [
        {'query': 'dog', 'sampling': top},
        {'query': 'dog', 'sampling': 5},
        {'query': 'dog', 'sampling': 9},
        {'query': 'dog', 'sampling': 5},  # a tie, which the id decides
        {'query': None, 'sampling': 1},
        {'query': None, 'sampling': 2},
        {'query': None, 'sampling': 3},
        {'query': '', 'sampling': top - 1},
    ]
    kept, drops, _ = run(tmp_path, rows, engine=engine, max_per_query=2)
    assert kept == [1, 3, 4, 5, 6, 7]
    assert drops == {0: 'unbalanced', 2: 'unbalanced'}
    kept, *_ = run(tmp_path, rows, engine=engine, max_per_query=3)
    assert kept == [1, 2, 3, 4, 5, 6, 7]


def test_balance_of_texts_comes_after_that_of_queries(tmp_path, engine):
    rows = [
        {'query': 'dog', 'label': 1, 'sampling': 3},
        {'query': 'dog', 'label': 1, 'sampling': 1},
        {'query': 'dog', 'label': 2, 'sampling': 2},
        {'query': 'cat', 'label': 2, 'sampling': 4},
    ]
    kept, *_ = run(tmp_path, rows, engine=engine, max_per_query=2, max_per_text=1)
    assert kept == [1, 2]


def test_order_of_writing_and_short_texts(tmp_path, engine):
    rows = [
        {'sampling': value, 'words': words} for value, words in ((2**63, 2), (4, 3), (2**64 - 1, 1), (4, 9), (0, 2))
    ]
    _, _, kept = run(tmp_path, rows, engine=engine, short_words=2)
    assert kept == {
        'id': [0, 1, 2, 3, 4],
        'position': [3, 1, 4, 2, 0],
        'short': [True, False, True, False, True],
    }


def pictures_of(count):
    return [int(value) for value in np.random.default_rng(1).integers(0, 2**64, count, np.uint64)]


def planted(tmp_path, shards=3, rows=400, width=None):
    """Sidecars in which all reasons occur, and each tie."""
    generator = np.random.default_rng(0)
    pictures = pictures_of(150)
    paths = []
    for shard in range(shards):
        table = []
        for _ in range(rows):
            flips = sum(1 << int(bit) for bit in generator.integers(0, 64, generator.integers(0, 5)))
            table.append(
                {
                    'phash': pictures[generator.integers(150)] ^ flips,
                    'label': int(generator.integers(40)),
                    'query': [None, 'dog', 'Dog', 'İ'][generator.integers(4)],
                    'sampling': int(generator.integers(0, 2**64, dtype=np.uint64)) if generator.random() < 0.7 else 7,
                    'score': [0.1, 0.5, 0.9, math.nan, math.inf][generator.integers(5)],
                    'words': int(generator.integers(1, 9)),
                    'drop': 'too_small' if generator.random() < 0.1 else None,
                }
            )
        paths.append(write_sidecar(tmp_path / f'many/{shard:05}.parquet', table, shard))
    return paths


def test_the_same_bytes_with_every_engine_and_number_of_threads(tmp_path):
    pytest.importorskip('duckdb', reason='runs where the extra curate is installed')
    paths = planted(tmp_path)
    listed = [write_sidecar(tmp_path / 'test/00000.parquet', [{'phash': value} for value in pictures_of(8)])]
    settings = {'one': {'threads': 1}, 'two': {'threads': 2, 'memory': '64MB'}, 'daft': {'engine': 'daft'}}
    found = {}
    for name, setting in settings.items():
        if name == 'daft':
            pytest.importorskip('daft', reason='runs where the extra cluster is installed')
        options = StageBOptions(
            min_score=0.3, duplicates='texts', max_per_query=60, max_per_text=7, short_words=2, **setting
        )
        # their order decides nothing either
        select(paths if name == 'one' else paths[::-1], tmp_path / name, options, listed)
        found[name] = [(tmp_path / name / file).read_bytes() for file in ('kept.parquet', 'drops.parquet')]
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == ['drops.parquet', 'kept.parquet']
    assert found['one'] == found['two'] == found['daft']
    kept, drops, _ = read_selected(tmp_path / 'one')
    assert kept == sorted(kept) and list(drops) == sorted(drops)
    assert set(drops.values()) == set(STAGE_B) | {'low_score', 'score_not_finite'}
    # planted = kept + dropped: those of stage A are in their sidecars
    before = [
        i
        for path in paths
        for i, drop in zip(*parquet.read_table(path, columns=['id', 'drop']).to_pydict().values(), strict=True)
        if drop is None
    ]
    assert sorted([*kept, *drops]) == sorted(before)


def test_crops_go_by_their_embeddings(tmp_path, engine):
    # cosines: 0 and 1 0.96, 0 and 2 0.6, 1 and 2 0.8; 3 is 0 again, longer; 4 has no direction, 5 no number
    rows = [
        {'embedding': value}
        for value in ([1, 0, 0], [0.96, 0.28, 0], [0.6, 0.8, 0], [9, 0, 0], [0, 0, 0], [math.nan, 1, 0], [0, 0, 1])
    ]
    kept, drops, _ = run(tmp_path, rows, width=3, engine=engine, near_cosine=0.9)
    assert kept == [0, 2, 4, 5, 6]
    assert drops == {1: 'near_duplicate', 3: 'near_duplicate'}
    assert run(tmp_path, rows, width=3, engine=engine, near_cosine=0.97)[0] == [0, 1, 2, 4, 5, 6]
    listed = write_sidecar(tmp_path / 'test/00000.parquet', [{'phash': FAR[50], 'embedding': [0, 0.1, 2]}], width=3)
    kept, drops, _ = run(tmp_path, rows, [listed], width=3, engine=engine, near_cosine=0.9, duplicates='texts')
    assert kept == [0, 1, 2, 3, 4, 5]
    assert drops == {6: 'evaluation_duplicate'}


def test_what_stage_a_has_not_measured_is_asked_for(tmp_path):
    pytest.importorskip('duckdb', reason='runs where the extra curate is installed')
    with pytest.raises(UsageError, match='near_cosine needs embeddings, which .*00000.parquet lacks; run stage A with'):
        run(tmp_path, [{}], near_cosine=0.9)
    with pytest.raises(UsageError, match='there are no sidecars to select from; run stage A first'):
        select([], tmp_path, StageBOptions())
    (tmp_path / 'cut.parquet').write_bytes(b'PAR1')
    with pytest.raises(DataError, match='cut.parquet is no sidecar .*; run stage A again'):
        select([tmp_path / 'cut.parquet'], tmp_path, StageBOptions())
    parquet.write_table(pa.table({'id': [1], 'label': [2]}), tmp_path / 'other.parquet')
    with pytest.raises(DataError, match='other.parquet is no sidecar, it lacks the columns phash, query, words, samp'):
        select([tmp_path / 'other.parquet'], tmp_path, StageBOptions())


def test_a_sidecar_given_twice_is_refused(tmp_path, engine):
    sidecar = write_sidecar(tmp_path / 'a.parquet', [{}, {}], shard=1)
    with pytest.raises(DataError, match=f'two sidecars have the sample {make_id(1, 0)}; give each sidecar once'):
        select([sidecar, sidecar], tmp_path / 'b', StageBOptions(engine=engine, duplicates='all'))
    assert not (tmp_path / 'b/kept.parquet').exists()


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [
        ({'min_score': math.nan}, 'stage_b.min_score=nan must be from -1 to 1, or None'),
        ({'near_cosine': 95}, 'stage_b.near_cosine=95 must be from -1 to 1, or None'),
        ({'duplicates': 'first'}, "stage_b.duplicates='first' must be one of one, texts, all"),
        ({'engine': 'spark'}, "stage_b.engine='spark' must be one of duckdb, daft, daft-ray"),
        ({'near_bits': 7}, 'stage_b.near_bits=7 must be a whole number from 0 to 6'),
        ({'max_per_query': 0}, 'stage_b.max_per_query=0 must be a whole number from 1, or None'),
        ({'max_per_text': 2.5}, 'stage_b.max_per_text=2.5 must be a whole number from 1, or None'),
        ({'short_words': -1}, 'stage_b.short_words=-1 must be a whole number from 0'),
        ({'threads': 0}, 'stage_b.threads=0 must be a whole number from 1, or None'),
        ({'memory': 8}, "stage_b.memory=8 must be a size such as '8GB', or None"),
        ({'memory': 'lots'}, "stage_b.memory='lots' must be a size such as '8GB', or None"),
    ],
)
def test_wrong_options_are_one_sentence(options, sentence):
    with pytest.raises(UsageError, match=f'^{sentence}$'):
        StageBOptions(**options)


def test_pairs_are_shuffled_within_windows_of_raw_shards(tmp_path, monkeypatch):
    pytest.importorskip('duckdb')
    hashes = iter(FAR)
    sidecars = [
        write_sidecar(
            tmp_path / f'a/{shard}.parquet', [{'phash': next(hashes), 'sampling': by} for by in draws], shard=shard
        )
        for shard, draws in enumerate([(5, 1), (4, 2), (0, 3)])
    ]

    def order():
        select(sidecars, tmp_path / 'b', StageBOptions())
        kept = read_selected(tmp_path / 'b')[2]
        return [sample_id for _, sample_id in sorted(zip(kept['position'], kept['id'], strict=True))]

    assert order() == [make_id(*at) for at in ((2, 0), (0, 1), (1, 1), (2, 1), (1, 0), (0, 0))]
    monkeypatch.setattr('florence_mm.curation.stage_b._WINDOW_BITS', 1)
    assert order() == [make_id(*at) for at in ((0, 1), (1, 1), (1, 0), (0, 0), (2, 0), (2, 1))]


@pytest.mark.parametrize(
    ('engine', 'module', 'extra'),
    [('duckdb', 'duckdb', 'curate'), ('daft', 'daft', 'cluster'), ('daft-ray', 'ray', 'cluster')],
)
def test_an_engine_that_is_not_installed(tmp_path, monkeypatch, engine, module, extra):
    if module == 'ray':
        pytest.importorskip('daft', reason='runs where the extra cluster is installed')
    monkeypatch.setitem(sys.modules, module, None)  # makes its import fail
    with pytest.raises(UsageError, match=rf'engine="\S+" needs .* pip install "florence_mm\[{extra}\]"'):
        run(tmp_path, [{}], engine=engine)


_ON_RAY = """
import sys
from pathlib import Path
from florence_mm.curation.options import StageBOptions
from florence_mm.curation.stage_b import select
folder = Path(sys.argv[1])
options = StageBOptions(min_score=0.3, max_per_query=60, max_per_text=7, engine='daft-ray')
select(sorted((folder / 'many').iterdir()), folder / 'ray', options)
import ray
ray.shutdown()
"""


@pytest.mark.slow
def test_the_same_bytes_on_ray(tmp_path):
    """Daft has one runner a process, so another process; Ray takes some twenty seconds to start."""
    pytest.importorskip('ray', reason='runs where the extra cluster is installed')
    paths = planted(tmp_path)
    select(paths, tmp_path / 'here', StageBOptions(min_score=0.3, max_per_query=60, max_per_text=7))
    subprocess.run([sys.executable, '-W', 'ignore', '-c', _ON_RAY, str(tmp_path)], check=True, timeout=300)
    for name in ('kept.parquet', 'drops.parquet'):
        assert (tmp_path / 'ray' / name).read_bytes() == (tmp_path / 'here' / name).read_bytes()
