"""Bad inputs: resuming, work folders, data against model, full disks, exhausted memory, signals, several processes."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch._dynamo  # noqa: F401  optimizers import it, else in each fork anew
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from torch import nn
from toy_project import toy_config

from florence_mm.engine import FlorenceRunner
from florence_mm.engine.checkpointing import check_resumable, find_latest
from florence_mm.engine.data_classes import check_classes
from florence_mm.engine.guards import check_accumulation
from florence_mm.engine.resuming import Position, check_optimizer, keep_position
from florence_mm.engine.work_folder import require_own
from florence_mm.errors import UsageError, one_sentence_errors
from florence_mm.models.checkpoints import write_safetensors
from florence_mm.utils.files import replacing, write_atomic

from .case import ROOT, BadInput, call

AREA = 'runs'


def cases() -> list[BadInput]:
    """All of them."""
    return [
        *_pointers(),
        *_folders(),
        *_positions(),
        *_states(),
        *_optimizers(),
        *_parts(),
        *_memory_and_disk(),
        *_signals(),
        *_processes(),
        *_whole_runs(),
    ]


def _pointers() -> list[BadInput]:
    rubbish = {
        'bytes that are no text': b'\xff\xfe\x81zz',
        'nothing': b'',
        'a blank line': b' \n',
        'a zero byte': b'epoch_1.pth\0',
        'a checkpoint that is gone': b'/no/epoch_7.pth',
        'a folder': b'/tmp',
        '9000 letters': b'x' * 9000,
        'two lines': b'epoch_1.pth\nepoch_2.pth',
        'a number': b'7',
    }
    found = []
    for words, content in rubbish.items():
        pointer, others = f'last_checkpoint holds {words}', ('iter_5.pth', 'iter_20.pth', 'weights.pth')
        found.append(BadInput(pointer, partial(_latest, content), says=('last_checkpoint', '--resume')))
        found.append(BadInput(f'{pointer}, two others', partial(_latest, content, *others), gives='iter_20.pth'))
    return found


def _latest(content: bytes, *given: Any) -> str:
    *names, folder = given
    (folder / 'last_checkpoint').write_bytes(content)
    for name in names:
        (folder / name).touch()
    return Path(find_latest(folder)).name


def _folders() -> list[BadInput]:
    def own(names: list[str], resumed: str | None = None) -> Callable[[Path], None]:
        def run(folder: Path) -> None:
            for name in names:
                (folder / name).touch()
            require_own([str(folder)], resumed and str(folder / resumed))

        return run

    says = 'add --resume'
    return [
        *(BadInput(f'a new run beside {name}', own([name]), says=(name, says))
          for name in ('epoch_1.pth', 'iter_1000.pth', 'best_zero_shot_top1_epoch_3.pth')),
        BadInput('a new run beside last_checkpoint and step_5.pth', own(['last_checkpoint', 'step_5.pth']), says=says),
        BadInput('a resumed run beside another one', own(['iter_5.pth'], 'elsewhere.pth'), says='elsewhere.pth'),
        BadInput('a new run beside public weights', own(['swin_tiny.pth', 'notes.txt']), gives=None),
        BadInput('a resumed run in its folder', own(['iter_5.pth', 'iter_9.pth'], 'iter_5.pth'), gives=None),
    ]  # fmt: skip


def _positions() -> list[BadInput]:
    epochs, iterations = Position('epochs', 96, 32, 3), Position('iterations', 96, 32, 0)
    changed = {
        'half the batch': (epochs, epochs._replace(batch=16, batches=6), '16'),
        'another batch, as many batches': (epochs, epochs._replace(batch=40), '40'),
        'one sample less': (epochs, epochs._replace(samples=95), '95 samples'),
        'more data': (epochs, epochs._replace(samples=960, batches=30), '960 samples'),
        'drop_last': (epochs._replace(samples=97, batches=4), epochs._replace(samples=97), '3 batches an epoch'),
        'iterations instead of epochs': (epochs, iterations, 'by iterations'),
        'epochs instead of iterations': (iterations, epochs, 'by epochs'),
        'iterations over fewer data': (iterations, iterations._replace(samples=50), '50 samples'),
    }
    kept = {
        'the same epochs': (epochs, epochs),
        'iterations with half the batch': (iterations, iterations._replace(batch=16)),
    }
    return [
        *(BadInput(f'resumed with {words}', call(_keep, *given[:2]), says=(given[2], 'load_from'))
          for words, given in changed.items()),
        *(BadInput(f'resumed with {words}', call(_keep, *given), gives=list(given[1]))
          for words, given in kept.items()),
    ]  # fmt: skip


def _keep(before: Position, now: Position) -> list:
    noted = {'resume/data': list(before)}
    hub = SimpleNamespace(get_info=noted.get, update_info=noted.__setitem__)
    keep_position(SimpleNamespace(iter=6, message_hub=hub), now)
    return noted['resume/data']


def _states() -> list[BadInput]:
    model = {'fc.weight': (torch.Size([2, 3]), True), 'steps': (torch.Size([]), False)}
    weight, steps = torch.ones(2, 3), torch.tensor(4)
    whole = {'meta': {}, 'message_hub': {}, 'optimizer': {}, 'param_schedulers': []}

    def state(weights: dict, without: str = '') -> Callable[[Path], Any]:
        content = {key: value for key, value in whole.items() if key != without}
        return call(check_resumable, 'a.pth', {**content, 'state_dict': weights}, model, True)

    right = {'fc.weight': weight, 'steps': steps}
    spoilt = {
        'NaN': (weight * float('nan'), 'not finite'),
        'one infinite number': (weight.index_fill(0, torch.tensor([1]), float('inf')), 'not finite'),
        'integers': (weight.long(), 'int64'),
        'booleans': (weight.bool(), 'bool'),
        'another shape': (weight.T, 'another model'),
        'one row more': (torch.ones(3, 3), 'another model'),
    }
    return [
        *(BadInput(f'a checkpoint without {key} is resumed', state(right, key), says=('a.pth', key)) for key in whole),
        *(BadInput(f'weights of a resumed checkpoint: {words}', state({**right, 'fc.weight': value}),
                   says=('a.pth', 'fc.weight', said)) for words, (value, said) in spoilt.items()),
        BadInput('a resumed checkpoint lacks a weight', state({'steps': steps}), says='fc.weight'),
        BadInput('a resumed checkpoint has a weight more', state({**right, 'fc.bias': steps}), says='fc.bias'),
        BadInput('a counter of a resumed checkpoint in fractions', state({**right, 'steps': steps.float()}),
                 says=('steps', 'float32')),
        BadInput('a checkpoint that fits', state(right), gives=None),
    ]  # fmt: skip


def _optimizers() -> list[BadInput]:
    kinds = {
        'AdamW': lambda p: torch.optim.AdamW(p, 0.1),
        'SGD': lambda p: torch.optim.SGD(p, 0.1),
        'RMSprop': lambda p: torch.optim.RMSprop(p, 0.1),
        'Adagrad': lambda p: torch.optim.Adagrad(p, 0.1),
    }

    def resume(before: str, now: str) -> Callable[[Path], None]:
        def run(folder: Path) -> None:
            saved = OptimWrapper(kinds[before](nn.Linear(2, 2).parameters())).state_dict()
            check_optimizer(OptimWrapper(kinds[now](nn.Linear(2, 2).parameters())), saved, 'a.pth')

        return run

    return [
        BadInput(
            f'{before} is resumed with {now}',
            resume(before, now),
            **({'gives': None} if before == now else {'says': ('a.pth', 'another optimizer', now)}),
        )
        for before in kinds
        for now in kinds
    ]


class _Coupled(nn.Linear):
    def whole_batch_advice(self) -> str:
        return 'set model.micro_batch'


def _parts() -> list[BadInput]:
    def accumulate(model: type[nn.Linear], counts: int) -> Callable[[Path], None]:
        def run(folder: Path) -> None:
            built = model(2, 2)
            optimizer = torch.optim.SGD(built.parameters(), 0.1)
            check_accumulation(built, OptimWrapper(optimizer, accumulative_counts=counts))

        return run

    def classes(head: str, number: int, largest_label: tuple = (0, 0), **metainfo: Any) -> Callable[[Path], None]:
        model = nn.Module()
        setattr(model, head, SimpleNamespace(num_classes=number))
        data = SimpleNamespace(metainfo=metainfo, ann_file='train.json', largest_label=largest_label)
        return call(check_classes, model, data)

    found = [
        BadInput(f'gradients of {counts} batches summed up for a contrastive loss', accumulate(_Coupled, counts),
                 says=(f'accumulative_counts={counts}', 'micro_batch')) for counts in (2, 4, 64)
    ]  # fmt: skip
    for head in ('bbox_head', 'cls_head'):
        for number, names in ((80, 3), (3, 80), (2, 1), (10, 9)):
            data = {'classes': [f'class {index}' for index in range(names)]}
            words = f'a {head} of {number} classes over data of {names}'
            found.append(BadInput(words, classes(head, number, **data), says=(f'{names} classes', f'{number}; set')))
    return [
        *found,
        BadInput('a contrastive loss of whole batches', accumulate(_Coupled, 1), gives=None),
        BadInput('gradients summed up for another loss', accumulate(nn.Linear, 4), gives=None),
        BadInput(
            'class 5 for a head of five', classes('cls_head', 5, largest_label=(5, 8)), says=('line 8', 'class 5')
        ),
        BadInput('class 4 for a head of five', classes('cls_head', 5, largest_label=(4, 8)), gives=None),
    ]


def _memory_and_disk() -> list[BadInput]:
    def small_files(write: Callable[[Path], Any]) -> Callable[[Path], None]:
        def run(folder: Path) -> None:
            write_atomic(folder / 'a.pth', 'before')
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
            write(folder / 'a.pth')

        return run

    def torch_save(path: Path) -> None:
        with replacing(path) as temporary, temporary.open('wb') as file:
            torch.save(torch.zeros(10_000), file)

    def kept(folder: Path) -> list[str]:
        with suppress(OSError):
            small_files(lambda path: write_atomic(path, 'x' * 5000))(folder)
        return [f'{path.name}: {path.read_text()}' for path in folder.iterdir()]

    memory = 'memory is exhausted'
    return [
        BadInput('a tensor of 4 PB', lambda folder: torch.empty(10**15), says=memory),
        BadInput('an array of 8 PB', lambda folder: np.empty(10**15), says=memory),
        BadInput('a text of 1 PB', lambda folder: bytearray(10**15), says=memory),
        BadInput('a layer of 4 PB', lambda folder: nn.Linear(10**8, 10**7), says=memory),
        BadInput('a text on a full disk', small_files(lambda path: write_atomic(path, 'x' * 5000)), says='a.pth'),
        BadInput('a checkpoint on a full disk', small_files(torch_save), says=('a.pth', 'disk')),
        BadInput('safetensors on a full disk', small_files(lambda p: write_safetensors(p, {'a': torch.zeros(5000)})),
                 says='a.pth'),
        BadInput('what a full disk leaves', kept, gives=['a.pth: before']),
    ]  # fmt: skip


def _signals() -> list[BadInput]:
    def sent(number: int, lost: bool = False) -> Callable[[Path], Any]:
        class Closing:
            def __del__(self) -> None:
                os.kill(os.getpid(), number)

        def run(folder: Path) -> int | str:
            try:
                with one_sentence_errors():
                    if lost:
                        Closing()
                    else:
                        os.kill(os.getpid(), number)
                return 'went on'
            except SystemExit as end:
                return end.code

        return run

    found = []
    for number in (signal.SIGINT, signal.SIGTERM):
        found.append(BadInput(f'{number.name} in a command', sent(number), gives=128 + number))
        found.append(BadInput(f'{number.name} in a destructor', sent(number, lost=True), gives=128 + number))
    return found


def _processes() -> list[BadInput]:
    def start(*arguments: str, **environment: str) -> Callable[[Path], Any]:
        def run(folder: Path) -> list[str]:
            (folder / 'tool.py').write_text('import os; os.write(1, os.environ["RANK"].encode())')
            command = [sys.executable, str(ROOT / 'tools/processes.py'), *arguments]
            ended = subprocess.run(
                command, capture_output=True, text=True, env={**os.environ, **environment}, check=False
            )
            if ended.returncode == 2:
                raise UsageError(ended.stderr.strip().removeprefix('error: '))
            return sorted(ended.stdout)

        return run

    return [
        *(BadInput(f'PORT={port} for several processes', start('2', 'tool.py', PORT=port), says=f'PORT={port}')
          for port in ('x', '0', '-1', '65536', '1.5', '29500 29501')),
        *(BadInput(f'NNODES={number}', start('2', 'tool.py', NNODES=number), says=number) for number in ('two', '-1')),
        *(BadInput(f'{count!r} processes', start(count, 'tool.py'), says='number of processes')
          for count in ('0', '-2', 'eight', '')),
        BadInput('three processes and no PORT', start('3', 'tool.py', PORT=''), gives=['0', '1', '2']),
    ]  # fmt: skip


def _whole_runs() -> list[BadInput]:
    def train(**changes: Any) -> Callable[[Path], int]:
        return lambda folder: _train(folder / 'run', **changes)

    def resume(**changes: Any) -> Callable[[Path], Any]:
        def run(folder: Path) -> Any:
            _train(folder / 'run')
            return _train(folder / 'again', resume=True, load_from=str(folder / 'run/iter_15.pth'), **changes)

        return run

    def twice(folder: Path) -> None:
        _train(folder / 'run'), _train(folder / 'run')

    loader = toy_config('x')['train_dataloader']
    nan = {first: {'model': {'type': 'ToyModel', 'nan_from': first}} for first in (7, 16, 17)}
    return [
        BadInput('the loss is NaN in the last iteration', train(**nan[17]), says=('iter_17.pth', 'not finite')),
        BadInput('the loss is NaN, no checkpoints', train(**nan[16], default_hooks={'checkpoint': None}),
                 says=('leaves no weights', 'not finite')),
        BadInput('the loss is NaN, hook off', train(**nan[7], default_hooks={'invalid_loss': None}),
                 says=('iter_10.pth', 'from')),
        BadInput('a run begins again in its folder', twice, says=('iter_17.pth', '--resume')),
        BadInput('resumed with another seed', resume(randomness={'seed': 5}), says=('seed 3', 'seed=5')),
        BadInput('resumed with fewer data',
                 resume(train_dataloader={**loader, 'dataset': {'type': 'ToyData', 'size': 9}}), says='9 samples'),
        BadInput('resumed with another batch size', resume(train_dataloader={**loader, 'batch_size': 2}), gives=17),
        BadInput('resumed as it was', resume(), gives=17),
    ]  # fmt: skip


def _train(folder: Path, **changes: Any) -> int:
    hooks = {**toy_config('x')['default_hooks'], **changes.pop('default_hooks', {})}
    hooks['checkpoint'] = hooks['checkpoint'] and {**hooks['checkpoint'], 'interval': changes.pop('interval', 5)}
    config = {**toy_config(folder, default_hooks=hooks, **changes), 'experiment_name': f'{folder.name}{len(changes)}'}
    runner = FlorenceRunner.from_cfg(Config(config))
    runner.train()
    return runner.iter
