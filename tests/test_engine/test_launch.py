"""Options of a run that are applied to its config."""

import pytest
from mmengine.config import Config

from florence_mm.engine.launch import set_resume
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
