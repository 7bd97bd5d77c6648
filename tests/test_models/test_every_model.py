"""What holds for every registered model and part of one, held by each there is; a new one is tested by existing.

See ``instances.py`` for how a class comes to have a small instance, without which the first test fails.
"""

import functools
import math
from copy import deepcopy

import pytest
import torch
from instances import (
    assert_gradients,
    assert_same,
    build,
    complaints,
    differ,
    find_smalls,
    names_of,
    protocols,
    registered,
)
from kinds import Tokenizer
from whole_kinds import FusionHead, VisionLanguage

from florence_mm.models.checkpoints import load_checkpoint

SMALLS = find_smalls()
# tokenizers have no weights; heads of models over images and texts are tested in every model that has what they need
MODULES = [name for name, small in SMALLS.items() if not isinstance(small.kind, Tokenizer | FusionHead)]
every_module = pytest.mark.parametrize('name', MODULES)


@torch.no_grad()
def run(name, module, items=None):
    """Outputs of items, by default of three. Making these may drop what a model keeps, such as features of classes."""
    kind = SMALLS[name].kind
    return kind.outputs(module, kind.items(module) if items is None else items)


@functools.cache
def shared(name):
    """An instance that no test changes, and what it gives for its three items together."""
    module = build(name)
    return module, run(name, module)


# --- all there is -----------------------------------------------------------------------------------------------------


def test_every_registered_class_has_a_small_instance():
    found = complaints(registered(), SMALLS)
    assert not found, '\n'.join(found)


def test_a_class_without_a_small_instance_is_named_with_the_place_for_one(tmp_path):
    classes = {'CoSwin': registered()['CoSwin']}
    (sentence,) = complaints(classes, {})
    assert sentence.startswith('CoSwin (florence_mm.models.backbones.coswin) is registered and has no small instance')
    assert 'tests/test_models/small_<family>.py' in sentence
    # a file of that name is enough
    (tmp_path / 'small_swin.py').write_text(
        'from instances import Small\nSMALL = {"CoSwin-other": Small({"type": "CoSwin"}, None)}\n'
    )
    find = find_smalls.__wrapped__  # without its cache
    assert complaints(classes, find(tmp_path)) == []
    (sentence,) = complaints({}, find(tmp_path))
    assert sentence.startswith("'CoSwin-other' builds CoSwin, which florence_mm.models does not register")
    (tmp_path / 'small_twin.py').write_text((tmp_path / 'small_swin.py').read_text())
    with pytest.raises(ValueError, match=r"small_twin.py has 'CoSwin-other', which another file has too"):
        find(tmp_path)
    (tmp_path / 'small_twin.py').write_text('')
    with pytest.raises(ValueError, match=r'small_twin.py has no SMALL; give it a dict'):
        find(tmp_path)


@pytest.mark.parametrize('name', SMALLS)
def test_a_class_says_which_protocols_it_fulfils(name):
    made = shared(name)[0] if name in MODULES else inside(name) or build(name)
    fulfilled = {protocol for protocol, cls in protocols().items() if isinstance(made, cls)}
    assert fulfilled == set(SMALLS[name].protocols), f'protocols of {name!r} in its small_*.py are out of date'


def inside(head):
    """A head of models over images and texts in one of them, which gives it its sizes; None: it is no such head."""
    for name in names_of(VisionLanguage):
        kind = SMALLS[name].kind
        if head in kind.fitting():
            return build(name, heads=kind.heads(*kind.together(head))).heads[head]
    return None


def test_every_protocol_is_fulfilled_by_something():
    assert {protocol for small in SMALLS.values() for protocol in small.protocols} == set(protocols())
    assert {'Reader', 'Writer', 'TextTokenizer', 'TwoTowerModel'} <= set(protocols())


def test_every_head_has_a_model_to_be_tested_in():
    tested = {head for name in names_of(VisionLanguage) for head in SMALLS[name].kind.fitting()}
    assert tested == set(names_of(FusionHead)), 'a head needs what no small model has'


# --- one item and its company -----------------------------------------------------------------------------------------


@every_module
@torch.no_grad()
def test_an_item_alone_gives_what_it_gives_in_company(name):
    module, together = shared(name)
    kind = SMALLS[name].kind
    items = kind.items(module)
    kept = deepcopy(items)
    alone = [kind.outputs(module, [item])[0] for item in items]
    assert_same(alone, together)
    # in another order, and beside its equals, which some models encode once
    order = [2, 0, 0, 1]
    assert_same(kind.outputs(module, [items[n] for n in order]), [together[n] for n in order])
    # what no item changes would pass too
    assert all(differ([together[0]], [other]) for other in together[1:])
    # nothing was written into what came in
    assert all(torch.equal(*pair) for pair in zip(tensors_in(items), tensors_in(kept), strict=True))


def tensors_in(value):
    """The tensors of nested sequences and dicts."""
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for part in parts for tensor in tensors_in(part)]


@pytest.mark.parametrize('name', [name for name in MODULES if SMALLS[name].kind.pads])
@torch.no_grad()
def test_padding_changes_nothing(name):
    module, outputs = shared(name)
    kind = SMALLS[name].kind
    assert_same(kind.outputs(module, kind.items(module), padding=4), outputs)


@every_module
@torch.no_grad()
def test_a_batch_of_none_is_empty_or_refused_in_a_sentence(name):
    module, _ = shared(name)
    small = SMALLS[name]
    if small.refuses_none:
        with pytest.raises(ValueError, match=small.refuses_none):
            small.kind.outputs(module, [])
    else:
        assert small.kind.outputs(module, []) == []


# --- training ---------------------------------------------------------------------------------------------------------


@every_module
def test_one_training_step_reaches_every_parameter(name):
    module, kind = build(name).train(), SMALLS[name].kind
    torch.manual_seed(0)
    loss = kind.loss(module, kind.items(module))
    if list(module.parameters()):
        loss.backward()
        assert loss.isfinite()
    assert_gradients(module, SMALLS[name].without_gradient)


@every_module
def test_training_leaves_nothing_behind_for_prediction(name):
    module, kind = build(name), SMALLS[name].kind
    items = kind.items(module)
    before = run(name, module, items)
    module.train()
    torch.manual_seed(0)
    kind.loss(module, items)
    run(name, module, items)  # with dropout, where there is any
    assert_same(run(name, module.eval(), items), before, rtol=0, atol=0)


# --- weights ----------------------------------------------------------------------------------------------------------


@every_module
def test_a_checkpoint_gives_equal_outputs(name, tmp_path):
    module, expected = shared(name)
    file = tmp_path / 'small.pth'
    torch.save({'state_dict': module.state_dict(), 'meta': {}}, file)
    state = torch.load(file, weights_only=True)['state_dict']
    init = {'init_cfg': {'type': 'florence_mm.Pretrained', 'checkpoint': str(file), 'strict': True}}
    plain, reported = (build(name, seed=seed) for seed in (1, 2))
    if not state:
        return
    assert differ(run(name, plain), expected)
    plain.load_state_dict(state)
    report = load_checkpoint(reported, file, strict=True)
    assert set(report.loaded) == set(module.state_dict())
    pretrained = build(name, seed=3, **init)
    pretrained.init_weights()
    for loaded in (plain, reported, pretrained):
        assert_same(run(name, loaded), expected, rtol=0, atol=0)


@every_module
def test_a_seed_decides_the_weights(name):
    first, again, other = (build(name, seed=seed, spread=False).state_dict() for seed in (5, 5, 6))
    assert first.keys() == again.keys()
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    assert not first or not all(torch.equal(value, other[key]) for key, value in first.items())


@every_module
@pytest.mark.parametrize('scope', ['mmengine', 'mmpretrain', 'mmdet', 'mmaction'])
def test_built_under_the_scope_of_another_package(name, scope):
    expected, made = shared(name)[0], build(name, scope=scope)
    assert [type(part) for part in made.modules()] == [type(part) for part in expected.modules()]
    state = made.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in expected.state_dict().items())


@every_module
def test_a_copy_is_another_of_the_same(name):
    module = build(name)
    items = SMALLS[name].kind.items(module)
    before = run(name, module, items)
    copy = deepcopy(module)
    assert_same(run(name, copy, items), before, rtol=0, atol=0)
    change(copy.parameters())
    after = run(name, copy, items)
    assert not list(copy.parameters()) or differ(after, before)
    assert_same(run(name, module, items), before, rtol=0, atol=0)


def change(parameters):
    """Other weights, written as weight averaging writes them, which no version counter sees."""
    for number, parameter in enumerate(parameters):
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
        parameter.data.add_(0.2 * noise.to(parameter))


@every_module
def test_outputs_follow_weights_that_are_written_through_data(name):
    module = build(name)
    items = SMALLS[name].kind.items(module)
    before = run(name, module, items)
    parts = [list(child.parameters()) for child in module.children()] + [[p] for p in module.parameters(recurse=False)]
    for part in filter(None, parts):
        change(part)
        after = run(name, module, items)
        assert differ(after, before)
        fresh = build(name, seed=1)
        fresh.load_state_dict(module.state_dict())
        assert_same(after, run(name, fresh), rtol=0, atol=0)
        before = after


# --- numbers ----------------------------------------------------------------------------------------------------------


def relative_error(got, expected):
    """Root of the mean square of the differences, over that of the numbers."""
    return float((got - expected).norm() / expected.norm())


@every_module
def test_bfloat16_is_near(name):
    """Under autocast numbers are rounded to 8 bits, each by 2**-8 at most and 2**-8 / sqrt(3) in the root mean square.

    A product of matrices rounds both factors and the result; what follows it (a norm, an activation, a sum) about as
    often again: sqrt(6) times that, sqrt(2) * 2**-8. Errors of products one after the other add up like random steps.
    There are no more products in a row than weights with two axes or more, with a product of attention for each.
    """
    module, kind = build(name, dtype=torch.float32), SMALLS[name].kind
    products = 2 * sum(parameter.ndim > 1 for parameter in module.parameters())
    bound = 2**-8 * math.sqrt(2 * products)
    expected = run(name, module)
    with torch.autocast('cpu', torch.bfloat16):
        got = run(name, module)
    for own, other in zip(got, expected, strict=True):
        for key in set(own) - set(kind.discrete):
            error = relative_error(*(torch.as_tensor(x[key]).float() for x in (own, other)))
            assert error <= bound, f'{key} is off by {error}, at most {bound} was expected'
    if not products:
        return
    torch.manual_seed(0)
    with torch.autocast('cpu', torch.bfloat16):
        loss = kind.loss(module.train(), kind.items(module))
    loss.backward()
    assert loss.dtype == torch.float32
    grads = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    assert grads and all(bool(grad.isfinite().all()) for grad in grads)
