"""The table of a suite and its parts: figures, means, time left, paths, what is missing."""

import pytest

from florence_mm.protocols import paper
from florence_mm.protocols.base import DataSource
from florence_mm.protocols.locations import below, outputs_in
from florence_mm.protocols.progress import SuiteProgress
from florence_mm.protocols.sources import CROSS_DOMAIN, VQAV2
from florence_mm.protocols.suites import SUITES
from florence_mm.protocols.table import Row, counts, markdown, table_lines


def zero_shot_row(name, value):
    figures = {} if value is None else {'bbox/AP': value}
    status = 'missing' if value is None else 'done'
    return Row(f'detection/zero-shot/{name}', 'detection', 'bbox/AP', status, figures=figures)


def test_lines_have_the_paper_beside_ours():
    row = Row('video/msrvtt-zero-shot', 'video', 'retrieval/t2v_R@1', 'done', figures={'retrieval/t2v_R@1': 0.4})
    lines = table_lines([row])
    assert [(line.metric, line.ours, line.paper) for line in lines] == [
        ('retrieval/t2v_R@1', 40.0, 37.6),
        ('retrieval/t2v_R@5', None, 63.8),
        ('retrieval/t2v_R@10', None, 72.6),
    ]
    assert '| video/msrvtt-zero-shot | t2v R@1 | 40.0 | 37.6 | +2.4 | table 9 |' in markdown([row], {})


def test_the_interval_of_episodes_stands_beside_their_mean():
    figures = {'accuracy': 0.5704, 'interval': 0.0061}
    row = Row('few-shot/isic-5shot', 'few-shot', 'accuracy', 'done', figures=figures)
    assert '| few-shot/isic-5shot | accuracy | 57.0 ± 0.6 | 57.1 | -0.1 | table 4 |' in markdown([row], {})
    assert table_lines([row])[0].interval == pytest.approx(0.61)


def test_a_mean_is_over_all_sets_or_none():
    values = [0.1 * place for place in range(11)]
    mean = table_lines([zero_shot_row(*pair) for pair in zip(CROSS_DOMAIN, values, strict=True)])[-1]
    assert mean.name == 'detection/zero-shot/mean'
    assert mean.ours == pytest.approx(50.0) and mean.paper == 41.5
    mean = table_lines([zero_shot_row(name, None if name == 'bccd' else 0.5) for name in CROSS_DOMAIN])[-1]
    assert mean.ours is None and mean.status == '10 of 11 sets'
    # a part of the suite, or as many other sets, have no mean
    assert len(table_lines([zero_shot_row('bccd', 0.5)])) == 1
    assert len(table_lines([zero_shot_row(f'{name}-digits', 0.5) for name in CROSS_DOMAIN])) == 11


def test_a_part_of_a_set_has_a_star_and_no_difference():
    figures = {'bbox/AP': 0.5, 'present_images': 1200.0, 'official_images': 5000.0}
    row = Row('detection/coco', 'detection', 'bbox/AP', 'done', figures=figures)
    assert row.part == '1,200 of 5,000 samples'
    page = markdown([row], {})
    assert r'| detection/coco | AP | 50.0\* | 62 |  | table 6 |' in page
    listed = page.split('## Partial sets (\\*), ')[1].split('- ')[1]
    assert listed.strip() == '**detection/coco**: 1,200 of 5,000 samples'
    assert counts([row]) == '1 done (1 of partial sets)'
    # the mean over such sets is none of the paper's either
    rows = [zero_shot_row(name, 0.5) for name in CROSS_DOMAIN]
    rows[3] = Row(rows[3].name, 'detection', 'bbox/AP', 'done', figures=figures)
    assert [line.partial for line in table_lines(rows)] == [place in (3, 11) for place in range(12)]


def test_the_papers_means_are_those_of_its_sets():
    """Each set has two or three digits; table 4's and table 7's means must come out of them."""
    for mean in paper.MEANS:
        names = [name for name in mean.protocols if name in paper.PAPER]
        if names:
            assert len(names) == len(mean.protocols)
            value = sum(paper.PAPER[name].figures[mean.metric] for name in names) / len(names)
            assert value == pytest.approx(mean.value, abs=0.0501)


def test_every_figure_of_the_paper_for_these_protocols_has_a_protocol():
    groups = {'retrieval', 'detection', 'vqa', 'video'}
    ours = {entry.protocol.name: entry.protocol for entry in SUITES['florence'] if entry.protocol.group in groups}
    figures = {name for name in paper.PAPER if name.partition('/')[0] in groups}
    assert figures <= ours.keys()
    assert all(ours[name].metric in paper.PAPER[name].figures for name in figures)


def test_counts():
    rows = [Row('a', 'vqa', 'x', 'done', kept=True), Row('b', 'vqa', 'x', 'done'), Row('c', 'vqa', 'x', 'failed')]
    assert counts(rows) == '2 done (1 kept from before), 1 failed'


def test_time_left_is_at_the_pace_of_what_has_run():
    now, told = [0.0], []
    progress = SuiteProgress({'a': 1.0, 'b': 3.0, 'c': 2.0}, told.append, interval=5.0, clock=lambda: now[0])
    progress.start('a')
    now[0] = 4.0
    progress.update(0.5)  # not yet
    now[0] = 6.0
    progress.update(0.5)  # 6 s for 0.5 of 6: 66 s for the other 5.5
    now[0] = 10.0
    assert progress.end() == 10.0
    progress.start('b')  # 10 s for 1: 50 s for the other 5
    now[0] = 25.0
    progress.update(1 / 3)  # 25 s for 2: 50 s for the other 4
    assert told == [
        '[1/3] a',
        '[1/3] a: 50%, 1 min 6 s left over all',
        '[2/3] b, 50 s left over all',
        '[2/3] b: 33%, 50 s left over all',
    ]


def test_paths_below_another_root():
    config = {'ann_file': 'data/vqav2/x.json', 'data_prefix': {'img': 'data'}, 'classes': ('digits', 'data/c.txt', 3)}
    assert below(config, '/sets') == {
        'ann_file': '/sets/vqav2/x.json',
        'data_prefix': {'img': '/sets'},
        'classes': ('digits', '/sets/c.txt', 3),
    }
    assert below('database/x', '/sets') == 'database/x'
    assert outputs_in([{'type': 'A', 'outfile': 'work_dirs/a.json'}, {'type': 'B'}], 'out') == [
        {'type': 'A', 'outfile': 'out/a.json'},
        {'type': 'B'},
    ]


def test_missing_data_are_named_with_page_place_and_command(tmp_path):
    source = DataSource('Sets', 'https://sets.example', ('sets/images', 'sets/test.json'), 'prepare --out {data}/sets')
    (tmp_path / 'sets/images').mkdir(parents=True)
    assert source.missing(tmp_path) == (
        f'Sets is not there: download it from https://sets.example so that {tmp_path}/sets/test.json exists, '
        f'then run: prepare --out {tmp_path}/sets'
    )
    (tmp_path / 'sets/test.json').touch()
    assert source.missing(tmp_path) is None
    assert 'answers.txt' in VQAV2.missing(tmp_path)
