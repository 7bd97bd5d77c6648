"""What torch.compile costs and brings: seconds that CoSwin-T takes to be compiled, and its speed compared with eager.

python tools/benchmarks/compiling.py [--only NAME] [--rounds N] [--out FILE]

"Ours" is the compiled model, "peer" the same weights in eager fp32, one thread and two images of 224. Building is timed
first, in a process of its own with an empty cache and one compiler at a time: CPU seconds from the first call to its
result, with those of the C++ compiler, without Python's start. Cases that follow find that cache.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from common import Case, Pair, main
from torch import Tensor

from florence_mm.engine.compiling import compile_for_inference, compile_parts
from florence_mm.models.backbones.coswin import CoSwin

_BUILD_BAR = 80.0  # CPU seconds
_GRAPH = {'fullgraph': True}
_BUILD = """
import resource
import compiling

def seconds():
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))

compiling.torch.set_num_threads(1)
pair = compiling.{pair}()
start = seconds()
pair.ours()
print(seconds() - start)
"""


def _model(drop_path_rate: float = 0.1) -> CoSwin:
    torch.manual_seed(0)
    return CoSwin('tiny', drop_path_rate=drop_path_rate).eval()


def _images() -> Tensor:
    return torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))


def _inference(dtype: torch.dtype) -> Pair:
    eager, compiled, x = _model(), compile_for_inference(_model().to(dtype), _GRAPH), _images()
    given = x.to(dtype)

    @torch.inference_mode()
    def ours() -> Tensor:
        return compiled(given)[-1]

    @torch.inference_mode()
    def peer() -> Tensor:
        return eager(x)[-1]

    return Pair(ours, peer, tolerance=1e-4 if dtype == torch.float32 else 0.05)


def inference_fp32() -> Pair:
    """Inference in fp32."""
    return _inference(torch.float32)


def inference_bf16() -> Pair:
    """Inference with bf16 weights and images."""
    return _inference(torch.bfloat16)


def training_fp32() -> Pair:
    """A forward and a backward pass, without the optimizer; outputs are the gradients."""
    x = _images()

    def step(model: CoSwin) -> list[Tensor]:
        model.zero_grad()
        (model(x)[-1].square().sum() / 10).backward()  # gradients of about 1, which differences are relative to
        return [parameter.grad for parameter in model.parameters()]

    # no stochastic depth, so that both have the same gradients
    eager, compiled = _model(0.0).train(), compile_parts(_model(0.0).train(), _GRAPH)
    return Pair(lambda: step(compiled), lambda: step(eager))


def cases() -> list[Case]:
    """The comparisons of this file, with the bars the project set itself."""
    return [
        Case('inference_fp32', 1.08, inference_fp32, 21),
        Case('inference_bf16', 2.1, inference_bf16, 21),
        Case('training_fp32', 1.1, training_fp32, 15),
    ]


def build_seconds(pair: str) -> float:
    """CPU seconds of compiling, in a process of its own; ``pair`` is the name of a function of this file."""
    command = [sys.executable, '-W', 'ignore', '-c', _BUILD.format(pair=pair)]
    path = os.pathsep.join([str(Path(__file__).resolve().parent), *filter(None, [os.environ.get('PYTHONPATH')])])
    env = {**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1', 'TORCHINDUCTOR_COMPILE_THREADS': '1'}
    return float(subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])


if __name__ == '__main__':
    with tempfile.TemporaryDirectory() as cache:
        os.environ['TORCHINDUCTOR_CACHE_DIR'] = cache
        slow = False
        if '--only' not in sys.argv:
            for case in cases():
                seconds = build_seconds(case.name)
                # the bar is that of inference; a training step is two graphs
                slow |= case.name.startswith('inference') and seconds > _BUILD_BAR
                print(f'{case.name}: compiled in {seconds:.1f} CPU seconds', flush=True)
        status = main(cases())
    sys.exit(max(status, slow))
