"""Each gap twice: the packages as they are fail (a test that turns red once upstream is fixed), with us they work."""

import logging
import subprocess
import sys

import pytest

import florence_mm  # noqa: F401
from florence_mm.compat.gap import Gap, after_import
from florence_mm.compat.gaps import GAPS

# what goes wrong in the packages alone, and a word of the error
ALONE = {
    'torchvision operators': ('import torchvision', 'torchvision::nms'),
    'mmcv operators': (
        'import importlib; importlib.import_module("mmcv._ext")',
        'mmcv._ext',
    ),
    'mmaction2 DRN': ('import mmaction.models.localizers', 'localizers.drn'),
    'mmpretrain multimodal': (
        """
        import florence_mm
        from transformers.modeling_utils import apply_chunking_to_forward
        """,
        'apply_chunking_to_forward',
    ),
    'mmengine checkpoints': (
        """
        import io, torch
        from mmengine.logging import MessageHub
        hub = MessageHub.get_instance('test')
        hub.update_scalar('loss', 0.5)
        file = io.BytesIO()
        torch.save(hub.state_dict(), file)
        file.seek(0)
        torch.load(file)
        """,
        'HistoryBuffer',
    ),
    'mmengine package paths': ('from mmengine.utils import is_installed; is_installed("mmdet")', 'pkg_resources'),
    'mmengine package table': (
        """
        from mmengine.config.utils import _get_package_and_cfg_path
        _get_package_and_cfg_path('florence_mm::unicl/x.py')
        """,
        'florence_mm',
    ),
    'mmengine config texts': (
        """
        from mmengine.config import Config, config
        made, format_code = [], config.FormatCode
        config.FormatCode = lambda *args, **kwargs: made.append(args) or format_code(*args, **kwargs)
        assert Config({'a': 1}).pretty_text == Config({'a': 1}).pretty_text and len(made) < 2, 'formatted twice'
        """,
        'formatted twice',
    ),
    'mmengine config keys': (
        "from mmengine.config import Config; Config({'columns': {'class': 'kind'}}).pretty_text",
        'SyntaxError',
    ),
    'CPU process groups': (
        """
        import os
        os.environ.update(RANK='0', LOCAL_RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1', MASTER_PORT='29655')
        from mmengine.dist import init_dist
        init_dist('pytorch', 'gloo')
        """,
        'cuda',
    ),
    'process groups at exit': (
        """
        import atexit, os
        os.environ.update(RANK='0', LOCAL_RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1', MASTER_PORT='29658')
        import torch
        from mmengine.dist import init_dist
        torch.cuda.set_device, torch.cuda.device_count = (lambda device: None), (lambda: 1)
        @atexit.register
        def at_exit():
            os.write(2, b'open at exit')
            os._exit(torch.distributed.is_initialized())
        init_dist('pytorch', 'gloo')
        """,
        'open at exit',
    ),
    'CPU data parallel': (
        """
        import os
        from types import SimpleNamespace
        os.environ.update(RANK='0', LOCAL_RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1', MASTER_PORT='29657')
        import torch
        from mmengine.runner import Runner
        torch.distributed.init_process_group('gloo')
        Runner.wrap_model(SimpleNamespace(cfg={}, distributed=True), None, torch.nn.Linear(1, 1))
        """,
        'device_ids',
    ),
    'CPU mixed precision': (
        """
        import torch
        from mmengine.optim import AmpOptimWrapper
        AmpOptimWrapper(optimizer=torch.optim.SGD([torch.zeros(1)], 0.1), dtype='bfloat16')
        """,
        'only available training on gpu',
    ),
}


def has_gap(name):
    """Whether a gap that depends on the machine is there; compat may not have met its module yet."""
    gap = next(gap for gap in GAPS if gap.name == name)
    # asking may import the module, and that patches it
    return gap.state == 'patched' or gap.needed() or gap.state == 'patched'


def on_cpu():
    from mmengine.device import get_device

    return get_device() == 'cpu'


@pytest.mark.parametrize('name', ALONE)
def test_gap_is_there_without_us(fresh_process, name):
    code, word = ALONE[name]
    if name in ('torchvision operators', 'mmcv operators') and not has_gap(name):
        pytest.skip('runs where torch is a CPU build beside a CUDA torchvision and mmcv is mmcv-lite, as in CI')
    if name.startswith('CPU') and not on_cpu():
        pytest.skip('runs on machines without a GPU')
    result = fresh_process(code)
    assert result.returncode != 0, f'{name}: upstream no longer needs the patch; remove it'
    assert word in result.stderr.splitlines()[-1] or word in result.stderr[-1500:]


def test_every_model_package_imports_whatever_comes_first(fresh_process):
    result = fresh_process(
        """
        import mmengine.runner   # before us, as in a user's script
        import florence_mm
        import torchvision, mmcv.ops, mmaction.models, mmdet.models, mmpretrain.models, mmdet.datasets
        from florence_mm.compat.gaps import GAPS
        print(sorted({gap.state for gap in GAPS} - {'not needed'}))
        """
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.strip() == "['patched']"


FIRSTS = ('torch', 'torchvision', 'mmengine.runner', 'mmdet.utils', 'florence_mm.compat.gaps')
ORDERS = f"""
import importlib, os, sys
import florence_mm
assert not {{'torch', 'mmengine'}} & set(sys.modules)
for first in {FIRSTS}:
    if os.fork() == 0:
        importlib.import_module(first)
        gaps = sys.modules['florence_mm.compat.gaps'].GAPS
        open_ones = [gap.name for gap in gaps if gap.state not in ('patched', 'not needed')]
        assert [gap.name for gap in gaps if gap.after and gap.after not in sys.modules] == open_ones, open_ones
        print(first, flush=True)
        os._exit(0)
    os.wait()
"""


def test_patches_wait_for_the_first_import_of_any_package():
    """Importing us takes no torch, and whatever is then imported first finds its patches applied."""
    result = subprocess.run([sys.executable, '-c', ORDERS], capture_output=True, text=True, timeout=300)
    assert result.stdout.splitlines() == list(FIRSTS), result.stderr[-2000:]
    assert {gap.package for gap in GAPS} <= set(florence_mm.compat.PACKAGES)


def test_operator_that_is_not_compiled_names_itself():
    import pkgutil

    import torch
    from mmcv.ops import nms

    if not has_gap('mmcv operators'):
        pytest.skip('runs where mmcv is mmcv-lite, as in CI')
    import importlib

    assert importlib.util.find_spec('mmcv._ext') is not None
    if hasattr(pkgutil, 'find_loader'):
        assert pkgutil.find_loader('mmcv._ext') is not None
    import mmcv._ext as ext

    with pytest.raises(NotImplementedError, match=r"'ball_query_forward'.*pip install mmcv==2.1.0"):
        ext.ball_query_forward(torch.zeros(1))
    assert callable(nms)


def test_checkpoint_of_mmengine_loads_with_weights_only(tmp_path):
    import numpy as np
    import torch
    from mmengine.logging import HistoryBuffer, MessageHub

    hub = MessageHub.get_instance('compat_test')
    hub.update_scalar('loss', 0.25)
    hub.update_scalar('loss', np.float64(0.75))
    torch.save({'message_hub': hub.state_dict(), 'array': np.arange(3)}, tmp_path / 'a.pth')
    loaded = torch.load(tmp_path / 'a.pth', weights_only=True)
    buffer = loaded['message_hub']['log_scalars']['loss']
    assert isinstance(buffer, HistoryBuffer)
    assert buffer.mean() == 0.5 and buffer.statistics('max') == 0.75
    assert loaded['array'].tolist() == [0, 1, 2]


def test_checkpoint_that_asks_for_other_attributes_is_refused(tmp_path):
    import torch
    from mmengine.logging import HistoryBuffer

    class Evil:
        def __reduce__(self):
            return getattr, (HistoryBuffer, '__init__')

    torch.save({'x': Evil()}, tmp_path / 'evil.pth')
    with pytest.raises(Exception, match='only statistics of HistoryBuffer'):
        torch.load(tmp_path / 'evil.pth', weights_only=True)


def test_package_paths():
    from pathlib import Path

    import mmdet
    from mmengine.config import config
    from mmengine.utils import get_installed_path, is_installed

    assert is_installed('mmdet') and is_installed('mmaction2') and not is_installed('no_such_package')
    assert get_installed_path('mmdet') == str(Path(mmdet.__file__).parent)
    assert Path(get_installed_path('mmaction2')).name == 'mmaction'
    # the module that resolves `_base_` uses the same function
    assert config.get_installed_path is get_installed_path


def test_user_config_inherits_from_other_packages(tmp_path):
    from mmengine.config import Config

    file = tmp_path / 'mine.py'
    file.write_text("_base_ = 'mmdet::_base_/models/retinanet_r50_fpn.py'\nmodel = dict(backbone=dict(depth=18))\n")
    cfg = Config.fromfile(file)
    assert cfg.model.backbone.depth == 18 and cfg.model.neck.type == 'FPN'


@pytest.mark.parametrize('key', ['class', "women's", 'say "it\'s"', 'C:\\new', 'two\nlines', 'ﬁ', 'a b', None, True, 3])
def test_config_with_any_key_is_written_and_read(key, tmp_path):
    from mmengine.config import Config

    columns = {'title': 'text', 'if': {key: [({key: 1}, 'x')]}}
    cfg = Config({'columns': columns, 'steps': [{'type': 'X', 'columns': columns}]})
    cfg.dump(tmp_path / 'config.py')
    read = Config.fromfile(tmp_path / 'config.py')
    assert read.to_dict() == cfg.to_dict() and read.columns == columns
    assert Config({'name': {'type': 'X'}}).pretty_text == "name = dict(type='X')\n"


def test_text_of_a_config_is_formatted_once(monkeypatch):
    from mmengine.config import Config, config
    from yapf.yapflib import yapf_api

    made = []
    format_code = yapf_api.FormatTree
    monkeypatch.setattr(yapf_api, 'FormatTree', lambda *a, **k: made.append(a) or format_code(*a, **k))
    cfg = Config({'some_key': {'of_this_test': [1, 2]}})
    first = cfg.pretty_text
    assert cfg.pretty_text == first == 'some_key = dict(of_this_test=[\n    1,\n    2,\n])\n' and len(made) == 1
    # a changed config has another text, and so has another style
    cfg.some_key.of_this_test = 3
    assert cfg.pretty_text == 'some_key = dict(of_this_test=3)\n' and len(made) == 2
    styles = ({'indent_width': 2}, {'indent_width': 8})
    assert [config.FormatCode('if a:\n    b()', style)[0] for style in styles] == [
        'if a:\n  b()\n',
        'if a:\n        b()\n',
    ]


def test_process_group_on_cpu(fresh_process):
    code = """
        import os
        os.environ.update(RANK='0', LOCAL_RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1', MASTER_PORT='29656')
        import torch, florence_mm
        from mmengine.dist import get_backend, init_dist
        before = torch.cuda.set_device
        init_dist('pytorch')
        print(get_backend(), torch.cuda.set_device is before)
    """
    if not has_gap('CPU process groups'):
        pytest.skip('runs on machines without a GPU')
    result = fresh_process(code)
    assert result.stdout.split()[-2:] == ['gloo', 'True'], result.stderr[-1000:]


def test_process_group_is_closed_at_exit(fresh_process):
    code = """
        import atexit, os
        os.environ.update(RANK='0', LOCAL_RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1', MASTER_PORT='29659')
        import florence_mm, torch
        from mmengine.dist import init_dist
        atexit.register(lambda: print('open' if torch.distributed.is_initialized() else 'closed'))
        init_dist('pytorch', 'gloo')
        print('open' if torch.distributed.is_initialized() else 'closed')
    """
    result = fresh_process(code)
    assert result.returncode == 0, result.stderr[-1000:]
    assert result.stdout.split()[-2:] == ['open', 'closed']


def test_mixed_precision_on_cpu():
    import warnings

    import torch
    from mmengine.optim import AmpOptimWrapper
    from mmengine.optim.optimizer import amp_optimizer_wrapper

    if not on_cpu():
        pytest.skip('runs on machines without a GPU')
    model = torch.nn.Linear(4, 2)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        wrapper = AmpOptimWrapper(optimizer=torch.optim.SGD(model.parameters(), 1.0), dtype='bfloat16')
    with wrapper.optim_context(model):
        y = model(torch.ones(3, 4))
    assert y.dtype == torch.bfloat16
    before = model.bias.detach().clone()
    wrapper.update_params(y.float().sum())
    # three samples with a gradient of one each, not scaled
    torch.testing.assert_close(before - model.bias, torch.full((2,), 3.0))
    wrapper.load_state_dict(wrapper.state_dict())
    # mmengine was told of an accelerator while it built the wrapper alone
    assert not amp_optimizer_wrapper.is_cuda_available()
    # everything reaches mmengine, by name or by place
    made = AmpOptimWrapper(4.0, 'bfloat16', False, optimizer=wrapper.optimizer, accumulative_counts=2)
    assert (made.cast_dtype, made._scale_update_param, made._accumulative_counts) == (torch.bfloat16, 4.0, 2)
    assert type(made.loss_scaler).__name__ == 'GradScaler'
    made = AmpOptimWrapper('dynamic', None, True, optimizer=wrapper.optimizer)
    assert type(made.loss_scaler).__name__ == 'ShardedGradScaler' and made.cast_dtype is None
    for dtype in ('float16', torch.float16):
        with pytest.raises(ValueError, match="'float16' needs a GPU; on a CPU use 'bfloat16'"):
            AmpOptimWrapper(optimizer=torch.optim.SGD(model.parameters(), 1.0), dtype=dtype)


def test_data_parallel_on_cpu(monkeypatch):
    from types import SimpleNamespace

    import torch
    from mmengine.runner import Runner

    if not on_cpu():
        pytest.skip('runs on machines without a GPU')
    monkeypatch.setenv('LOCAL_RANK', '0')
    runner = SimpleNamespace(cfg={'find_unused_parameters': True}, distributed=True)
    torch.distributed.init_process_group('gloo', store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        wrapped = [
            Runner.wrap_model(runner, config, torch.nn.Linear(1, 1))
            for config in (None, {'type': 'MMDistributedDataParallel', 'detect_anomalous_params': True})
        ]
        assert Runner.wrap_model(runner, None, wrapped[0]) is wrapped[0]
    finally:
        torch.distributed.destroy_process_group()
    # mmengine's own settings without a config, and torch's beside those of a config
    found = [
        (type(m).__name__, m.device_ids, m.broadcast_buffers, m.find_unused_parameters, m.detect_anomalous_params)
        for m in wrapped
    ]
    name = 'MMDistributedDataParallel'
    assert found == [(name, None, False, True, False), (name, None, True, False, True)]


def test_wrappers_of_data_parallel_get_what_their_config_says(monkeypatch):
    from types import SimpleNamespace

    import torch
    from mmengine.model import MMDistributedDataParallel
    from mmengine.registry import MODEL_WRAPPERS
    from mmengine.runner import Runner

    if not on_cpu():
        pytest.skip('runs on machines without a GPU')
    monkeypatch.setenv('LOCAL_RANK', '0')
    seen = []

    class NoData(torch.nn.Module):
        def __init__(self, module, **kwargs):
            super().__init__()
            seen.append(kwargs)

    class OnDevices(MMDistributedDataParallel):
        def __init__(self, module, device_ids=(), **kwargs):
            seen.append({'device_ids': device_ids, **kwargs})
            super().__init__(module, **kwargs)

    for kind in (NoData, OnDevices):
        monkeypatch.setitem(MODEL_WRAPPERS._module_dict, kind.__name__, kind)
    model, runner = torch.nn.Linear(1, 1), SimpleNamespace(cfg={}, distributed=True)
    torch.distributed.init_process_group('gloo', store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        configs = [{'type': 'NoData', 'depth': 3}, {'type': 'OnDevices'}, {'type': 'OnDevices', 'device_ids': [7]}]
        before = [dict(config) for config in configs]
        for config in configs:
            Runner.wrap_model(runner, config, model)
        assert not Runner.wrap_model(runner, None, model).find_unused_parameters
    finally:
        torch.distributed.destroy_process_group()
    assert configs == before
    # device_ids are torch's; a wrapper of another kind knows none, and one that names its own keeps them
    assert seen[0].pop('module', model) is model and seen[0] == {'depth': 3}
    assert [kwargs['device_ids'] for kwargs in seen[1:]] == [None, [7]]
    # one process: no wrapper, so none is looked up
    runner = SimpleNamespace(cfg={}, distributed=False, logger=logging.getLogger('nobody'))
    assert Runner.wrap_model(runner, {'type': 'NoSuchWrapper'}, model) is model


@pytest.mark.parametrize('name', ['CPU mixed precision', 'CPU data parallel'])
def test_gaps_of_the_cpu_are_none_with_a_gpu(monkeypatch, name):
    import mmengine.device
    from mmengine.optim.optimizer import amp_optimizer_wrapper

    def refuse(**kwargs):
        raise AssertionError

    gap = next(gap for gap in GAPS if gap.name == name)
    monkeypatch.setattr(amp_optimizer_wrapper, 'AmpOptimWrapper', refuse)
    for device in ('cpu', 'cuda'):
        monkeypatch.setattr(mmengine.device, 'get_device', lambda d=device: d)
        assert gap.needed() == (device == 'cpu')


def test_heads_of_mmaction_count_scores_in_bfloat16():
    """As ``--amp`` and split weights give them."""
    import torch
    from mmaction.models import I3DHead
    from mmaction.structures import ActionDataSample
    from mmengine.registry import DefaultScope

    gap = next(gap for gap in GAPS if gap.name == 'mmaction2 bfloat16 scores')
    assert gap.state == 'patched'
    with DefaultScope.overwrite_default_scope('mmaction'):
        head = I3DHead(num_classes=3, in_channels=4, average_clips='prob')
    scores = torch.tensor([[1.0, 3.0, 2.0], [4.0, 0.0, 1.0]], dtype=torch.bfloat16)
    losses = head.loss_by_feat(scores, [ActionDataSample().set_gt_label(label) for label in (1, 2)])
    assert losses['top1_acc'].item() == 0.5
    expected = torch.nn.functional.cross_entropy(scores.float(), torch.tensor([1, 2]))
    told = head.predict_by_feat(scores, [ActionDataSample(), ActionDataSample()])
    assert torch.equal(torch.stack([one.pred_score for one in told]), scores.float().softmax(1))
    assert losses['loss_cls'].dtype == torch.float32 and torch.equal(losses['loss_cls'], expected)


def test_recognizer_of_mmaction_unpacks_only_a_single_map():
    import torch
    from mmaction.models import Recognizer2D
    from mmengine.registry import DefaultScope

    gap = next(gap for gap in GAPS if gap.name == 'mmaction2 feature tuples')
    assert gap.needed(), 'upstream no longer needs the patch; remove it'

    def features(source, **backbone):
        with DefaultScope.overwrite_default_scope('mmaction'):
            model = Recognizer2D(backbone=backbone)
        assert model.backbone_from == source
        return model.extract_feat(torch.randn(1, 2, 3, 32, 32), stage='backbone')[0]

    ours = {'type': 'florence_mm.CoSwin', 'arch': 'micro', 'img_size': 32}
    # (2 frames, channels, height, width) after strides of 4, 8 and 16
    assert features('mmpretrain', **ours, patch_size=4, out_indices=(2,)).shape == (2, 128, 2, 2)
    several = features('mmaction2', **ours, patch_size=4, out_indices=(0, 2))
    assert [tuple(one.shape) for one in several] == [(2, 32, 8, 8), (2, 128, 2, 2)]
    # mmaction2's own are left alone
    resnet = {'type': 'mmaction.ResNet', 'depth': 18, 'norm_eval': False, 'out_indices': (3,)}
    assert features('mmaction2', **resnet).shape == (2, 512, 1, 1)


def test_gap_waits_for_the_import_and_stops_when_not_needed(tmp_path, monkeypatch):
    (tmp_path / 'late_module.py').write_text('value = 1\n')
    monkeypatch.syspath_prepend(tmp_path)
    calls = []
    gap = Gap('late', 'late_module', 'why', lambda: True, lambda module: calls.append(module.value), 'late_module')
    gap.install()
    assert gap.state == 'waits for its import' and not calls
    import late_module

    gap.install()
    assert calls == [1] and gap.state == 'patched'
    after_import('late_module', lambda module: calls.append(module))
    assert calls == [1, late_module]
    fixed = Gap('fixed', 'late_module', 'why', lambda: False, lambda: calls.append('never'))
    fixed.install()
    assert fixed.state == 'not needed' and 'never' not in calls
    absent = Gap('absent', 'no_such_package', 'why', lambda: True, lambda: calls.append('never'))
    absent.install()
    assert absent.state == 'not installed' and 'never' not in calls
