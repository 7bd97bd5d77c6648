"""The tools for GPUs, as far as a CPU runs them."""

import importlib.util
import re
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope

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
    return load(TOOLS / 'benchmarks/gpu.py')


def test_without_a_gpu_there_is_a_sentence(gpu, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(sys, 'argv', ['gpu.py'])
    assert gpu.main() == 0
    assert capsys.readouterr().out == (
        'torch finds no GPU, so there is nothing to measure; --tiny tries the calls on the CPU\n'
    )


def test_a_part_without_time_and_one_that_fails_do_not_end_the_others(gpu, monkeypatch, capsys):
    def fails(setting):
        raise RuntimeError('CUDA out of memory\nmore')
        yield

    monkeypatch.setattr(gpu, 'PARTS', {'pretraining': fails, 'detection': lambda setting: iter(['a figure'])})
    monkeypatch.setattr(sys, 'argv', ['gpu.py', '--tiny'])
    assert gpu.main() == 1
    assert capsys.readouterr().out == 'pretraining: failed, RuntimeError: CUDA out of memory\na figure\n'
    monkeypatch.setattr(sys, 'argv', ['gpu.py', '--tiny', '--seconds', '-1'])
    assert gpu.main() == 0
    assert 'detection: no time is left; run it with --only detection' in capsys.readouterr().out


@pytest.mark.parametrize('part', ['pretraining', 'detection'])
def test_the_parts_run_on_small_models(gpu, part):
    init_default_scope('florence_mm')
    setting = gpu.Setting(torch.device('cpu'), tiny=True, until=time.monotonic() - 1)
    lines = list(gpu.PARTS[part](setting))
    assert re.search(r': \d+\.\d+ (pairs/s \(tiny\)|it/s)$', lines[0])
    assert any('waits of a step' in line for line in lines)
    assert any(re.search(r'time: .*matrix products \d+%', line) for line in lines)


def test_the_first_fitting_kind_of_a_kernel_is_counted(gpu):
    kinds = [
        next(kind for kind, words in gpu.KINDS.items() if any(word in name for word in words))
        for name in ('sm90_xmma_gemm_bf16', 'fmha_cutlassf_bf16'.replace('cutlass', ''), 'vectorized_layer_norm_kernel')
    ]
    assert kinds == ['matrix products', 'attention', 'norms']
    assert gpu._in_words('waits', Counter({'a.py:3': 2})) == "waits: 2 {'a.py:3': 2}"


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
