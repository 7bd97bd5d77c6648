"""Runs of the families: what is loaded, trained and tested, by processes that only note what they are asked for."""

import multiprocessing
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from toy_families import GIT, TOWERS, write_run

from florence_mm.errors import UsageError, one_sentence_errors
from florence_mm.protocols import family_runs
from florence_mm.protocols.families import FAMILIES, FamilyTask
from florence_mm.protocols.family_configs import begins_with, config_of, last_checkpoint
from florence_mm.protocols.family_data import OwnData
from florence_mm.protocols.family_runs import FamilyRuns, in_own_process
from florence_mm.protocols.family_table import row_of


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


def test_configs_reach_the_other_process_whole():
    cfg = Config({'train_cfg': {'by_epoch': False, 'max_iters': 2}, 'model': {'type': 'X', 'size': (1, 2)}})
    assert in_own_process(last_checkpoint, cfg) == 'iter_2.pth'
