"""What the parts of gpu.py share: where they run, how they time, and the rows that they report."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from florence_mm.engine.compiling import compile_for_inference
from florence_mm.engine.memory import BLOCKS
from florence_mm.engine.parallelize import parallelize

#: Errors after which the next figure is measured; running out of memory is a ``RuntimeError``.
FAILURES = (RuntimeError, ValueError, TypeError, ImportError)
#: Bytes of a GiB.
GIB = 1 << 30


class PartEnded(BaseException):
    """The seconds of a part are over; no ``Exception``, which a compiler would take for a failure of its own."""


@dataclass(frozen=True)
class Row:
    """One figure, or why there is none.

    Attributes:
        name: what was measured.
        value: the figure; None if there is none.
        unit: of the figure.
        target: what the project wants on an H100; None: nothing is wanted.
        note: further words, such as the share of the matrix products' rate, or why there is no figure.
    """

    name: str
    value: float | None = None
    unit: str = ''
    target: float | None = None
    note: str = ''

    def __str__(self) -> str:
        """One line, with the target beside the figure."""
        figure = '' if self.value is None else f'{self.value:,.4g} {self.unit}'.rstrip()
        wanted = '' if self.target is None else f'(target on an H100: {self.target:g})'
        return f'{self.name}: ' + ' '.join(part for part in (figure, wanted, self.note) if part)


@dataclass
class Setting:
    """Where and how long the parts run.

    Attributes:
        device: the GPU, or the CPU.
        tiny: small models and pictures, which try the calls.
        until: time at which the part ends, of ``time.monotonic``.
        peak: measured rate of bf16 matrix products in FLOP/s; None before it is measured.
    """

    device: torch.device
    tiny: bool
    until: float
    peak: float | None = None

    @property
    def gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == 'cuda'

    @property
    def steps(self) -> int:
        """Timed steps of a figure."""
        return 1 if self.tiny else 10

    def left(self) -> float:
        """Seconds that are left to the part."""
        return self.until - time.monotonic()

    def wait(self) -> None:
        """Wait for the device."""
        if self.gpu:
            torch.cuda.synchronize()

    def forget(self) -> None:
        """Give cached memory back and count the peak from here."""
        if self.gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def memory(self) -> str:
        """The peak of memory since :meth:`forget`, in words; empty on a CPU."""
        return f'peak {torch.cuda.max_memory_allocated() / GIB:.1f} GiB' if self.gpu else ''

    def share(self, flop_a_second: float) -> str:
        """Share of the measured rate of matrix products, in words."""
        rate = f'{flop_a_second / 1e12:.3g} TFLOP/s'
        return rate if self.peak is None else f'{rate}, {flop_a_second / self.peak:.0%} of the matrix products'

    def compiled(self, module: nn.Module) -> nn.Module:
        """The module as ``torch.compile`` has it; in a dry run as it is, as compiling takes longer than all else."""
        return module if self.tiny else torch.compile(module)

    def inference(self, model: nn.Module) -> nn.Module:
        """A model of ours with its parts compiled for inference."""
        return model if self.tiny else compile_for_inference(model)

    def training(self, model: nn.Module) -> nn.Module:
        """A model of ours with its repeated blocks compiled, one graph a kind."""
        if self.tiny:
            return model
        kinds = {type(module).__name__ for module in model.modules()}
        return parallelize(model, sorted(kinds & set(BLOCKS)), compile=True)


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise :class:`PartEnded` after so many seconds, also in the midst of a call (of the main thread)."""

    def end(*_: object) -> None:
        raise PartEnded

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3), 1.0)  # again, if something swallowed the first
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def seconds_a_step(step: Callable[[], object], setting: Setting, warm_up: int = 3) -> float:
    """Mean seconds of a step after the warm-up, the device waited for at both ends alone."""
    for _ in range(1 if setting.tiny else warm_up):
        step()
    setting.wait()
    start = time.perf_counter()
    for _ in range(setting.steps):
        step()
    setting.wait()
    return (time.perf_counter() - start) / setting.steps


def beside(
    name: str,
    ways: dict[str, Callable[[], Callable[[], object]]],
    setting: Setting,
    amount: float = 1,
    unit: str = 'it/s',
    flop: float | None = None,
    targets: dict[str, tuple[str, float]] | None = None,
) -> Iterator[Row]:
    """Time several ways of the same work, a row each, and the ratios that are wanted.

    Args:
        name: of the work.
        ways: name of a way -> a function that makes its step; one that raises ``ImportError`` is an absent package, any
            other error of torch a row that says so.
        setting: where.
        amount: what one step does, such as pictures.
        unit: of the figure, amount a second.
        flop: operations of one step, of which the share of the peak follows.
        targets: name of a way -> the one that it is compared with and the least ratio of their rates.
    """
    rates: dict[str, float] = {}
    for way, make in ways.items():
        setting.forget()
        try:
            seconds = seconds_a_step(make(), setting)
        except ImportError as error:
            yield Row(f'{name}, {way}', note=f'left out: {error}')
            continue
        except FAILURES as error:
            yield Row(f'{name}, {way}', note=f'failed, {type(error).__name__}: {first_line(error)}')
            continue
        rates[way] = amount / seconds
        words = (setting.share(flop / seconds) if flop else '', setting.memory())
        yield Row(f'{name}, {way}', rates[way], unit, note=', '.join(word for word in words if word))
    for way, (other, least) in (targets or {}).items():
        if way in rates and other in rates:
            yield Row(f'{name}, {way} / {other}', rates[way] / rates[other], '', least)


def first_line(error: Exception) -> str:
    """The first line of an error."""
    return (str(error).strip() or '-').splitlines()[0]
