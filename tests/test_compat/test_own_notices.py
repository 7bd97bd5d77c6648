"""What packages say of their own code: heard without the patches, not with them."""

import os
import warnings
from types import SimpleNamespace

import mmengine.fileio.file_client as file_client
import pytest
import torch
from mmdet.models.dense_heads.anchor_head import AnchorHead
from mmengine.model import MMDistributedDataParallel
from mmengine.utils.dl_utils.setup_env import set_multi_processing

from florence_mm.compat import own_notices

GAPS = {gap.name: gap for gap in own_notices.GAPS}


def ask_for_anchors():
    return AnchorHead.num_anchors.fget(SimpleNamespace(prior_generator=SimpleNamespace(num_base_priors=[1])))


def wrap_for_processes():
    torch.distributed.init_process_group('gloo', store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        MMDistributedDataParallel(torch.nn.Linear(1, 1), broadcast_buffers=False)
    finally:
        torch.distributed.destroy_process_group()


def set_threads():
    # torch.multiprocessing's start method and OpenCV's threads stay as they are
    set_multi_processing(mp_start_method=None, opencv_num_threads=0, distributed=True)
    assert os.environ['MKL_NUM_THREADS'] == os.environ['OMP_NUM_THREADS'] == '1'


@pytest.mark.parametrize(
    ('name', 'work', 'other'),
    [
        ('mmdet number of anchors', ask_for_anchors, '`anchor_generator` is deprecated'),
        ('mmengine buffers of processes', wrap_for_processes, '`bucket_cap_mb` is deprecated'),
        ('mmengine threads of processes', set_threads, 'Setting CUDA_VISIBLE_DEVICES'),
    ],
)
def test_a_warning_is_heard_without_the_patch_alone(name, work, other, monkeypatch):
    monkeypatch.setattr(os, 'environ', {**os.environ})
    for threads in ('MKL_NUM_THREADS', 'OMP_NUM_THREADS'):
        os.environ.pop(threads, None)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        assert GAPS[name].needed(), f'{name}: upstream no longer needs the patch; remove it'
        work()
        before, heard = len(said), [str(warning.message) for warning in said]
        assert before and GAPS[name].state == 'patched'
        for threads in ('MKL_NUM_THREADS', 'OMP_NUM_THREADS'):
            os.environ.pop(threads, None)
        GAPS[name].patch(None)
        work()
        warnings.warn(other, stacklevel=1)
    assert [str(warning.message) for warning in said[before:]] == [other], heard


def test_of_the_file_client(monkeypatch):
    said = []
    module = SimpleNamespace(print_log=lambda *args: said.append(args))
    (gap,) = (gap for gap in own_notices.GAPS if gap.name == 'mmengine file client')
    gap.patch(module)
    monkeypatch.setattr(file_client, 'print_log', module.print_log)
    file_client.FileClient.infer_client(uri='folder')
    assert said == []
    module.print_log('the disk is slow', logger='current', level=30)
    assert said.pop() == ('the disk is slow', 'current', 30)
    # mmengine's own is heard
    monkeypatch.setattr(file_client, 'print_log', lambda message, **kwargs: said.append(message))
    file_client.FileClient.infer_client(uri='folder')
    assert said[0].startswith('"FileClient" will be deprecated'), 'upstream no longer needs the patch; remove it'
    assert gap.needed() and gap.state == 'patched'
