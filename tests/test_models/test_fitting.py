"""Tensors of another size are fitted by one rule, whichever way they get into a model."""

import pytest
import torch
from torch import nn

from florence_mm.apis.model_weights import load_whole_model
from florence_mm.models.backbones import CoSwin
from florence_mm.models.checkpoints import load_checkpoint
from florence_mm.models.checkpoints.fitting import fit_state_dict
from florence_mm.models.text import CLIPTextTower

ARCH = {'embed_dims': 8, 'depths': [2, 2], 'num_heads': [1, 2], 'window_size': 4}
TABLE = 'layers.1.blocks.0.attn.relative_position_bias_table'


def backbone(seed=0, img_size=32, **changes):
    torch.manual_seed(seed)
    return CoSwin({**ARCH, **changes}, img_size=img_size, use_abs_pos_embed=True).eval()


def other(seed=1):
    return backbone(seed, img_size=64, window_size=6)


def tower(context_length):
    torch.manual_seed(context_length)
    return CLIPTextTower(
        {'embed_dims': 8, 'num_layers': 1, 'num_heads': 2}, vocab_size=20, context_length=context_length
    )


def by_load_checkpoint(model, path):
    load_checkpoint(model, path, strict=True)


def by_load_state_dict(model, path):
    model.load_state_dict(torch.load(path, weights_only=True))


def in_a_larger_model(model, path):
    holder = nn.ModuleDict({'backbone': model})
    holder.load_state_dict({f'backbone.{key}': value for key, value in torch.load(path, weights_only=True).items()})


@pytest.mark.parametrize('load', [by_load_checkpoint, by_load_state_dict, in_a_larger_model, load_whole_model])
def test_every_way_gives_the_same_weights(tmp_path, load):
    state = backbone().state_dict()
    torch.save(state, tmp_path / 'b.pth')
    model = other()
    load(model, tmp_path / 'b.pth')
    wanted = fit_state_dict(other(2), state)
    assert set(wanted.resized) == {k for k in state if k.endswith('_bias_table')} | {'absolute_pos_embed'}
    assert wanted.resized['absolute_pos_embed'] == '(1, 64, 8) to (1, 256, 8)' and not wanted.unfit
    loaded = model.state_dict()
    assert loaded.keys() == wanted.tensors.keys()
    for key, value in wanted.tensors.items():
        assert torch.equal(value, loaded[key]), key


def test_tensors_that_fit_are_the_ones_given():
    state = backbone().state_dict()
    fitting = fit_state_dict(backbone(1), {**state, 'head.weight': torch.zeros(3)})
    assert all(fitting.tensors[key] is value for key, value in state.items())
    assert fitting.tensors.keys() == state.keys() and not (fitting.resized or fitting.inflated or fitting.unfit)


def test_what_cannot_be_fitted():
    state = backbone().state_dict()
    wrong = {
        TABLE: torch.zeros(49, 3),  # of three heads, where the model has two
        'absolute_pos_embed': torch.zeros(1, 63, 8),  # of no square map
        'norm.weight': torch.zeros(3),
    }
    fitting = fit_state_dict(other(), {**state, **wrong})
    assert sorted(fitting.unfit) == sorted(wrong) and not wrong.keys() & fitting.tensors.keys()
    with pytest.raises(RuntimeError, match=r'size mismatch for layers.1.blocks.0.attn.relative_position_bias_table'):
        other().load_state_dict({**state, TABLE: wrong[TABLE]})


def test_modules_of_other_packages_with_the_same_names():
    """They do not say their size where ours do, as the position embedding of mmpretrain's Swin."""

    def foreign(side):
        module = nn.Module()
        module.absolute_pos_embed = nn.Parameter(torch.zeros(1, side**2, 4))
        module.relative_position_bias_table = nn.Parameter(torch.zeros((2 * side - 1) ** 2, 2))
        return module

    state = foreign(3).state_dict()
    assert sorted(fit_state_dict(foreign(5), state).unfit) == ['absolute_pos_embed', 'relative_position_bias_table']
    assert fit_state_dict(foreign(3), state).tensors.keys() == state.keys()


def test_text_positions_are_cut_and_never_made_up(tmp_path):
    long, short = tower(12), tower(10)
    fitting = fit_state_dict(short, long.state_dict())
    assert torch.equal(fitting.tensors['positional_embedding'], long.positional_embedding[:10])
    assert fitting.resized == {'positional_embedding': '(12, 8) to (10, 8)'}
    assert fit_state_dict(long, short.state_dict()).unfit == ['positional_embedding']
    torch.save(long.state_dict(), tmp_path / 'long.pth')
    load_whole_model(short, tmp_path / 'long.pth')
    assert torch.equal(short.positional_embedding, long.positional_embedding[:10])
