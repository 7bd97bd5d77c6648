import pytest
from raw_pairs import run_here


@pytest.fixture
def one_process(monkeypatch):
    """Run both stages in this process, as starting others takes a second."""
    for module in ('run', 'stage_c'):
        monkeypatch.setattr(f'florence_mm.curation.{module}.run_tasks', run_here)
