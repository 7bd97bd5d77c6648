"""Every format with a way back: public weights come back bit by bit, and our models give their outputs elsewhere."""

import fnmatch

import pytest
import torch
from public_models import STATES

from florence_mm.models.checkpoints import EXPORTS, convert_state_dict, export_state_dict

RUN = {'mmengine_version': '0.10.7'}


def there_and_back(name, state):
    """Their tensors after both ways, the keys that were left out, and what the export says is not there."""
    found, ours, skipped = convert_state_dict(dict(state), 'a.pth', RUN if name == 'mmengine run' else {})
    assert found == name
    exported = export_state_dict(ours, name, 'a.pth')
    assert not exported.left_out
    return exported, skipped


@pytest.mark.parametrize('name', sorted(EXPORTS))
def test_public_weights_come_back_bit_by_bit(name, tmp_path):
    state = STATES[name](tmp_path)
    exported, skipped = there_and_back(name, state)
    lost = state.keys() - exported.tensors.keys()
    assert lost <= skipped.keys()
    # a tensor that does not come back is named
    names = [f'{key}*' for key in exported.absent]
    assert [key for key in lost if skipped[key] == 'computed by the model' and not named(key, names)] == []
    assert all(key.endswith('relative_position_index') for key in exported.tensors.keys() - state.keys())
    for key in exported.tensors.keys() & state.keys():
        mine, theirs = exported.tensors[key], state[key]
        assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape), key
        assert torch.equal(mine, theirs), key


def named(key, names):
    return any(fnmatch.fnmatchcase(key, name) for name in names)
