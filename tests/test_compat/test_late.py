"""Imports that wait: who asks for a name gets the true class, from the package, a registry, a pickle or an import."""

import copy
import importlib
import itertools
import pickle
import subprocess
import sys
import textwrap

import pytest
import torch

from florence_mm.compat.gap import Gap
from florence_mm.compat.late import LateDict, late_modules, late_submodules

TOY = {
    '__init__.py': '',
    'registry.py': """
        class Registry:
            def __init__(self):
                self._module_dict = {}
            def register_module(self):
                def enter(kind):
                    assert kind.__name__ not in self._module_dict
                    self._module_dict[kind.__name__] = kind
                    return kind
                return enter
        TOYS = Registry()
        """,
    'shop/__init__.py': """
        from .counter import Till, price
        from .shelves import *
        from . import counter
        """,
    'shop/counter.py': """
        class Till: ...
        def price(): return 3
        """,
    'shop/shelves/__init__.py': """
        from .heavy import Heavy, weigh
        from .light import Light
        __all__ = ['Heavy', 'Light', 'weigh']
        """,
    'shop/shelves/light.py': """
        class Light: ...
        """,
    'shop/shelves/heavy.py': """
        from ...registry import TOYS
        from .light import Light
        @TOYS.register_module()
        class Heavy(Light): ...
        def weigh(): return len(dir())
        """,
}


NUMBERS = itertools.count()


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A package whose module ``shop.shelves.heavy`` waits; gives the function that imports a module of it."""
    package = f'toy_{next(NUMBERS)}'
    for name, text in TOY.items():
        path = tmp_path / package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(str(tmp_path))
    late_modules(f'{package}.shop.shelves.heavy')
    yield lambda name: importlib.import_module(f'{package}.{name}')
    for name in [name for name in sys.modules if name.partition('.')[0] == package]:
        del sys.modules[name]


def is_imported(shop):
    return f'{shop.__name__}.shelves.heavy' in sys.modules


@pytest.mark.parametrize(
    'ask',
    [
        lambda toy: toy('shop').Heavy,
        lambda toy: toy('shop').shelves.Heavy,
        lambda toy: toy('shop').shelves.heavy.Heavy,
        lambda toy: toy('shop.shelves.heavy').Heavy,
        lambda toy: toy('registry').TOYS._module_dict['Heavy'],
        lambda toy: toy('registry').TOYS._module_dict.get('Heavy'),
        lambda toy: dict(toy('registry').TOYS._module_dict)['Heavy'],
    ],
)
def test_whoever_asks_gets_the_one_class(toy, ask):
    shop = toy('shop')
    assert not is_imported(shop) and shop.Light.__name__ == 'Light' and shop.price() == 3
    kind = ask(toy)
    assert is_imported(shop) and kind.__module__ == f'{shop.__name__}.shelves.heavy' and issubclass(kind, shop.Light)
    assert kind is shop.Heavy is shop.shelves.Heavy is toy('registry').TOYS._module_dict['Heavy']


@pytest.mark.parametrize('place', ['shop', 'shop.shelves'])
def test_statement_of_import_brings_all_names(toy, place):
    shop, space = toy('shop'), {}
    assert not is_imported(shop)
    exec(f'from {toy(place).__name__} import *', space)
    assert space['Heavy'].__name__ == 'Heavy' and space['weigh']() == 0 and space['Light'] is shop.Light


def test_package_that_waits_looks_like_ever(toy):
    shop = toy('shop')
    assert {'Heavy', 'weigh', 'Light', 'Till', 'price', 'counter'} <= {*dir(shop)} and hasattr(shop, 'Heavy')
    with pytest.raises(AttributeError, match=f"module '{shop.__name__}' has no attribute 'Heavier'"):
        _ = shop.Heavier
    with pytest.raises(ImportError, match="cannot import name 'Heavier'"):
        exec(f'from {shop.__name__} import Heavier')
    assert importlib.reload(shop).Heavy is shop.shelves.Heavy


def test_module_that_is_imported_first_does_not_wait(tmp_path, monkeypatch):
    (tmp_path / 'toy_first').mkdir()
    for name in ('__init__', 'part'):
        (tmp_path / 'toy_first' / f'{name}.py').write_text('from toy_first import part\n' if name == '__init__' else '')
    monkeypatch.syspath_prepend(str(tmp_path))
    package = importlib.import_module('toy_first')
    late_submodules('toy_first', ['part'])
    assert vars(package)['part'] is sys.modules['toy_first.part'] and '__getattr__' not in vars(package)


def test_submodule_that_a_package_imports_from_itself_waits(tmp_path, monkeypatch):
    (tmp_path / 'toy_self').mkdir()
    (tmp_path / 'toy_self' / '__init__.py').write_text('from toy_self import one, two\ndef f(): return two.VALUE\n')
    (tmp_path / 'toy_self' / 'one.py').write_text('VALUE = 1\n')
    (tmp_path / 'toy_self' / 'two.py').write_text('VALUE = 2\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    late_submodules('toy_self', ['one'])
    package = importlib.import_module('toy_self')
    assert 'toy_self.one' not in sys.modules and package.f() == 2
    assert package.one.VALUE == 1 and package.one is sys.modules['toy_self.one'] is vars(package)['one']


def test_dict_imports_what_is_looked_up_and_all_that_is_listed():
    asked = []

    def late():
        return LateDict({'a': 1}), asked.clear()

    def fill():
        kinds, _ = late()
        kinds.late = {'b': lambda: asked.append('b') or 2, 'c': lambda: asked.append('c')}  # c cannot be imported
        return kinds

    kinds = fill()
    assert kinds['a'] == 1 and kinds.get('x') is None and not asked
    assert kinds['b'] == 2 and kinds['b'] == 2 and asked == ['b'] and 'c' not in kinds
    for listed in (len, list, repr, copy.copy, lambda kinds: {**kinds}, lambda kinds: kinds.items()):
        kinds = fill()
        listed(kinds)
        assert {*asked} == {'b', 'c'} and kinds == {'a': 1, 'b': 2}
    kinds = fill()
    kinds['b'] = 5
    assert kinds['b'] == 5 and not asked
    with pytest.raises(KeyError):
        kinds['c']
    for copied in (copy.deepcopy(fill()), pickle.loads(pickle.dumps(fill()))):
        assert copied == {'a': 1, 'b': 2}


def test_names_of_openmmlab_wait_and_are_the_true_ones():
    """In one process, in the order in which a user would ask."""
    code = """
        import pickle, sys, threading
        import florence_mm
        import mmengine.runner, mmengine.model, torchvision
        waiting = ('transformers', 'torch.distributed.optim', 'torch.distributed.fsdp', 'torch._dynamo', 'torch.onnx',
                   'torchvision.ops', 'torchvision.models', 'sympy')
        assert not [name for name in waiting if name in sys.modules], [n for n in waiting if n in sys.modules]
        from mmengine.registry import MODEL_WRAPPERS, OPTIMIZERS, STRATEGIES
        assert OPTIMIZERS.get('AdamW').__name__ == 'AdamW' and 'transformers' not in sys.modules

        got = []
        ask = lambda: got.append(OPTIMIZERS.get('ZeroRedundancyOptimizer'))
        threads = [threading.Thread(target=ask) for _ in range(4)]
        [thread.start() for thread in threads], [thread.join() for thread in threads]
        from torch.distributed.optim import ZeroRedundancyOptimizer as base
        from mmengine.optim import ZeroRedundancyOptimizer
        assert {*got} == {ZeroRedundancyOptimizer} and issubclass(ZeroRedundancyOptimizer, base)
        assert pickle.loads(pickle.dumps(ZeroRedundancyOptimizer)) is ZeroRedundancyOptimizer

        assert 'FSDPStrategy' in STRATEGIES
        import mmengine._strategy
        assert mmengine._strategy.FSDPStrategy is STRATEGIES.get('FSDPStrategy')
        assert {'MMFullyShardedDataParallel', 'MMDistributedDataParallel'} <= {*MODEL_WRAPPERS.module_dict}
        from torch.distributed.fsdp import FullyShardedDataParallel
        assert issubclass(mmengine.model.MMFullyShardedDataParallel, FullyShardedDataParallel)

        from mmengine.optim.optimizer import builder
        sys.modules['transformers'] = None  # as if it were damaged
        assert OPTIMIZERS.get('Adafactor') is None and 'AdamW' in {*OPTIMIZERS.module_dict}
        del sys.modules['transformers']
        import transformers
        assert builder.TRANSFORMERS_OPTIMIZERS == [] and OPTIMIZERS.get('Adafactor') is transformers.Adafactor
        assert builder.TRANSFORMERS_OPTIMIZERS == ['Adafactor'] and OPTIMIZERS.get('TorchAdafactor') is not None

        from torchvision.ops import nms
        assert torchvision.ops.nms is nms and torchvision.models.resnet18.__module__.startswith('torchvision.models')
    """
    ended = subprocess.run([sys.executable, '-c', textwrap.dedent(code)], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]


def test_what_is_imported_before_us_stays(fresh_process):
    result = fresh_process(
        """
        import mmengine.optim
        import torch.distributed.optim as before
        import florence_mm
        from mmengine.registry import OPTIMIZERS
        assert type(OPTIMIZERS._module_dict) is dict and 'ZeroRedundancyOptimizer' in vars(mmengine.optim)
        assert issubclass(OPTIMIZERS.get('ZeroRedundancyOptimizer'), before.ZeroRedundancyOptimizer)
        """
    )
    assert result.returncode == 0, result.stderr[-2000:]


def test_a_feature_test_has_values_while_a_model_is_built_on_the_meta_device():
    gap = Gap('meta', 'torch', 'why', needed=lambda: torch.ones(2).sum().item() == 2, patch=lambda: None)
    with torch.device('meta'):
        gap.install()
    assert gap.state == 'patched'
