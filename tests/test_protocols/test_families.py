"""One table of all families: their data, their runs, and the rows, by toy configs and numbers known by hand."""

import importlib.util
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

from florence_mm.config.load import load_config
from florence_mm.config.pick import find_step, type_name, walk_steps
from florence_mm.errors import DataError, UsageError, one_sentence_errors
from florence_mm.protocols import family_runs
from florence_mm.protocols.families import FAMILIES, TASKS, FamilyTask
from florence_mm.protocols.family_configs import begins_with, config_of, last_checkpoint, trains
from florence_mm.protocols.family_data import Files, OwnData, keep_captions
from florence_mm.protocols.family_runs import Cell, FamilyRuns, in_own_process
from florence_mm.protocols.family_table import describe, panels_of, plain, row_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location('compare_families', ROOT / 'tools/compare_families.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cell(score=0.5, parameters=2_000_000, memory=300 * 2**20, **seconds):
    return Cell(score, {'vqa/accuracy': score}, 'a.pth', parameters, parameters // 2, memory, seconds)


# --- the table of families -------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', FAMILIES)
def test_configs_of_families_are_there_and_begin_with_runs_of_configs(name):
    for task in FAMILIES[name].models:
        chosen = FAMILIES[name].task(task)
        waiting = [chosen.config]
        while waiting:
            cfg = load_config(waiting.pop())
            for path in begins_with(cfg):
                before = load_config(config_of(path))
                assert Path(path).name == last_checkpoint(before)
                waiting.append(config_of(path))
        cfg = load_config(chosen.config)
        assert cfg.get('test_evaluator') is not None
        assert trains(cfg) == (cfg.get('load_from') is None)  # one that only tests says what it tests
    assert [FAMILIES[name].task(task) is None for task in TASKS] == [
        task not in FAMILIES[name].models for task in TASKS
    ]


# --- rows ------------------------------------------------------------------------------------------------------------


def test_a_row_adds_up_seconds_of_each_run_once_and_has_the_largest_model_and_test():
    cells = {
        'captions': cell(2.5, 3_000_000, 400 * 2**20, pretraining=100.0, captions=50.0),
        'vqa': cell(0.75, 2_000_000, 500 * 2**20, pretraining=100.0, vqa=7.0),
    }
    row = row_of(cells, ('captions', 'vqa', 'matching'))
    assert list(row.values()) == [2.5, 0.75, None, 3.0, 157.0, 500.0]
    unknown = row_of({'vqa': cell(0.5, given=None, pretraining=3.0)}, ('vqa',))
    assert unknown['training, s'] is None and unknown['VQA, accuracy'] == 0.5
    assert set(row_of({}, ('vqa',)).values()) == {None}


def test_the_table_has_dashes_and_says_what_failed():
    results = {'git': {'captions': cell(3.25, git=60.4), 'vqa': 'a.pth is gone; give another'}, 'vilt': {}}
    assert describe(results, ('captions', 'vqa')).splitlines() == [
        '| | captions, CIDEr-D | VQA, accuracy | parameters, M | training, s | peak memory, MiB |',
        '|---|---:|---:|---:|---:|---:|',
        '| GIT | 3.250 | – | 2.00 | 60 | 300 |',
        '| ViLT | – | – | – | – | – |',
        '',
        '- GIT, vqa: a.pth is gone; give another',
    ]
    panels = panels_of(results, ('captions',))
    assert panels['captions, CIDEr-D'] == {'GIT': [3.25], 'ViLT': []} and panels['training, s']['GIT'] == [60.4]
    content = json.loads(json.dumps(plain(results, ('captions',))))
    assert content['git']['tasks']['captions']['seconds'] == {'git': 60.4}
    assert content['git']['tasks']['vqa'].startswith('a.pth') and content['vilt']['row']['captions, CIDEr-D'] is None


# --- data ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path):
    pictures, regions = tmp_path / 'mine', tmp_path / 'regions'
    pictures.mkdir()
    regions.mkdir()
    captions, questions = tmp_path / 'captions.jsonl', tmp_path / 'questions.jsonl'
    captions.write_text('{"image": "a.png", "texts": ["a dog", "one dog"]}\n{"image": "b.png", "text": "a cat"}\n')
    questions.write_text(
        '{"image": "a.png", "question": "what is it?", "answer": "dog"}\n'
        '{"image": "b.png", "question": "how many?", "answers": ["two", "three", "two"]}\n'
    )
    return SimpleNamespace(
        captions=Files(captions, pictures), questions=Files(questions, pictures), pictures=pictures, folder=tmp_path,
        regions=regions,
    )  # fmt: skip


@pytest.mark.parametrize('name', ['meter', 'git', 'simvlm', 'blip', 'blip2', 'flamingo'])
def test_own_captions_are_tested_with(name, own):
    cfg = load_config(FAMILIES[name].task('captions').config)
    before = cfg.train_dataloader.to_dict()
    assert OwnData(own.folder / 'data', captions=own.captions).replace_test(cfg)
    tested = find_step(cfg.test_dataloader.dataset.get('dataset', cfg.test_dataloader.dataset), 'ImageTextManifest')
    assert (tested.ann_file, tested.data_prefix) == (str(own.captions.file), str(own.pictures))
    assert cfg.train_dataloader.to_dict() == before
    if name == 'flamingo':  # examples before the samples are from the training set
        assert cfg.test_dataloader.dataset.support.ann_file.endswith('train.jsonl')


@pytest.mark.parametrize('name', ['git', 'simvlm', 'flamingo'])
def test_own_captions_are_trained_on(name, own):
    cfg = load_config(FAMILIES[name].task('captions').config)
    data = OwnData(own.folder / 'data', train_captions=own.captions)
    assert data.replace_training(cfg)
    files = {step.ann_file for step in walk_steps(cfg.train_dataloader) if 'ann_file' in step}
    assert files == {str(own.captions.file)}
    assert not any(type_name(step) == 'DocumentDataset' for step in walk_steps(cfg.train_dataloader))
    assert data.replace_test(cfg) is False
    if name == 'flamingo':
        assert cfg.test_dataloader.dataset.support.ann_file == str(own.captions.file)


def test_own_questions_are_written_in_the_format_of_vqav2(own):
    cfg = load_config(FAMILIES['meter'].task('vqa').config)
    data = OwnData(own.folder / 'data', questions=own.questions, train_questions=own.questions)
    assert data.replace_training(cfg) and data.replace_test(cfg)
    folder = own.folder / 'data'
    assert json.loads((folder / 'test_questions.json').read_text())['questions'] == [
        {'image_id': 'a.png', 'question_id': 0, 'question': 'what is it?'},
        {'image_id': 'b.png', 'question_id': 1, 'question': 'how many?'},
    ]
    first, second = json.loads((folder / 'test_annotations.json').read_text())['annotations']
    assert [one['answer'] for one in first['answers']] == ['dog'] * 10  # a single annotator counts as all
    assert [one['answer'] for one in second['answers']] == ['two', 'three', 'two']
    assert second['multiple_choice_answer'] == 'two'
    assert (folder / 'answers.txt').read_text() == '2\ndog\n'
    answers = str(folder / 'answers.txt')
    assert cfg.model.heads.vqa.answers == cfg.test_dataloader.dataset.answer_file == answers
    assert cfg.train_dataloader.dataset.answer_file == answers and cfg.test_dataloader.dataset.img_pattern == '{}'


def test_the_data_set_reads_own_questions(own):
    from florence_mm.registry import DATASETS

    for name in ('a.png', 'b.png'):
        (own.pictures / name).write_bytes(b'')
    cfg = load_config(FAMILIES['git'].task('vqa').config)
    OwnData(own.folder / 'data', questions=own.questions).replace_test(cfg)
    dataset = {**cfg.test_dataloader.dataset, 'pipeline': [], 'answer_file': ''}
    samples = [DATASETS.build(dataset)[number] for number in range(2)]
    assert [Path(sample['img_path']).name for sample in samples] == ['a.png', 'b.png']
    assert samples[1]['text'] == 'how many?' and samples[1]['answers'] == ['two', 'three', 'two']


def test_florence2_is_tested_by_captions_alone_also_by_own_ones(own):
    cfg = load_config(FAMILIES['florence2'].task('captions').config)
    keep_captions(cfg)
    assert [type_name(one) for one in cfg.test_evaluator] == ['CaptionScores']
    assert OwnData(own.folder / 'data', captions=own.captions).replace_test(cfg)
    (dataset,) = cfg.test_dataloader.dataset.datasets
    rows = [json.loads(line) for line in Path(dataset.ann_file).read_text().splitlines()]
    assert rows == [
        {'image': 'a.png', 'task': 'caption', 'answers': ['a dog', 'one dog']},
        {'image': 'b.png', 'task': 'caption', 'answers': ['a cat']},
    ]


def test_a_model_of_regions_needs_those_of_own_pictures(own):
    cfg = load_config(FAMILIES['uniter'].task('vqa').config)
    data = OwnData(own.folder / 'data', questions=own.questions)
    with pytest.raises(UsageError, match='the questions have none; give their folder with --regions'):
        data.replace_test(cfg)
    OwnData(own.folder / 'data', questions=own.questions._replace(regions=own.regions)).replace_test(cfg)
    assert find_step(cfg.test_dataloader, 'LoadRegions').folder == str(own.regions)


@pytest.mark.parametrize(
    ('line', 'sentence'),
    [
        ('{"image": "a.png", "answer": "two"}', 'questions.jsonl, line 1: .*question'),
        ('{"image": "a.png", "question": "what?", "answers": []}', r'line 1: `answers` is \[\]; give a list of texts'),
        ('{"image": 3, "question": "what?", "answer": "a"}', 'line 1: .*image path'),
        ('', 'has no rows; write one a line'),
    ],
)
def test_unusable_questions_are_refused(own, line, sentence):
    own.questions.file.write_text(line + '\n')
    cfg = load_config(FAMILIES['git'].task('vqa').config)
    with pytest.raises(DataError, match=sentence):
        OwnData(own.folder / 'data', questions=own.questions).replace_test(cfg)


# --- runs ------------------------------------------------------------------------------------------------------------


def write_run(folder, last, iterations=10, times=((4, 2.0), (8, 3.0))):
    """A finished run with a log: lines at iterations with the seconds of one."""
    (folder / '1/vis_data').mkdir(parents=True)
    lines = [json.dumps({'iter': step, 'time': time}) for step, time in times]
    lines.append(json.dumps({'caption/CIDEr-D': 3.0, 'time': 99.0, 'step': 1}))  # of a validation
    (folder / '1/vis_data/scalars.json').write_text('\n'.join(lines) + '\n')
    torch.save({'state_dict': {'a': torch.zeros(1)}, 'meta': {'iter': iterations}}, folder / last)
    return str(folder / last)


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """Processes of a test and a training that only note what they are asked for."""
    seen = []

    def in_process(work, cfg, threads, *args):
        seen.append((work.__name__.strip('_'), cfg, *args))
        if work is family_runs._train:
            write_run(Path(args[0]), last_checkpoint(cfg))
            return None
        score = {'caption/CIDEr-D': 3.0, 'vqa/accuracy': 0.75, 'reranked/i2t_R@1': 0.5}
        return {**score, 'process/parameters': 7.0, 'process/trained': 4.0, 'process/memory': 1024.0}

    monkeypatch.setattr(family_runs, 'in_own_process', in_process)
    monkeypatch.setattr(family_runs, 'published_folders', lambda: [tmp_path / 'published'])
    return seen


GIT = FAMILIES['git'].models['captions']
TOWERS = 'unicl_coswin-micro_2xb32-5e_large-digits'


def test_runs_that_are_there_are_loaded_and_tests_that_are_done_are_kept(fake, tmp_path):
    write_run(tmp_path / 'runs' / GIT, 'epoch_4.pth')
    vqa = write_run(tmp_path / 'runs' / FAMILIES['git'].models['vqa'], 'epoch_6.pth', 8)
    runs = FamilyRuns(tmp_path / 'out', tmp_path / 'runs', say=lambda text: None)
    found = runs.run('git/vqa', FAMILIES['git'].task('vqa'))
    # 4 iterations of 2 s, 4 of 3 s, and 2 behind the last line like it
    assert found.seconds == {GIT: 26.0, FAMILIES['git'].models['vqa']: 20.0}
    assert (found.score, found.parameters, found.trained, found.memory) == (0.75, 7, 4, 1024)
    assert found.checkpoint == vqa and [kind for kind, *_ in fake] == ['test']
    assert fake[0][1].load_from == vqa and fake[0][1].work_dir == str(tmp_path / 'out/git/vqa')
    again = FamilyRuns(tmp_path / 'out', tmp_path / 'runs').run('git/vqa', FAMILIES['git'].task('vqa'))
    assert again == found and len(fake) == 1
    os.utime(vqa, (1, 1))
    torch.save({'state_dict': {'a': torch.ones(1)}, 'meta': {'iter': 8}}, vqa)  # another checkpoint is tested anew
    runs.run('git/vqa', FAMILIES['git'].task('vqa'))
    assert len(fake) == 2


def test_what_is_not_there_is_trained_in_order_with_the_batches_of_all_processes(fake, tmp_path):
    write_run(tmp_path / 'runs' / TOWERS, 'epoch_5.pth')
    runs = FamilyRuns(tmp_path / 'out', tmp_path / 'runs', seed=3, say=lambda text: None)
    found = runs.run('git/vqa', FAMILIES['git'].task('vqa'))
    assert [kind for kind, *_ in fake] == ['train', 'train', 'test']
    (_, first, folder, seed), (_, second, *_) = fake[:2]
    assert (folder, seed) == (str(tmp_path / 'runs' / GIT), 3)
    assert first.train_dataloader.batch_size == 2 * 16 and second.train_dataloader.batch_size == 2 * 64
    assert begins_with(first) == [] and str(tmp_path / 'runs' / TOWERS / 'epoch_5.pth') in first.pretty_text
    assert second.model.init_cfg.checkpoint == str(tmp_path / 'runs' / GIT / 'epoch_4.pth')
    assert set(found.seconds) == {GIT, FAMILIES['git'].models['vqa']}  # the towers are nobody's


def test_own_training_data_train_in_a_folder_of_their_own(fake, own, tmp_path):
    for name, last in ((TOWERS, 'epoch_5.pth'), (GIT, 'epoch_4.pth')):
        write_run(tmp_path / 'runs' / name, last)
    data = OwnData(tmp_path / 'out/data', train_captions=own.captions)
    runs = FamilyRuns(tmp_path / 'out', tmp_path / 'runs', data=data, say=lambda text: None)
    runs.run('git/vqa', FAMILIES['git'].task('vqa'))  # begins with the captions, so both are trained
    assert [kind for kind, *_ in fake] == ['train', 'train', 'test']
    folders = [Path(args[0]) for kind, _, *args in fake if kind == 'train']
    assert all(folder.parent == tmp_path / 'out/trained' for folder in folders)
    assert folders[0].name.startswith(f'{GIT}-') and fake[0][1].get('val_dataloader') is None
    assert fake[1][1].model.init_cfg.checkpoint == str(folders[0] / 'epoch_4.pth')


VILT = 'vilt_coswin-micro_2xb32-2e_large-digits'


def test_a_config_that_trains_nothing_is_tested_with_the_checkpoint_of_another(fake, tmp_path):
    towers = write_run(tmp_path / 'runs' / TOWERS, 'epoch_5.pth')
    pretrained = write_run(tmp_path / 'runs' / VILT, 'epoch_2.pth')
    runs = FamilyRuns(tmp_path / 'out', tmp_path / 'runs', say=lambda text: None)
    found = runs.run('vilt/matching', FAMILIES['vilt'].task('matching'))
    assert (found.score, found.checkpoint, found.seconds) == (0.5, pretrained, {VILT: 26.0})
    ((kind, cfg),) = fake
    assert kind == 'test' and cfg.load_from == pretrained and cfg.model.type.endswith('RetrievalReranker')
    assert cfg.model.retriever.init_cfg.checkpoint == towers
    # other weights take the place of both, also after the pretraining is gone; what they were trained from is unknown
    mine = tmp_path / 'mine.pth'
    torch.save({'state_dict': {'a': torch.zeros(1)}}, mine)
    found = runs.run('vilt/matching', FAMILIES['vilt'].task('matching'), str(mine))
    assert (found.checkpoint, found.seconds) == (str(mine), {str(mine): None})
    assert fake[1][1].load_from == str(mine) and fake[1][1].model.retriever.init_cfg.checkpoint == towers


def test_what_another_config_tests_is_trained_first_and_on_own_captions_anew(fake, own, tmp_path):
    towers = write_run(tmp_path / 'runs' / TOWERS, 'epoch_5.pth')
    runs = FamilyRuns(tmp_path / 'out', tmp_path / 'runs', say=lambda text: None)
    found = runs.run('vilt/matching', FAMILIES['vilt'].task('matching'))
    assert [kind for kind, *_ in fake] == ['train', 'test']
    assert found.checkpoint == str(tmp_path / 'runs' / VILT / 'epoch_2.pth') and set(found.seconds) == {VILT}
    data = OwnData(tmp_path / 'out/data', captions=own.captions, train_captions=own.captions)
    runs = FamilyRuns(tmp_path / 'out', tmp_path / 'runs', data=data, say=lambda text: None)
    found = runs.run('vilt/matching', FAMILIES['vilt'].task('matching'))
    assert [kind for kind, *_ in fake] == ['train', 'test'] * 2
    assert Path(found.checkpoint).parent.parent == tmp_path / 'out/trained'
    cfg = fake[3][1]
    assert cfg.test_dataloader.dataset.ann_file == str(own.captions.file)
    assert cfg.load_from == found.checkpoint and cfg.model.retriever.init_cfg.checkpoint == towers


def test_frozen_parts_of_a_test_are_those_that_its_model_was_trained_with(fake, own, tmp_path):
    write_run(tmp_path / 'runs' / TOWERS, 'epoch_5.pth')
    language = 'language-micro_1xb64-6e_large-digits'
    write_run(tmp_path / 'runs' / language, 'epoch_6.pth')  # of the embedded captions
    data = OwnData(tmp_path / 'out/data', train_captions=own.captions)
    runs = FamilyRuns(tmp_path / 'out', tmp_path / 'runs', data=data, say=lambda text: None)
    for task in ('captions', 'vqa'):
        runs.run(f'flamingo/{task}', FAMILIES['flamingo'].task(task))
        trained = fake[-1][1].model.language_model.init_cfg.checkpoint
        assert Path(trained).parent.name.startswith(f'{language}-') and str(tmp_path / 'out/trained') in trained
    assert [kind for kind, *_ in fake] == ['train', 'train', 'test', 'test']


def test_a_config_that_trains_nothing_must_name_weights(fake, tmp_path):
    config = tmp_path / 'alone.py'
    config.write_text("model = dict(type='X')")
    runs = FamilyRuns(tmp_path / 'out', tmp_path / 'runs', say=lambda text: None)
    with pytest.raises(UsageError, match=r'alone.py trains nothing and names no weights; set load_from, or train_cfg'):
        runs.run('x/captions', FamilyTask(str(config), 'caption/CIDEr-D'))


def test_a_run_that_stopped_half_goes_on_and_is_not_tested_before(fake, tmp_path):
    write_run(tmp_path / 'runs' / TOWERS, 'epoch_5.pth')
    half = tmp_path / 'runs' / GIT
    write_run(half, 'epoch_2.pth', 5)
    (half / 'last_checkpoint').write_text(str(half / 'epoch_2.pth'))
    shutil.rmtree(half / '1')
    runs = FamilyRuns(tmp_path / 'out', tmp_path / 'runs', say=lambda text: None)
    found = runs.run('git/captions', FAMILIES['git'].task('captions'))
    assert [(kind, *rest) for kind, _, *rest in fake] == [('train', str(half), 0), ('test',)]
    assert found.checkpoint == str(half / 'epoch_4.pth')


def test_a_training_that_leaves_no_last_checkpoint_is_told(monkeypatch, tmp_path):
    write_run(tmp_path / 'runs' / TOWERS, 'epoch_5.pth')
    monkeypatch.setattr(family_runs, 'in_own_process', lambda *args: None)
    monkeypatch.setattr(family_runs, 'published_folders', lambda: [tmp_path / 'published'])
    runs = FamilyRuns(tmp_path / 'out', tmp_path / 'runs', say=lambda text: None)
    with pytest.raises(UsageError, match=f'the training of {GIT} has left no .*epoch_4.pth; look at its log'):
        runs.run('git/captions', FAMILIES['git'].task('captions'))


def test_given_weights_are_tested_and_without_a_log_have_no_seconds(fake, tmp_path):
    file = tmp_path / 'mine.pth'
    torch.save({'state_dict': {'a': torch.zeros(1)}}, file)
    runs = FamilyRuns(tmp_path / 'out', tmp_path / 'runs', say=lambda text: None)
    found = runs.run('git/captions', FAMILIES['git'].task('captions'), str(file))
    assert found.seconds == {str(file): None} and found.checkpoint == str(file)
    assert row_of({'captions': found}, ('captions',))['training, s'] is None


def test_a_test_without_the_score_is_an_error(fake, tmp_path):
    write_run(tmp_path / 'runs' / GIT, 'epoch_4.pth')
    runs = FamilyRuns(tmp_path / 'out', tmp_path / 'runs', say=lambda text: None)
    with pytest.raises(UsageError, match='SPICE is none of the test of git/captions, which has caption/CIDEr-D'):
        runs.run('git/captions', FamilyTask(FAMILIES['git'].task('captions').config, 'SPICE'))


def test_checkpoints_of_no_config_are_refused():
    with pytest.raises(UsageError, match='work_dirs/nothing/epoch_1.pth is of no config nothing.py'):
        config_of('work_dirs/nothing/epoch_1.pth')
    assert Path(config_of('work_dirs/quickstart/epoch_22.pth')).name == 'unicl_coswin-micro_1xb64-22e_digits.py'


def test_work_has_a_process_of_its_own_with_its_own_memory():
    held = bytearray(b'x' * 2**29)
    assert 10 * 2**20 < in_own_process(family_runs.peak_memory) < len(held) + 2**29
    with pytest.raises(UsageError, match='the process ended with status 3; see what it wrote'):
        in_own_process(os._exit, 3)
    with pytest.raises(UsageError, match='the process was killed; it may need more memory'):
        in_own_process(signal.raise_signal, signal.SIGKILL)


def test_work_ends_with_the_process_that_asked_for_it(capsys):
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
    begun = time.monotonic()
    with pytest.raises(SystemExit) as end, one_sentence_errors():
        in_own_process(time.sleep, 300)
    assert end.value.code == 143 and time.monotonic() - begun < 200
    assert not multiprocessing.active_children()


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_writes_table_numbers_and_picture(tool, fake, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_run(Path('work_dirs') / GIT, 'epoch_4.pth')
    monkeypatch.setattr('sys.argv', ['compare_families.py', '--only', 'git', 'vilt', '--tasks', 'captions'])
    assert tool.main() == 0
    out = capsys.readouterr().out
    assert '[1/1] GIT, captions' in out and '| GIT | 3.000 | 0.00 | 26 | 0 |' in out
    folder = Path('work_dirs/families')
    assert (folder / 'comparison.md').read_text() in out
    assert json.loads((folder / 'comparison.json').read_text())['git']['row']['training, s'] == 26.0
    assert (folder / 'comparison.png').stat().st_size > 5000


def test_a_failed_test_is_told_and_the_next_begins(tool, tmp_path):
    def run(name, task, weights):
        if name == 'git/captions':
            raise UsageError('a.pth is\ngone')
        return cell(0.5, vqa=1.0)

    todo = tool.chosen_tests(['git', 'vilt'], ('captions', 'vqa'), {})
    assert todo == [('git', 'captions'), ('git', 'vqa'), ('vilt', 'vqa')]
    results = tool.run_all(SimpleNamespace(run=run), ['git', 'vilt'], todo, {})
    assert results['git'] == {'captions': 'a.pth is gone', 'vqa': cell(0.5, vqa=1.0)}
    assert results['vilt'] == {'vqa': cell(0.5, vqa=1.0)}


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder to work in, with two pictures, their captions, and questions about them."""
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Path('photos').mkdir()
    for name in ('a.png', 'b.png'):
        Image.new('RGB', (70, 64), 'red').save(f'photos/{name}')
    Path('mine.jsonl').write_text('{"image": "a.png", "text": "a two"}\n{"image": "b.png", "text": "a six"}\n')
    Path('asked.jsonl').write_text('{"image": "a.png", "question": "how many?", "answer": "two"}\n')
    return tmp_path


def test_weights_that_do_not_fit_are_told_among_others(tool, photos, monkeypatch, capsys):
    def in_this_process(work, cfg, threads, *args):
        if 'git' in cfg.work_dir:
            return work(cfg, threads, *args)
        return {'caption/CIDEr-D': 3.0, 'process/parameters': 7.0, 'process/trained': 4.0, 'process/memory': 1024.0}

    monkeypatch.setattr(family_runs, 'in_own_process', in_this_process)
    torch.save({'state_dict': {'a': torch.zeros(1)}}, 'wrong.pth')
    torch.save({'state_dict': {'a': torch.zeros(1)}}, 'mine.pth')
    arguments = ['--only', 'git', 'simvlm', '--tasks', 'captions', '--captions', 'mine.jsonl', '--images', 'photos']
    weights = ['--weights', 'git:captions=wrong.pth', 'simvlm:captions=mine.pth']
    monkeypatch.setattr('sys.argv', ['compare_families.py', *arguments, *weights, '--threads', '1'])
    assert tool.main() == 1
    out = capsys.readouterr().out
    assert '\n- GIT, captions: no weight in wrong.pth belongs to this model' in out
    assert '| GIT | – |' in out and '| SimVLM | 3.000 | 0.00 | – | 0 |' in out


@pytest.mark.parametrize(
    ('file', 'line', 'sentence'),
    [
        ('mine.jsonl', '{"image": "b.png", "text": 3}', 'mine.jsonl, line 3: '),
        (
            'mine.jsonl',
            '{"image": "c.png", "text": "a"}',
            'line 3: there is no picture photos/c.png; correct',
        ),
        ('mine.jsonl', '{"image": "a.png"', 'mine.jsonl, line 3'),
        ('asked.jsonl', '{"image": "b.png", "answer": "two"}', 'asked.jsonl, line 2: the question must be a string'),
        (
            'asked.jsonl',
            '{"image": "c.png", "question": "q", "answer": "a"}',
            'line 2: there is no picture photos/c.png',
        ),
    ],
)
@pytest.mark.parametrize('split', ['', 'train-'])
def test_a_bad_row_is_told_before_anything_is_trained(
    tool, fake, photos, monkeypatch, capsys, file, line, sentence, split
):
    with Path(file).open('a') as out:
        out.write(line + '\n')
    arguments = [f'--{split}captions', 'mine.jsonl', f'--{split}questions', 'asked.jsonl', f'--{split}images', 'photos']
    monkeypatch.setattr('sys.argv', ['compare_families.py', *arguments])
    with pytest.raises(SystemExit) as end:
        tool.main()
    assert end.value.code == 2 and not fake
    error = capsys.readouterr().err
    assert sentence in error and len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['--weights', 'git=a.pth'], '--weights git=a.pth has another form than FAMILY:TASK=FILE; write'),
        (['--weights', 'gitt:vqa=a.pth'], "names no family; did you mean 'git'"),
        (['--weights', 'blip2:vqa=a.pth'], 'BLIP-2 has no config for vqa, only for captions, matching'),
        (['--weights', 'git:vqa=none.pth'], 'none.pth'),
        (['--captions', 'a.jsonl'], 'captions or questions and their pictures belong together; give --images too'),
        (['--train-images', '.'], 'give --train-captions or --train-questions too'),
        (['--captions', 'a.jsonl', '--images', '.'], '--captions a.jsonl is no file; correct the path'),
        (['--regions', '.'], '--regions belong to captions or questions; give --captions or --questions'),
        (['--only', 'gitt'], "argument --only: invalid choice: 'gitt' (choose from"),
        (
            ['--only', 'vilt', '--tasks', 'captions'],
            'left for --tasks captions: ViLT has vqa, matching; choose',
        ),
        (
            ['--only', 'git', '--weights', 'vilt:vqa=w.pth'],
            '--weights vilt:vqa is of a test that --only',
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(tool, tmp_path, monkeypatch, capsys, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    Path('w.pth').touch()
    monkeypatch.setattr('sys.argv', ['compare_families.py', *arguments])
    with pytest.raises(SystemExit) as end:
        tool.main()
    assert end.value.code == 2 and sentence in capsys.readouterr().err


def test_configs_reach_the_other_process_whole():
    cfg = Config({'train_cfg': {'by_epoch': False, 'max_iters': 2}, 'model': {'type': 'X', 'size': (1, 2)}})
    assert in_own_process(last_checkpoint, cfg) == 'iter_2.pth'
