"""A whole model of which the parts are compiled, each one graph, gives and learns what it does without."""

import pytest
import torch
from instances import assert_same, build, find_smalls
from kinds import numbers
from mmengine.model import BaseModel
from torch import nn

from florence_mm.engine.compiling import compile_for_inference, compile_parts, find_parts
from florence_mm.engine.parallelize import parallelize
from florence_mm.errors import UsageError

pytestmark = pytest.mark.usefixtures('graphs')

SMALLS = find_smalls()
GRAPH = {'backend': 'eager', 'fullgraph': True}
# no dropout: compiled it is PyTorch's own, which draws other numbers
STILL = {'hidden_size': 16, 'num_layers': 2, 'num_heads': 2, 'drop_rate': 0.0, 'attn_drop_rate': 0.0}


@pytest.mark.parametrize(
    ('name', 'parts', 'expected'),
    [
        # texts come in two numbers, those of the classes and those of the batch
        ('UniCL-video', ['image_encoder', 'text_encoder'], 3),
        # also texts of contrast, and causal texts of captions, alone, with a batch free, and word by word with a cache
        ('METER', ['image_encoder', 'text_encoder', 'cross_modal'], 8),
        (
            'ZeroShotDetector-shared',
            ['detector.backbone', 'detector.neck', 'detector.bbox_head', 'classifier.text_encoder'],
            4,
        ),
    ],
)
def test_parts_of_a_whole_model_are_one_graph_each_in_evaluation(name, parts, expected, graphs):
    kind, plain, compiled = SMALLS[name].kind, build(name), build(name)
    items = kind.items(plain)
    kind.items(compiled)  # sets its classes
    assert list(find_parts(compiled)) == parts
    keys = list(compiled.state_dict())
    assert compile_parts(compiled, GRAPH) is compiled and list(compiled.state_dict()) == keys
    with torch.inference_mode():
        assert_same(kind.outputs(compiled, items), kind.outputs(plain, items))
    assert graphs() == expected


@pytest.mark.parametrize(
    ('name', 'changes', 'expected'),
    [
        ('UniCL', {}, 2),
        ('METER', {'fusion': STILL}, 4),
        ('ZeroShotDetector', {}, 2),
    ],
)
def test_parts_of_a_whole_model_are_one_graph_each_in_training(name, changes, expected, graphs):
    kind, plain, compiled = SMALLS[name].kind, build(name, **changes).train(), build(name, **changes).train()
    items = kind.items(plain)
    kind.items(compiled)
    compile_parts(compiled, GRAPH)
    losses = []
    for model in (plain, compiled):
        torch.manual_seed(0)
        loss = kind.loss(model, items)
        loss.backward()
        losses.append(loss.detach())
    torch.testing.assert_close(*losses)
    wanted, found = (
        {key: value.grad for key, value in model.named_parameters() if value.grad is not None}
        for model in (plain, compiled)
    )
    assert found.keys() == wanted.keys() and wanted
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, msg=lambda text, key=key: f'{key}: {text}')
    assert graphs() == expected


def test_a_size_and_a_dtype_are_one_graph_each_and_batch_sizes_two(graphs):
    arch = {'embed_dims': 8, 'depths': [2], 'num_heads': [1], 'patch_size': 2, 'window_size': 5}
    module = compile_parts(build('CoSwin', arch=arch, out_indices=(0,)), GRAPH)
    counts = []
    for dtype in (torch.float64, torch.float32):
        module.to(dtype)
        for size in ((32, 40), (48, 32)):
            for batch in (2, 3, 4):
                with torch.inference_mode():
                    module(numbers(batch, 3, *size).to(dtype))
                counts.append(graphs())
    # the second batch size of the first image size makes the number of images free for all that follows
    assert counts == [1, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5]


def test_there_may_be_more_graphs_than_pytorch_makes_by_itself(graphs):
    class Layer(nn.Linear):
        def forward(self, x):
            return super().forward(x) + 1

    module = compile_parts(Layer(2, 2), {**GRAPH, 'dynamic': False})
    for rows in range(2, 14):
        assert module(torch.ones(rows, 2)).shape == (rows, 2)
    assert graphs() == 12


def test_inference_has_weights_as_constants():
    seen = []

    def backend(graph, inputs):
        import torch._inductor.config as inductor

        seen.append((inductor.freezing, torch.is_grad_enabled(), len(inputs)))
        return graph.forward

    plain, model = build('CoSwin'), build('CoSwin').train()
    inputs, keys = numbers(2, 3, 32, 40).double(), list(model.state_dict())
    assert compile_for_inference(model, {'backend': backend, 'fullgraph': True}) is model and not model.training
    for found, wanted in zip(model(inputs), plain(inputs), strict=True):
        torch.testing.assert_close(found, wanted)
        assert not found.requires_grad
    # the images are the only input of the graph
    assert seen == [(True, False, 1)] and list(model.state_dict()) == keys
    import torch._inductor.config as inductor

    assert not inductor.freezing


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda model: model.load_state_dict({k: v + 1 for k, v in model.state_dict().items()}), 'have changed since'),
        (lambda model: model.float(), 'have changed since'),
        (lambda model: model.train(), 'was compiled for inference and cannot be trained'),
    ],
)
def test_constant_weights_do_not_go_stale(change, message):
    model = compile_for_inference(build('CoSwin'), {'backend': 'eager'})
    inputs = numbers(1, 3, 32, 40).double()
    torch.testing.assert_close(model(inputs), model(inputs))
    change(model)
    with pytest.raises(UsageError, match=f'CoSwin.* {message}'):
        model(inputs)


def test_parts_are_what_is_called():
    class Model(BaseModel):
        def __init__(self):
            super().__init__()
            self.first = nn.Sequential(nn.Linear(2, 2))
            self.again = self.first
            self.weightless = nn.Sequential(nn.ReLU())
            self.layer = nn.Linear(2, 2)
            self.heads = nn.ModuleDict({'head': nn.Sequential(nn.Linear(2, 2))})

        def forward(self, x):
            return self.first(x)

    assert list(find_parts(Model())) == ['first']
    assert find_parts(alone := nn.Linear(2, 2)) == {'': alone}


def test_a_misspelt_argument_is_refused():
    with pytest.raises(UsageError, match="torch.compile has no argument 'fulgraph'; did you mean 'fullgraph'"):
        compile_parts(nn.Linear(2, 2), {'fulgraph': True})


@pytest.mark.parametrize(
    ('value', 'message'),
    [
        ('yes', "compile is 'yes'; give True, or a dict"),
        ({1: 2}, 'torch.compile has no argument 1;'),
        ({'mode': 'fastest'}, "compile cannot be {'mode': 'fastest'} .*max-autotune"),
        ({'backend': 'foo'}, "Invalid backend: 'foo'"),
        ({'options': {'nonsense': 1}}, 'Unexpected optimization option nonsense'),
        ({'options': 3}, 'compile.options is 3; torch.compile takes a dict'),
        ({'mode': 'default', 'options': {'max_autotune': True}}, 'mode and options, of which torch.compile takes one'),
        ({'fullgraph': 'x'}, "compile.fullgraph is 'x'; torch.compile takes True or False"),
        ({'dynamic': 'x'}, 'torch.compile takes True, False or None'),
        ({'recompile_limit': 0}, 'compile.recompile_limit is 0; torch.compile takes a whole number'),
    ],
)
def test_wrong_values_are_refused(value, message):
    for function in (compile_parts, compile_for_inference, lambda model, value: parallelize(model, compile=value)):
        with pytest.raises(UsageError, match=message):
            function(nn.Linear(2, 2), value)
