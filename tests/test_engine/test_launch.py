"""Options of a run that are applied to its config."""

import pytest
from mmengine.config import Config

from florence_mm.engine.launch import runner_in, set_resume, train_and_test
from florence_mm.errors import UsageError


@pytest.mark.parametrize(
    'load_from, resume, saved, expected',
    [
        # a first start with --resume begins with the weights that the config names, as without it
        ('towers.pth', 'auto', False, (False, 'towers.pth')),
        ('towers.pth', None, False, (False, 'towers.pth')),
        ('towers.pth', 'auto', True, (True, None)),
        (None, 'auto', False, (True, None)),
        (None, 'auto', True, (True, None)),
    ],
)
def test_resume_and_load_from(tmp_path, load_from, resume, saved, expected):
    if saved:
        (tmp_path / 'epoch_2.pth').touch()
    cfg = Config({'work_dir': str(tmp_path), 'load_from': load_from, 'resume': False})
    set_resume(cfg, resume)
    assert (cfg.resume, cfg.load_from) == expected


def test_resume_from_a_named_checkpoint(tmp_path):
    cfg = Config({'work_dir': str(tmp_path), 'load_from': 'towers.pth', 'resume': False})
    with pytest.raises(UsageError, match='gone.pth'):
        set_resume(cfg, str(tmp_path / 'gone.pth'))
    (tmp_path / 'epoch_1.pth').touch()
    set_resume(cfg, str(tmp_path / 'epoch_1.pth'))
    assert (cfg.resume, cfg.load_from) == (True, str(tmp_path / 'epoch_1.pth'))


def test_what_is_done_is_done_for_the_same_config_alone(tmp_path):
    def scores(**changes):
        cfg = Config({'model': {'type': 'GIT', 'depth': 2}, 'load_from': 'a.pth', 'work_dir': 'elsewhere', **changes})
        return train_and_test(cfg, tmp_path, 0)

    (tmp_path / 'test_metrics.json').write_text('{"metrics": {"top1": 0.5}}')
    assert scores() == scores() == scores(work_dir='moved') == {'top1': 0.5}
    with pytest.raises(
        UsageError, match=r'run of another config \(model\.depth 2 -> 3\); name another folder, or remo'
    ):
        scores(model={'type': 'GIT', 'depth': 3})
    with pytest.raises(UsageError, match=r"\(load_from 'a\.pth' -> 'b\.pth' and 1 more\)"):
        scores(model={'type': 'GIT'}, load_from='b.pth')
    with pytest.raises(UsageError, match=r"\(load_from 'a\.pth' -> 'b\.pth'\)"):  # before a run goes on
        runner_in(Config({'model': {'type': 'GIT', 'depth': 2}, 'load_from': 'b.pth'}), tmp_path, 0)
