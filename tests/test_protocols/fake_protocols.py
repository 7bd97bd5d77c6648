"""Protocols and a plan without models, for what runs them."""

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from florence_mm.protocols.base import Entry
from florence_mm.protocols.suite import SuitePlan

CONFIG = """
default_scope = 'florence_mm'
model = dict(type='florence_mm.UniCL')
data = dict(type='florence_mm.ImageTextManifest', ann_file='data/a')
test_dataloader = dict(batch_size=4, num_workers=0, dataset=data)
test_evaluator = dict(type='florence_mm.ImageTextRecall')
"""


@dataclass(frozen=True)
class Fake:
    """Returns ``score`` and appends its name to the file ``runs`` beside the data."""

    name: str
    score: float = 0.5
    group: str = 'retrieval'
    metric: str = 'score'
    paper: float | None = None
    fails: bool = False
    absent: bool = False
    stops: bool = False

    def missing(self, data_root):
        return 'X is not there: download it' if self.absent else None

    def reads(self, data_root):
        return [Path(data_root) / 'set.json', Path(data_root) / 'images']

    def run(self, model, data_root, out_dir, **opts):
        with (Path(data_root) / 'runs').open('a') as file:
            file.write(self.name + '\n')
        if self.stops:
            raise KeyboardInterrupt
        if self.fails:
            raise RuntimeError('the GPU\nis on fire')
        return {'score': self.score, 'checkpoint': float(Path(model.checkpoint).read_text())}


def make_plan(folder: Path, **values) -> SuitePlan:
    """A plan with data, config and checkpoint in ``folder``, whose models are only their checkpoints."""
    data = folder / 'data'
    if not data.exists():
        (data / 'images').mkdir(parents=True)
        (data / 'set.json').write_text('[]')
        (folder / 'config.py').write_text(CONFIG)
        (folder / 'towers.pth').write_text('1')
    given = {
        'config': str(folder / 'config.py'),
        'checkpoint': str(folder / 'towers.pth'),
        'data_root': data,
        'out_dir': folder / 'out',
        'load': lambda cfg, checkpoint: SimpleNamespace(cfg=cfg, checkpoint=checkpoint),
        'tell': lambda line: None,
    }
    return SuitePlan(**{**given, **values})


def ran(plan: SuitePlan) -> list[str]:
    """Names of the protocols that have run, in order."""
    file = plan.data_root / 'runs'
    return file.read_text().split() if file.exists() else []


def entries(*protocols: Fake) -> list[Entry]:
    return [Entry(protocol) for protocol in protocols]


def table_of(plan: SuitePlan) -> dict:
    return json.loads((plan.out_dir / 'results.json').read_text())
