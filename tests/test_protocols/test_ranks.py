"""Evaluation in two processes: parts in order and once, the figures of one process, errors of one that end no other."""

import json
import time

import pytest
import torch
from digit_towers import trained
from fake_protocols import make_plan, table_of
from forks import as_ranks, start, wait
from mmengine.dist import get_dist_info, init_dist

from florence_mm.errors import DataError
from florence_mm.protocols.base import Entry
from florence_mm.protocols.classification import with_digits
from florence_mm.protocols.features import FeatureCache, in_parts
from florence_mm.protocols.few_shot import FewShotClassification
from florence_mm.protocols.linear_probe import LinearProbe
from florence_mm.protocols.ranks import from_first, gather, is_first, my_part, together
from florence_mm.protocols.sets import CD_FSL, CLIP_PROTOCOL
from florence_mm.protocols.suite import run_suite
from florence_mm.protocols.zero_shot import ZeroShotClassification

SETS = {data.name: with_digits(data) for data in (*CLIP_PROTOCOL, *CD_FSL)}
PROTOCOLS = (
    ZeroShotClassification(SETS['food101']),
    ZeroShotClassification(SETS['dtd']),
    LinearProbe(SETS['dtd'], 'val'),
    FewShotClassification(with_digits(CD_FSL[1], 22), shots=5, episodes=50),
)


def in_two(work):
    """Run work in two processes of a group."""

    def joined():
        init_dist('pytorch')
        work()

    as_ranks(joined, 2)


def test_parts_of_one_process_are_the_whole():
    assert my_part(7) == slice(0, 7) and is_first()
    assert gather(lambda: 3) == [3] and from_first(lambda: 4) == together(lambda: 4) == 4
    with pytest.raises(DataError, match='no'):
        together(lambda: gather(_refuse))


def _refuse():
    raise DataError('no')


@pytest.mark.parametrize('number', [1, 2, 5, 8])
def test_rows_of_two_processes_are_in_order_and_once(number):
    def work():
        asked = []
        rows = in_parts(list(range(number)), lambda part: asked.extend(part) or torch.tensor(part)[None] * 10, dim=1)
        assert rows.tolist() == [[10 * place for place in range(number)]]
        everywhere = gather(lambda: asked)
        assert sum(everywhere, []) == list(range(number)) and abs(len(everywhere[0]) - len(everywhere[1])) <= 1

    in_two(work)


def test_an_error_of_one_process_is_one_of_both_wherever_it_happens():
    def fails(place):
        """Steps of a protocol, of which one fails in the second process."""
        rank = get_dist_info()[0]
        found = []
        for step in range(3):
            if place == ('between', step) and rank == 1:
                raise DataError(f'between {step}')
            found += gather(lambda step=step: _refuse() if place == ('inside', step) and rank == 1 else step)
        if place == 'at the end' and rank == 1:
            raise ValueError('a bug')
        return found

    def work():
        for place in (None, ('inside', 0), ('between', 0), ('between', 2), ('inside', 2), 'at the end', None):
            try:
                assert together(lambda place=place: fails(place)) == [0, 0, 1, 1, 2, 2] and place is None
            except (DataError, RuntimeError, ValueError) as error:
                expected = {'inside': 'no', 'between': f'between {place[1]}'}.get(place[0], 'a bug')
                assert expected in str(error)
            # both go on with the same step
            assert gather(lambda place=place: place) == [place] * 2

    in_two(work)


def plan_of(folder, data, **values):
    return make_plan(folder, load=lambda cfg, checkpoint: trained(0), data_root=data, **values)


def figures_of(folder):
    content = json.loads((folder / 'out/results.json').read_text())
    return {row['name']: row['figures'] for row in content['protocols']}


def test_figures_are_those_of_one_process(tmp_path):
    data = tmp_path / 'data'
    make_plan(tmp_path)
    trained(0)
    told = tmp_path / 'told'

    def two():
        plan = plan_of(
            tmp_path, data, out_dir=tmp_path / 'two/out', tell=lambda line: told.open('a').write(f'{line}\n')
        )
        rows = run_suite([Entry(protocol) for protocol in PROTOCOLS], plan, {})
        assert [row.status for row in rows] == ['done'] * 4
        again = run_suite([Entry(protocol) for protocol in PROTOCOLS], plan, {})
        assert all(row.kept for row in again) and [row.figures for row in again] == [row.figures for row in rows]

    in_two(two)
    run_suite([Entry(protocol) for protocol in PROTOCOLS], plan_of(tmp_path, data, out_dir=tmp_path / 'one/out'), {})
    one, both = figures_of(tmp_path / 'one'), figures_of(tmp_path / 'two')
    assert list(one) == [protocol.name for protocol in PROTOCOLS]
    for name, figures in one.items():
        assert both[name] == pytest.approx(figures, abs=0.011)  # an image of 100 at the edge
    # the first alone tells, and everything once
    lines = [line for line in told.read_text().splitlines() if line.startswith('[')]
    assert len(lines) == len(PROTOCOLS) and len({line.split(']')[0] for line in lines}) == len(PROTOCOLS)
    images = PROTOCOLS[0].data.load(data, 'test')
    kept = FeatureCache(trained(0), tmp_path / 'two/out/features').get(images, f'{PROTOCOLS[0].data.name}-test')
    fresh = FeatureCache(trained(0), tmp_path / 'fresh').get(images, 'fresh')
    torch.testing.assert_close(kept, fresh, atol=1e-5, rtol=1e-4)
    assert not torch.equal(kept[:, 0], kept[:, -1])
    assert len(list((tmp_path / 'fresh').iterdir())) == 1


def test_a_picture_that_one_process_cannot_read_fails_its_protocol_alone(tmp_path):
    data = tmp_path / 'data'
    make_plan(tmp_path)
    for protocol in PROTOCOLS[:2]:
        protocol.prepare(data)
    last = PROTOCOLS[0].data.load(data, 'test').images[-1]
    trained(0)

    def two():
        rows = run_suite([Entry(Damaged(protocol.data)) for protocol in PROTOCOLS[:2]], plan_of(tmp_path, data), {})
        assert [row.status for row in rows] == ['failed', 'done'] and str(last) in rows[0].note

    last.write_bytes(b'no picture')
    in_two(two)
    assert [row['status'] for row in table_of(plan_of(tmp_path, data))['protocols']] == ['failed', 'done']


class Damaged(ZeroShotClassification):
    """Reads the data as they are."""

    def prepare(self, data_root):
        """Leave the damaged file."""


def test_killed_processes_go_on_alone(tmp_path):
    data = tmp_path / 'data'
    make_plan(tmp_path)
    protocol = PROTOCOLS[3]
    protocol.prepare(data)
    whole = protocol.run(trained(0), data, tmp_path / 'whole')

    def two():
        real, calls = FewShotClassification._frozen_episodes, []

        def stops(self, features, labels, first):
            calls.append(first)
            if len(calls) == 2:
                # the first process ends the other, which writes what both have
                while not (tmp_path / 'stopped/episodes.json').exists():
                    time.sleep(0.01)
                raise SystemExit(3)
            return real(self, features, labels, first)

        FewShotClassification._frozen_episodes = stops
        init_dist('pytorch')
        protocol.run(trained(0), data, tmp_path / 'stopped')

    assert wait([start(lambda: as_ranks(two, 2))]) == [1]
    assert len(json.loads((tmp_path / 'stopped/episodes.json').read_text())['accuracies']) == 40
    assert protocol.run(trained(0), data, tmp_path / 'stopped') == whole
