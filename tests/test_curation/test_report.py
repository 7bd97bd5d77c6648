"""The report of small runs, counted by hand."""

import json

import cv2
import numpy as np
import pytest
from columns_by_hand import FAR, write_sidecar

from florence_mm.curation.inputs import find_shards
from florence_mm.curation.options import InputOptions, StageAOptions, StageBOptions
from florence_mm.curation.report import EDGES, bar_labels, describe, make_report
from florence_mm.curation.stage_a import process_shard, sidecar_path
from florence_mm.curation.stage_b import select
from florence_mm.visualization.curation import draw_report

pytest.importorskip('duckdb', reason='stage B runs where the extra curate is installed')


def by_hand(folder):
    """Two sidecars: eight pairs, of which stage A drops two, and stage B two."""
    rows = [
        {'query': 'dog', 'label': 7, 'words': 1, 'score': 0.26, 'width': 640, 'height': 480, 'text': 'a'},
        {'query': 'dog', 'label': 7, 'words': 1, 'score': 0.31, 'width': 100, 'height': 250, 'text': 'a'},
        {'query': 'a|b', 'words': 5, 'score': float('nan')},
        {'phash': 0, 'width': 0, 'height': 0, 'drop': 'undecodable', 'query': 'dog', 'words': 2},
        {'phash': FAR[0] ^ 1, 'query': 'dog'},
    ]
    more = [
        {'phash': FAR[30], 'words': 120, 'label': 7},
        {'phash': FAR[31], 'words': 4, 'query': 'cat'},
        {'phash': FAR[32], 'width': 20, 'height': 20, 'drop': 'too_small', 'label': -1, 'words': 0},
    ]
    sidecars = [write_sidecar(folder / 'a/0.parquet', rows), write_sidecar(folder / 'a/1.parquet', more, shard=1)]
    select(sidecars, folder / 'b', StageBOptions(short_words=1))
    return sidecars, folder / 'b'


def test_the_numbers_are_right(tmp_path):
    content = make_report(*by_hand(tmp_path), count_tokens=len).content
    assert content['pairs'] == 8 and content['kept'] == 4
    assert content['dropped'] == {
        'stage A': {'undecodable': 1, 'too_small': 1, 'score_not_finite': 1},
        'stage B': {'near_duplicate': 1},
    }
    # three kept pairs have the label 7
    assert (content['texts'], content['pictures'], content['short_texts'], content['words']) == (2, 4, 2, 126)
    assert content['queries'] == 2 and content['top_queries'] == [['dog', 2], ['cat', 1]]
    assert content['histograms']['kept pairs of a text']['kept'] == [1, 0, 1] + [0] * 7
    assert content['histograms']['kept pairs of a query']['kept'] == [1, 1] + [0] * 8
    words = content['histograms']['words of a text']
    assert dict(zip(words['from'], words['read'], strict=True)) == {
        **dict.fromkeys(EDGES['words of a text'], 0),
        **{1: 2, 2: 1, 3: 1, 4: 1, 5: 1, 100: 1},
    }
    assert dict(zip(words['from'], words['kept'], strict=True)) == {
        **dict.fromkeys(EDGES['words of a text'], 0),
        **{1: 2, 4: 1, 100: 1},
    }
    sides = content['histograms']['shorter side, pixels']
    assert sum(sides['read']) == 7 and sides['read'][0] == 1 and sides['kept'][sides['from'].index(384)] == 1
    aspect = content['histograms']['longer side / shorter side']
    assert aspect['kept'][aspect['from'].index(2)] == 1
    score = content['histograms']['score']
    assert score['from'][0] is None and sum(score['read']) == 2
    assert score['kept'][score['from'].index(0.25)] == score['kept'][score['from'].index(0.3)] == 1
    # texts 'a', 'a', 'text 1 0' and 'text 1 1'
    assert content['tokens'] == {'total': 18, 'mean': 4.5, 'texts_counted': 4}


def test_it_is_written_as_json_and_to_be_read(tmp_path):
    report = make_report(*by_hand(tmp_path))
    report.write(tmp_path / 'out')
    assert json.loads((tmp_path / 'out/report.json').read_text()) == report.content
    text = (tmp_path / 'out/report.md').read_text()
    assert '4 of 8 pairs are kept (50.00 %), with 2 different texts, 4 different pictures and 126 words.' in text
    for line in ('| stage A | too_small | 1 | 12.50 % |', '| stage B | near_duplicate | 1 | 12.50 % |', '| dog | 2 |'):
        assert line in text.splitlines()
    assert 'tokens' not in text


def test_histograms_are_listed_without_their_empty_ends():
    content = {'pairs': 1, 'kept': 1, 'texts': 1, 'pictures': 1, 'words': 1, 'short_texts': 0, 'queries': 0}
    bars = {'from': [0, 1, 2, 3, 4], 'read': [0, 2, 0, 1, 0], 'kept': [0, 0, 0, 1, 0]}
    text = describe({**content, 'dropped': {}, 'histograms': {'words of a text': bars}, 'top_queries': []})
    rows = text.splitlines()
    start = rows.index('| words of a text | read | kept |')
    assert rows[start + 2 :] == ['| 1 | 2 | 0 |', '| 2 | 0 | 0 |', '| 3 | 1 | 1 |']


def test_a_query_cannot_break_the_table():
    content = {'pairs': 1, 'kept': 1, 'texts': 1, 'pictures': 1, 'words': 1, 'short_texts': 0, 'queries': 1}
    text = describe({**content, 'dropped': {}, 'histograms': {}, 'top_queries': [['a|b\nc', 1]]})
    assert '| a\\|b c | 1 |' in text


def test_bars_have_names():
    assert bar_labels([None, 0.5]) == ['below 0.5', 'from 0.5']
    assert bar_labels([0, 1, 5]) == ['0', '1 to 4', 'from 5']


def test_samples_are_drawn_for_each_reason(tmp_path):
    raw = tmp_path / 'raw'
    raw.mkdir()
    for number, colour in enumerate([(0, 0, 255), (255, 0, 0), (0, 255, 0)]):  # BGR
        picture = np.full((64, 64, 3), colour, np.uint8)
        picture[: 20 + 8 * number, 20 * number :] = 255
        cv2.imwrite(str(raw / f'{number}.png'), picture)
        (raw / f'{number}.txt').write_text(f'colour {number}')
    cv2.imwrite(str(raw / 'tiny.png'), np.zeros((8, 8, 3), np.uint8))
    (raw / 'tiny.txt').write_text('tiny')
    shards = find_shards([InputOptions('folder', str(raw))], tmp_path / 'lists')
    for shard in shards:
        process_shard(shard, StageAOptions(), tmp_path)
    sidecars = [sidecar_path(tmp_path, shard.number) for shard in shards]
    select(sidecars, tmp_path / 'b', StageBOptions())
    report = make_report(sidecars, tmp_path / 'b', shards)
    assert {name: len(samples) for name, samples in report.samples.items()} == {'kept': 3, 'too_small': 1}
    assert {sample.text for sample in report.samples['kept']} == {'colour 0', 'colour 1', 'colour 2'}
    for sample in report.samples['kept']:
        assert sample.data == (raw / f'{sample.text[-1]}.png').read_bytes()

    draw_report(report, tmp_path / 'out')
    assert {path.name for path in (tmp_path / 'out').iterdir()} == {
        'histograms.png',
        'samples_kept.png',
        'samples_too_small.png',
    }
    sheet = cv2.imread(str(tmp_path / 'out/samples_kept.png'))[..., ::-1]
    for colour in ((255, 0, 0), (0, 0, 255), (0, 255, 0)):
        assert (sheet == colour).all(axis=2).sum() > 1000
    first = (tmp_path / 'out/histograms.png').read_bytes()
    (tmp_path / 'out/samples_aspect.png').write_bytes(b'of an earlier run')
    draw_report(report, tmp_path / 'out')
    assert (tmp_path / 'out/histograms.png').read_bytes() == first
    assert not (tmp_path / 'out/samples_aspect.png').exists()


def test_only_the_first_by_sampling_are_samples(tmp_path, monkeypatch):
    monkeypatch.setattr('florence_mm.curation.report.TOKEN_TEXTS', 2)
    sidecars = [
        write_sidecar(
            tmp_path / f'a/{shard}.parquet',
            [{'phash': FAR[3 * shard + i], 'sampling': value, 'text': str(value)} for i, value in enumerate(values)],
            shard,
        )
        for shard, values in enumerate([(50, 4, 70), (2**64 - 1, 6, 30), (3, 2**63, 5)])
    ]
    select(sidecars, tmp_path / 'b', StageBOptions())
    seen = []
    content = make_report(sidecars, tmp_path / 'b', count_tokens=lambda text: seen.append(text) or 5).content
    assert seen == ['3', '4']
    assert content['tokens'] == {'total': 45, 'mean': 5.0, 'texts_counted': 2}
