"""What a checkpoint must hold: tensors by name, finite numbers of the model's kind, and enough of the model."""

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from torch import nn

from florence_mm.apis.model_weights import load_whole_model
from florence_mm.errors import user_sentence
from florence_mm.models.checkpoints import PretrainedInit, load_checkpoint, read_checkpoint
from florence_mm.models.checkpoints.coverage import check_coverage


def save(tmp_path, content):
    torch.save(content, tmp_path / 'a.pth')
    return tmp_path / 'a.pth'


ONE = torch.ones(2)


@pytest.mark.parametrize(
    ('content', 'said'),
    [
        ({}, r'holds no tensors by name \(it is empty\)'),
        ({'state_dict': {}}, "'state_dict', empty"),
        ({'state_dict': None, 'epoch': 1}, r'\(state_dict is None\)'),
        ({'state_dict': [ONE]}, r'\(state_dict is of type list\)'),
        ({'model': 'swin'}, r'\(model is of type str\)'),
        ({'state_dict': {0: ONE}}, r'the key 0 is of type int'),
        ({'a': ONE, ('b',): ONE}, r"the key \('b',\) is of type tuple"),
        ({'a': np.ones(2)}, 'it has numpy arrays'),
        ({'a': ONE.to_sparse()}, r'a in .*a.pth is sparse \(sparse_coo\); save dense'),
        ({'a': ONE.view(1, 2).to_sparse_csr()}, r'a in .*a.pth is sparse \(sparse_csr\)'),
        ({'a': torch.ones(2, device='meta')}, r'a in .*a.pth has a shape and no values'),
        ({'a': torch.quantize_per_tensor(ONE, 1.0, 0, torch.qint8)}, 'a in .*a.pth is quantised'),
    ],
)
@pytest.mark.filterwarnings('ignore:Sparse CSR')
def test_no_state_dict(tmp_path, content, said):
    path = save(tmp_path, content)
    with pytest.raises(ValueError, match=said) as error:
        read_checkpoint(path)
    assert user_sentence(error.value) == str(error.value)


def two_parts():
    """A model of two parts of four tensors and a head of two."""
    torch.manual_seed(0)
    return nn.ModuleDict(
        {
            'image_encoder': nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)),
            'text_encoder': nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)),
            'head': nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)),
        }
    )


def by_load_checkpoint(model, path):
    load_checkpoint(model, path)


def by_init_cfg(model, path):
    PretrainedInit(str(path))(model)


def as_a_run_does(model, path):
    from florence_mm.engine.checkpointing import read_run_checkpoint
    from florence_mm.engine.run_weights import fit_run_weights

    state = read_run_checkpoint(str(path))['state_dict']
    model.load_state_dict(fit_run_weights(model, state, path, whole=False), strict=False)


def as_a_test_does(model, path):
    from florence_mm.engine.checkpointing import read_run_checkpoint
    from florence_mm.engine.run_weights import fit_run_weights

    state = read_run_checkpoint(str(path))['state_dict']
    model.load_state_dict(fit_run_weights(model, state, path, whole=True), strict=False)


LOADERS = [by_load_checkpoint, by_init_cfg, as_a_run_does, as_a_test_does, load_whole_model]


@pytest.mark.parametrize('load', LOADERS)
@pytest.mark.parametrize(
    ('wrong', 'said'),
    [
        (
            torch.tensor([[1.0, float('nan')], [0, 0]]),
            'NaN or infinite values in 1 of 12 tensors, the first is text',
        ),
        (torch.tensor([[1.0, float('-inf')], [0, 0]]), 'NaN or infinite values in 1 of 12 tensors'),
        (torch.ones(2, 2, dtype=torch.int64), 'text_encoder.1.weight in .* is of type int64, the model has float32'),
        (torch.ones(2, 2, dtype=torch.bool), 'is of type bool, the model has float32'),
        (torch.ones(2, 2, dtype=torch.complex64), 'is of type complex64, the model has float32'),
    ],
)
def test_values_that_are_no_weights(tmp_path, load, wrong, said):
    model = two_parts()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    path = save(tmp_path, {**model.state_dict(), 'text_encoder.1.weight': wrong})
    with pytest.raises(Exception, match=said) as error:
        load(model, path)
    assert user_sentence(error.value) is not None
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize('load', LOADERS)
def test_half_precision_is_no_other_kind(tmp_path, load):
    source, model = two_parts(), two_parts()
    path = save(tmp_path, {key: value.half() for key, value in source.state_dict().items()})
    load(model, path)
    assert torch.equal(model['head'][0].weight, source['head'][0].weight.half().float())


def without(state, *beginnings):
    return {key: value for key, value in state.items() if not key.startswith(beginnings)}


@pytest.mark.parametrize('load', LOADERS[:3])
def test_enough_of_a_model_for_a_new_run(tmp_path, load, monkeypatch):
    said = []
    for module in ('florence_mm.models.checkpoints.loading', 'florence_mm.engine.run_weights'):
        monkeypatch.setattr(f'{module}.print_log', lambda text, *_: said.append(text))
    state = two_parts().state_dict()
    load(two_parts(), save(tmp_path, without(state, 'head', 'text_encoder.1')))  # 6 of 12
    assert said[-1].splitlines()[-1] == (
        f'{tmp_path}/a.pth lacks 6 of the 12 tensors of ModuleDict, or has them in another shape, and they keep the '
        'values that they had: text_encoder.1.weight, text_encoder.1.bias, head.0.weight, head.0.bias, head.1.weight '
        'and 1 more.'
    )
    load(two_parts(), save(tmp_path, {**state, 'more': ONE}))
    end = 'a.pth gives all 12 tensors of ModuleDict; 1 in the file are not of the model: more.'
    assert said[-1].splitlines()[-1].endswith(end)
    with pytest.raises(Exception, match='lacks 7 of the 12 tensors .*more than half; use the config'):
        load(two_parts(), save(tmp_path, without(state, 'head', 'text_encoder.1', 'text_encoder.0.bias')))
    with pytest.raises(
        Exception, match="has none of the 4 tensors of text_encoder .*allow_missing=.'text_encoder'."
    ) as error:
        load(two_parts(), save(tmp_path, without(state, 'text_encoder')))
    assert user_sentence(error.value) is not None
    with pytest.raises(Exception, match='lacks 12 of the 12|no weight in|nothing in'):
        load(two_parts(), save(tmp_path, {'other': ONE}))


@pytest.mark.parametrize('load', LOADERS[3:])
def test_a_test_needs_all(tmp_path, load):
    state = two_parts().state_dict()
    load(two_parts(), save(tmp_path, {**state, 'more': ONE}))
    for less in (
        without(state, 'text_encoder'),
        without(state, 'head.1.bias'),
        {**state, 'head.0.bias': torch.ones(3)},
    ):
        with pytest.raises(Exception, match=r'lacks \d of the 12 tensors|has head.0.bias of shape \(3,\)') as error:
            load(two_parts(), save(tmp_path, less))
        assert user_sentence(error.value) is not None


def test_what_may_be_missing_is_said(tmp_path):
    state = two_parts().state_dict()
    path = save(tmp_path, without(state, 'text_encoder'))
    report = load_checkpoint(two_parts(), path, allow_missing=['text_encoder'])
    assert len(report.loaded) == 8 and len(report.missing) == 4
    path = save(tmp_path, {'head.0.bias': ONE})
    load_checkpoint(two_parts(), path, allow_missing=True)
    with pytest.raises(ValueError, match='lacks 4 of the 4 tensors'):
        load_checkpoint(two_parts(), path, allow_missing=['image_encoder', 'head'])
    with pytest.raises(TypeError, match=r"allow_missing is 'head'; give a list of parts, as \['head'\], or True"):
        load_checkpoint(two_parts(), path, allow_missing='head')
    model = two_parts()
    PretrainedInit(str(path), allow_missing=True)(model)
    assert torch.equal(model['head'][0].bias, ONE)


def test_counters_and_computed_buffers_are_not_needed():
    keys = ['a.w', 'a.b', 'a.num_batches_tracked', 'a.relative_position_index']
    check_coverage(keys, {'a.w', 'a.b'}, 'Model', 'a.pth', whole=True)


def test_two_of_many_tensors_are_no_load(tmp_path):
    from florence_mm.models.backbones import CoSwin

    model = CoSwin('micro')
    state = {key: value for key, value in model.state_dict().items() if key.startswith('norm.')}
    with pytest.raises(ValueError, match='lacks .* tensors of CoSwin .*, more than half'):
        load_checkpoint(model, save(tmp_path, state))


def test_weights_beside_those_that_are_read_are_told(tmp_path, capsys):
    MMLogger._instance_dict.clear()  # loggers of earlier tests write to streams that are closed
    first, second = ({'a.weight': torch.full((2,), value)} for value in (1.0, 2.0))
    optimizer = {'state': {0: {'exp_avg': torch.ones(2)}}, 'param_groups': []}
    torch.save({'state_dict': first, 'state_dict_ema': second, 'optimizer': optimizer}, tmp_path / 'w.pth')
    assert torch.equal(read_checkpoint(tmp_path / 'w.pth')[0]['a.weight'], first['a.weight'])
    said = 'w.pth: the weights under state_dict are read, and those under state_dict_ema are not'
    assert said in capsys.readouterr().out
    torch.save({'state_dict': first, 'optimizer': optimizer}, tmp_path / 'w.pth')
    read_checkpoint(tmp_path / 'w.pth')
    assert 'are not' not in capsys.readouterr().out
