"""The runner of a suite: resumption, failures, missing data and models, the table."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_protocols import CONFIG, Fake, entries, make_plan, ran, table_of
from forks import start

from florence_mm.errors import UsageError
from florence_mm.models.protocol import TwoTowerModel
from florence_mm.protocols.base import Entry
from florence_mm.protocols.suite import run_suite
from florence_mm.protocols.suites import SUITES, select

ABOUT = {'suite': 'fake'}


def statuses(rows):
    return [(row.name, row.status, row.kept) for row in rows]


def test_a_finished_protocol_is_not_run_again(tmp_path):
    plan, protocols = make_plan(tmp_path), entries(Fake('retrieval/a'), Fake('retrieval/b', score=0.25))
    first = run_suite(protocols, plan, ABOUT)
    second = run_suite(protocols, plan, ABOUT)
    assert ran(plan) == ['retrieval/a', 'retrieval/b']
    assert statuses(first) == [('retrieval/a', 'done', False), ('retrieval/b', 'done', False)]
    assert statuses(second) == [('retrieval/a', 'done', True), ('retrieval/b', 'done', True)]
    assert [row.figures['score'] for row in second] == [0.5, 0.25]
    assert [line['ours'] for line in table_of(plan)['table']] == [50.0, 25.0]


@pytest.mark.parametrize(
    ('file', 'text', 'again'),
    [
        ('towers.pth', '2', True),
        ('data/set.json', '[1]', True),
        ('data/images/new.png', 'x', True),
        ('config.py', 'test_evaluator = dict(type="florence_mm.ZeroShotAccuracy")\n', True),
        # changes no figure
        ('config.py', 'test_dataloader["batch_size"] = 8\n', False),
        ('elsewhere.txt', 'x', False),
    ],
)
def test_a_result_holds_for_its_checkpoint_settings_and_data(tmp_path, file, text, again):
    plan, protocols = make_plan(tmp_path), entries(Fake('retrieval/a'))
    run_suite(protocols, plan, ABOUT)
    path = tmp_path / file
    before = path.read_text() if file == 'config.py' else ''
    path.write_text(before + text)
    (row,) = run_suite(protocols, plan, ABOUT)
    assert row.kept is not again
    assert len(ran(plan)) == 1 + again
    if file == 'towers.pth':
        assert row.figures['checkpoint'] == 2
        path.write_text('1')
        (row,) = run_suite(protocols, plan, ABOUT)  # the result of the first checkpoint is still there
        assert row.kept and row.figures['checkpoint'] == 1


def test_a_picture_that_moves_to_another_class_is_evaluated_again(tmp_path):
    plan, protocols = make_plan(tmp_path), entries(Fake('retrieval/a'))
    images = plan.data_root / 'images'
    for name in ('cat', 'dog'):
        (images / name).mkdir()
    (images / 'cat/1.png').write_text('x')
    (images / 'around').symlink_to(images)  # a circle
    run_suite(protocols, plan, ABOUT)
    assert run_suite(protocols, plan, ABOUT)[0].kept
    (images / 'cat/1.png').rename(images / 'dog/1.png')  # number, sizes and times stay
    assert not run_suite(protocols, plan, ABOUT)[0].kept


def test_other_settings_of_a_protocol_run_again_and_a_cut_result_too(tmp_path):
    plan = make_plan(tmp_path)
    run_suite(entries(Fake('retrieval/a')), plan, ABOUT)
    (row,) = run_suite(entries(Fake('retrieval/a', score=0.75)), plan, ABOUT)
    assert row.figures['score'] == 0.75
    for file in (plan.out_dir / 'protocols/retrieval/a').glob('result-*.json'):
        file.write_text(file.read_text()[:20])
    (row,) = run_suite(entries(Fake('retrieval/a')), plan, ABOUT)
    assert not row.kept and row.figures['score'] == 0.5


def test_a_killed_suite_goes_on_with_the_next_protocol(tmp_path):
    plan = make_plan(tmp_path)
    names = [f'retrieval/{name}' for name in 'abc']

    def run_until_the_second(number=9):
        def die(line):
            if line.startswith('[2/3]'):
                os.kill(os.getpid(), number)

        run_suite(entries(*map(Fake, names)), make_plan(tmp_path, tell=die), ABOUT)

    child = start(run_until_the_second)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -9
    assert [line['ours'] for line in table_of(plan)['table']] == [50.0]  # of what had been done
    rows = run_suite(entries(*map(Fake, names)), plan, ABOUT)
    assert [row.kept for row in rows] == [True, False, False]
    assert ran(plan) == names


def test_ctrl_c_ends_the_suite_and_keeps_what_is_done(tmp_path):
    plan = make_plan(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_suite(entries(Fake('retrieval/a'), Fake('retrieval/b', stops=True), Fake('retrieval/c')), plan, ABOUT)
    rows = run_suite(entries(Fake('retrieval/a'), Fake('retrieval/b'), Fake('retrieval/c')), plan, ABOUT)
    assert [row.kept for row in rows] == [True, False, False]


def test_what_fails_or_is_missing_does_not_end_the_others(tmp_path):
    plan = make_plan(tmp_path)
    protocols = [
        *entries(Fake('retrieval/a', fails=True), Fake('retrieval/b', absent=True)),
        Entry(Fake('retrieval/c'), config=plan.config, trained=True, variables={'SET': 'x'}),
        *entries(Fake('retrieval/d')),
    ]
    rows = run_suite(protocols, plan, ABOUT)
    assert [row.status for row in rows] == ['failed', 'missing', 'no checkpoint', 'done']
    trace = plan.out_dir / 'protocols/retrieval/a/error.txt'
    assert rows[0].note == f'RuntimeError: the GPU is on fire ({trace} has the stack trace)'
    assert 'in run' in trace.read_text()
    assert rows[1].note == 'X is not there: download it'
    assert f'SET=x python tools/train.py {plan.config}' in rows[2].note
    assert '--task-checkpoint retrieval/c FILE' in rows[2].note
    assert ran(plan) == ['retrieval/a', 'retrieval/d']
    page = (plan.out_dir / 'results.md').read_text()
    assert '| retrieval/d | score | 50.0 |  |  |  |' in page
    assert '- **retrieval/b**: X is not there' in page.split('## Missing')[1]
    assert '- **retrieval/a**: RuntimeError' in page.split('## Failed')[1]


class Captions(Fake):
    """Compares images with texts."""

    needs = TwoTowerModel


def test_what_a_model_cannot_do_is_no_failure_and_asks_for_no_data(tmp_path):
    plan = make_plan(tmp_path)
    towers = CONFIG.replace("'florence_mm.UniCL'", "'florence_mm.{}', image_encoder=dict(type='{}', arch='{}')")
    files = {}
    for name, content in {
        'towers': ('UniCL', 'florence_mm.CoSwin', 'tiny'),
        'no_texts': ('CoSwin', 'florence_mm.CoSwin', 'tiny'),
        'public': ('UniCL', 'CLIPVisionTower', 'base-32'),
        'larger': ('UniCL', 'CoSwin', 'huge'),
        'video': ('UniCL', 'VideoCoSwin', 'tiny'),
    }.items():
        files[name] = str(tmp_path / f'{name}.py')
        Path(files[name]).write_text(towers.format(*content))

    def status(model, *protocols, **values):
        rows = run_suite(protocols, make_plan(tmp_path, config=files[model], **values), ABOUT)
        assert all(row.note for row in rows if row.status != 'done')
        return [row.status for row in rows]

    captions = Entry(Captions('retrieval/a', absent=True))
    assert status('no_texts', captions) == ['not for this model']
    assert status('public', captions) == ['missing']
    clips, trained = Entry(Fake('video/a'), files['video']), Entry(Fake('vqa/a'), files['larger'], trained=True)
    assert status('towers', clips, trained) == ['done', 'no checkpoint']
    assert status('public', clips, trained) == ['not for this model'] * 2
    assert status('larger', clips, trained) == ['not for this model', 'no checkpoint']
    page = (plan.out_dir / 'results.md').read_text().split('## Not for this model')[1]
    assert "**video/a**: the suite's model for it has CoSwin tiny, and the evaluated one has CoSwin huge; give" in page
    # what its user gives is evaluated
    assert status('public', clips, task_configs={'video/a': files['video']}) == ['done']
    assert status('public', trained, task_checkpoints={'vqa/a': plan.checkpoint}) == ['done']
    assert status('public', trained, published=lambda config: plan.checkpoint) == ['done']


def test_a_figure_that_is_no_number_fails_and_is_not_kept(tmp_path):
    plan = make_plan(tmp_path)
    for _ in range(2):
        (row,) = run_suite(entries(Fake('retrieval/a', score=float('nan'))), plan, ABOUT)
        assert row.status == 'failed' and row.note.startswith('score of retrieval/a is nan, as where nothing is')
    assert ran(plan) == ['retrieval/a'] * 2
    assert 'NaN' not in (plan.out_dir / 'results.json').read_text()


def test_a_model_that_cannot_be_loaded_is_tried_once(tmp_path):
    tried = []

    def load(cfg, checkpoint):
        tried.append(checkpoint)
        raise ValueError('it is damaged')

    plan = make_plan(tmp_path, load=load)
    rows = run_suite(entries(Fake('retrieval/a'), Fake('retrieval/b')), plan, ABOUT)
    assert [row.status for row in rows] == ['failed', 'failed'] and len(tried) == 1
    assert all('it is damaged' in row.note for row in rows)


def test_protocols_take_their_own_checkpoints_and_configs(tmp_path):
    (tmp_path / 'own.pth').write_text('7')
    (tmp_path / 'published.pth').write_text('8')
    (tmp_path / 'other.py').write_text("_base_ = './config.py'\nnote = 'other'\n")
    seen = {}

    def load(cfg, checkpoint):
        seen[checkpoint.rpartition('/')[2]] = cfg.get('note')
        return SimpleNamespace(cfg=cfg, checkpoint=checkpoint)

    plan = make_plan(
        tmp_path,
        load=load,
        task_checkpoints={'detection/full': str(tmp_path / 'own.pth')},
        task_configs={'detection/full/*': str(tmp_path / 'other.py')},
        published={str(tmp_path / 'config.py'): str(tmp_path / 'published.pth')}.get,
    )
    protocols = [
        Entry(Fake('detection/full/a'), config=plan.config, trained=True),
        Entry(Fake('detection/b'), config=plan.config, trained=True),
        Entry(Fake('detection/c'), config=plan.config),
    ]
    rows = run_suite(protocols, plan, ABOUT)
    assert [row.figures['checkpoint'] for row in rows] == [7, 8, 1]
    assert seen == {'own.pth': 'other', 'published.pth': None, 'towers.pth': None}


def test_select():
    names = [entry.protocol.name for entry in select('florence', ['detection/zero-shot', '*/msrvtt*'])]
    assert len(names) == 12 and names[-1] == 'video/msrvtt-zero-shot'
    assert all(len({entry.protocol.name for entry in suite}) == len(suite) for suite in SUITES.values())
    with pytest.raises(UsageError, match="no protocol of the suite florence matches 'detection/cocoo'; did you mean"):
        select('florence', ['vqa', 'detection/cocoo'])
