"""The tools for GPUs, as far as a CPU runs them."""

import importlib.util
import json
import re
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

TOOLS = Path(__file__).parents[2] / 'tools'
DIGITS = TOOLS.parent / 'configs/unicl/unicl_coswin-micro_1xb64-36e_digits.py'


def load(path):
    """A tool as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def gpu():
    sys.path.insert(0, str(TOOLS / 'benchmarks'))
    yield load(TOOLS / 'benchmarks/gpu.py')
    sys.path.remove(str(TOOLS / 'benchmarks'))


@pytest.fixture
def command(gpu, monkeypatch, tmp_path):
    """Run the script; returns its status and the rows of its file."""

    def run(*arguments):
        file = tmp_path / 'gpu.json'
        monkeypatch.setattr(sys, 'argv', ['gpu.py', '--device', 'cpu', *arguments, '--out', str(file)])
        status = gpu.main()
        return status, json.loads(file.read_text())['rows']

    threads = torch.get_num_threads()
    yield run
    torch.set_num_threads(threads)


def test_without_a_gpu_there_is_a_sentence(gpu, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(sys, 'argv', ['gpu.py'])
    assert gpu.main() == 0
    assert capsys.readouterr().out == (
        'torch finds no GPU, so there is nothing to measure; --device cpu --dry-run tries the calls on the CPU\n'
    )


def test_the_dry_run_has_every_part(gpu, command):
    parts = [name for name in gpu.PARTS if name != 'operators']
    status, rows = command('--dry-run', '--only', *parts)
    assert status == 0
    assert [part for part in gpu.PARTS if any(row['part'] == part for row in rows)] == parts
    assert not [row for row in rows if 'failed' in row['note'] or 'ended' in row['note']]
    found = {row['name']: row for row in rows}
    for peer, ratio, target in (
        ('loss of 64 pairs, open_clip', 'loss of 64 pairs, ours / open_clip', 1.5),
        ('Swin-B, inference, timm, compiled', 'Swin-B, inference, compiled / timm, compiled', 1.0),
    ):
        absent = found[peer]['note'].startswith('left out: ')
        assert absent if ratio not in found else found[ratio]['target'] == target
    assert found['UniCL training, batch 4, blocks compiled']['target'] == 600
    assert found['UniCL training, waits of a step']['value'] == 0  # as there is no device to wait for
    assert 'matrix products' in found['UniCL training, eager, time']['note']
    assert all(row['value'] > 0 for row in rows if row['unit'].endswith('/s') and row['value'] is not None)


def test_every_operator_has_a_case_or_a_reason(gpu):
    module = sys.modules['gpu_operators']
    files = {path.stem for path in (TOOLS.parent / 'florence_mm/ops').glob('*.py')} - {'__init__'}
    assert {case.file for case in module.CASES} | set(module.WITHOUT) == files
    assert not {case.file for case in module.CASES} & set(module.WITHOUT)


def test_operators_are_compared(command):
    status, rows = command('--dry-run', '--only', 'operators')
    found = {row['name']: row for row in rows}
    assert status == 0 and found['operators, float32']['value'] == 0.0  # the CPU beside itself
    assert 1e-3 < found['operators, bfloat16']['value'] < 4e-2


def test_an_operator_that_differs_fails_the_run(gpu, command, monkeypatch):
    module = sys.modules['gpu_operators']
    calls = iter(range(100))
    wrong = module.Case('x', 'wrong', {'x': (3,)}, lambda x, on: x + 0.01 * next(calls))
    monkeypatch.setattr(module, 'CASES', (wrong, module.Case('x', 'NaN', {'x': (3,)}, lambda x, on: x * float('nan'))))
    status, rows = command('--dry-run', '--only', 'operators')
    assert status == 1
    largest = torch.randn(3, generator=torch.Generator().manual_seed(0)).abs().max()
    assert rows[1]['name'] == 'wrong, float32' and rows[1]['value'] == pytest.approx(0.01 / largest.item(), rel=1e-3)
    assert 'differs from the CPU by more than 0.0001' in rows[1]['note']
    assert rows[-1]['note'] == 'failed, ValueError: 3 cases are wrong: wrong, float32, NaN, float32, NaN, bfloat16'


def test_the_largest_difference_is_relative(gpu):
    differ = sys.modules['gpu_operators'].largest_difference
    assert differ([torch.tensor([1.0, 9.0])], [torch.tensor([1.0, 10.0])]) == pytest.approx(0.1)
    assert differ([torch.tensor([0.5])], [torch.tensor([0.25])]) == 0.25
    assert differ([torch.ones(2)], [torch.ones(3)]) == float('inf')


def test_a_part_without_time_and_one_that_fails_do_not_end_the_others(gpu, command, monkeypatch, capsys):
    row = sys.modules['gpu_common'].Row

    def fails(setting):
        raise RuntimeError('CUDA out of memory\nmore')
        yield

    def slow(setting):
        yield row('the first', 2.0, 'it/s', 4)
        time.sleep(5)
        yield row('never')

    parts = {'fails': gpu.Part(fails, 9), 'slow': gpu.Part(slow, 0.2), 'last': gpu.Part(lambda _: [row('a figure')], 9)}
    monkeypatch.setattr(gpu, 'PARTS', parts)
    start = time.monotonic()
    status, rows = command('--dry-run')
    assert status == 1 and time.monotonic() - start < 4
    assert capsys.readouterr().out.splitlines()[1:] == [
        'fails: failed, RuntimeError: CUDA out of memory',
        'the first: 2 it/s (target on an H100: 4)',
        'slow: ended after its 0 s; run it with --only slow --seconds 3600',
        'a figure: ',
    ]
    assert [one['name'] for one in rows] == ['fails', 'the first', 'slow', 'a figure']
    status, rows = command('--dry-run', '--seconds', '1e-9')
    assert status == 0 and rows[1]['note'] == 'no time is left; run it with --only slow'


def test_an_absent_peer_is_a_row_that_says_so(gpu):
    common = sys.modules['gpu_common']

    def absent():
        import there_is_no_such_package  # noqa: F401

    setting = common.Setting(torch.device('cpu'), tiny=True, until=0.0)
    ours, peer = common.beside(
        'work', {'ours': lambda: lambda: None, 'peer': absent}, setting, targets={'ours': ('peer', 1.0)}
    )
    assert ours.value > 0 and ours.note == ''
    assert peer.value is None and peer.note == "left out: No module named 'there_is_no_such_package'"


def test_the_first_fitting_kind_of_a_kernel_is_counted(gpu):
    module = sys.modules['gpu_training']
    kinds = [
        next(kind for kind, words in module.KINDS.items() if any(word in name for word in words))
        for name in ('sm90_xmma_gemm_bf16', 'fmha_cutlassf_bf16'.replace('cutlass', ''), 'vectorized_layer_norm_kernel')
    ]
    assert kinds == ['matrix products', 'attention', 'norms']
    assert module.in_words(Counter({'a.py:3': 2})) == {'value': 2, 'note': 'a.py:3 2'}


def test_memory_of_a_config(monkeypatch, capsys):
    tool = load(TOOLS / 'analysis_tools/get_memory.py')
    monkeypatch.setattr(sys, 'argv', ['get_memory.py', str(DIGITS), '--batch-size', '4'])
    tool.main()
    out = capsys.readouterr().out.splitlines()
    assert re.match(r'\d+ M trained parameters, batch 4, 32 x 32 pixels', out[0])
    assert [line[:28].strip() for line in out[2:]] == [
        'nothing',
        'WindowBlock',
        'TextBlock',
        'WindowBlock and TextBlock',
    ]
    assert all(line.endswith(' fits') for line in out[2:])
    monkeypatch.setattr(sys, 'argv', ['get_memory.py', str(DIGITS), '--gpu', '4'])
    tool.main()
    assert capsys.readouterr().out.splitlines()[2].endswith('does not fit')


def test_memory_by_component(monkeypatch, capsys):
    tool = load(TOOLS / 'analysis_tools/get_memory.py')
    monkeypatch.setattr(sys, 'argv', ['get_memory.py', str(DIGITS), '--ranks', '8', '--micro-batch', '4'])
    tool.main()
    out = capsys.readouterr().out.splitlines()
    assert out[1].split()[-5:] == ['recomputed', '+', 'parts', 'of', '4']
    rows = {line[:30].strip(): [float(value) for value in line[30:].split()] for line in out[2:]}
    copy, split, recomputed, parts = rows['activations']
    # a sixteenth of the batch's 64 pairs
    assert copy > split > recomputed > 10 * parts
    assert rows['weights'][0] == pytest.approx(8 * rows['weights'][1], abs=0.004)
    assert list(rows)[-2:] == ['CUDA, NCCL, fragments', 'total']
    monkeypatch.setattr(sys, 'argv', ['get_memory.py', str(DIGITS), '--micro-batch', '4'])
    with pytest.raises(SystemExit):
        tool.main()
    assert '--micro-batch is a column of the table by component; give --ranks too' in capsys.readouterr().err


def test_three_sides_are_refused(monkeypatch, capsys):
    tool = load(TOOLS / 'analysis_tools/get_memory.py')
    monkeypatch.setattr(sys, 'argv', ['get_memory.py', str(DIGITS), '--shape', '8', '8', '8'])
    with pytest.raises(SystemExit) as ended:
        tool.main()
    assert ended.value.code == 2
    assert '--shape [8, 8, 8] must be height and width, or one number for both' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('config', 'name'),
    [
        ('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 'FasterRCNN'),
        ('mmpretrain::resnet/resnet18_8xb32_in1k.py', 'ImageClassifier'),
    ],
)
def test_models_that_need_values_are_refused(monkeypatch, capsys, config, name):
    tool = load(TOOLS / 'analysis_tools/get_memory.py')
    monkeypatch.setattr(sys, 'argv', ['get_memory.py', config, '--shape', '64'])
    with pytest.raises(SystemExit) as ended:
        tool.main()
    assert ended.value.code == 2
    assert re.match(f'error: a {name} cannot be run on shapes alone .*; give a config', capsys.readouterr().err)
