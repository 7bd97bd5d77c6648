"""Timing of our code and a peer's, one process per case, one thread, in turns.

A :class:`Case` names a comparison and its bar; building it gives a :class:`Pair` of calls that do the same work
on the same weights. :func:`measure` first compares what the two calls return, then runs them alternately and takes
the median of the ratios of neighbours, so that a machine that slows down meanwhile slows both.

``time.process_time`` counts the CPU seconds of this process: other programs disturb it through caches only.
"""

import argparse
import gc
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from florence_mm.utils.files import write_atomic


@dataclass(frozen=True)
class Pair:
    """Two calls without arguments that return the same tensors (a tensor, or a sequence or dict of them).

    Attributes:
        ours: our call.
        peer: the peer's call.
        tolerance: largest difference allowed between the two results, relative to the largest value of the peer's
            tensor (at least 1).
    """

    ours: Callable[[], Any]
    peer: Callable[[], Any]
    tolerance: float = 1e-4


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        name: unique, in words and underscores.
        bar: least acceptable ratio of the peer's time to ours.
        build: makes the pair; imports the peer, shares the weights.
        rounds: how many times both calls run in turn.
    """

    name: str
    bar: float
    build: Callable[[], Pair]
    rounds: int = 25


@dataclass(frozen=True)
class Result:
    """What was measured; times in milliseconds of CPU, ``ratio`` is peer time / our time."""

    name: str
    bar: float
    ratio: float
    ratio_of_fastest: float
    ours_ms: float
    peer_ms: float
    max_difference: float
    rounds: int
    passed: bool


def _tensors(value: Any) -> list[torch.Tensor]:
    """All tensors in ``value``, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [tensor for item in value for tensor in _tensors(item)]


def difference(ours: Any, peer: Any) -> float:
    """Largest ``|ours - peer|``, each tensor's relative to ``max(1, max |peer|)``.

    Raises:
        ValueError: the results have different numbers of tensors or different shapes.
    """
    left, right = _tensors(ours), _tensors(peer)
    shapes = [[tuple(t.shape) for t in side] for side in (left, right)]
    if shapes[0] != shapes[1] or not left:
        raise ValueError(f'the two sides return different shapes: ours {shapes[0]}, peer {shapes[1]}')
    worst = 0.0
    for a, b in zip(left, right, strict=True):
        a, b = a.detach().double(), b.detach().double()
        worst = max(worst, ((a - b).abs().max() / b.abs().max().clamp(min=1)).item())
    return worst


def _timed(call: Callable[[], Any], repeats: int) -> float:
    start = time.process_time()
    for _ in range(repeats):
        call()
    return (time.process_time() - start) / repeats


def measure(case: Case, rounds: int | None = None, min_seconds: float = 0.02, warm_up: int = 3) -> Result:
    """Build the case, check that both sides agree, time them in turns.

    Args:
        case: the comparison.
        rounds: overrides ``case.rounds``.
        min_seconds: a call shorter than this is repeated within a round until the clock is fine enough.
        warm_up: calls of each side before the first timed one.

    Raises:
        ValueError: the outputs differ by more than the pair's tolerance, or in shape.
    """
    pair, rounds = case.build(), rounds or case.rounds
    worst = difference(pair.ours(), pair.peer())
    if not worst <= pair.tolerance:
        raise ValueError(
            f'{case.name}: outputs differ by {worst:.2e}, more than {pair.tolerance:.0e}; nothing was timed'
        )
    for _ in range(warm_up):
        pair.ours(), pair.peer()
    repeats = max(1, round(min_seconds / max(_timed(pair.ours, 1), 1e-6)))
    ours, peer = [], []
    gc.collect()
    gc.disable()
    try:
        for i in range(rounds):
            # the one that goes first changes, so that neither always finds the caches the other left
            for side, call in ((ours, pair.ours), (peer, pair.peer))[:: 1 if i % 2 else -1]:
                side.append(_timed(call, repeats))
    finally:
        gc.enable()
    ratio = statistics.median(p / o for o, p in zip(ours, peer, strict=True))
    return Result(
        name=case.name,
        bar=case.bar,
        ratio=round(ratio, 3),
        ratio_of_fastest=round(min(peer) / min(ours), 3),
        ours_ms=round(1e3 * statistics.median(ours), 3),
        peer_ms=round(1e3 * statistics.median(peer), 3),
        max_difference=worst,
        rounds=rounds,
        passed=ratio >= case.bar,
    )


def write_json(path: str | Path, results: Sequence[Result]) -> None:
    """Write the results and what they were measured with; the file appears complete or not at all."""
    content = {
        'torch': torch.__version__,
        'threads': torch.get_num_threads(),
        'capability': torch.backends.cpu.get_cpu_capability(),
        'results': [asdict(result) for result in results],
    }
    write_atomic(path, json.dumps(content, indent=2))


def measure_apart(case: Case, rounds: int | None = None) -> Result:
    """:func:`measure` in a process of its own.

    The C library's allocator keeps or returns memory by what the process did before, and big fresh tensors cost as
    much as arithmetic; so no case may help or hurt the next.

    Raises:
        ValueError: as :func:`measure`.
        RuntimeError: the process died.
    """
    if 'fork' not in multiprocessing.get_all_start_methods():
        return measure(case, rounds)
    context = multiprocessing.get_context('fork')  # cases hold functions, which cannot be sent
    receiver, sender = context.Pipe(duplex=False)

    def work() -> None:
        try:
            sender.send(measure(case, rounds))
        except ValueError as error:
            sender.send(error)

    process = context.Process(target=work)
    process.start()
    sender.close()
    try:
        result = receiver.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f'{case.name}: its process ended with status {process.exitcode}, see above') from None
    process.join()
    if isinstance(result, ValueError):
        raise result
    return result


def run(cases: Iterable[Case], only: str = '', rounds: int | None = None) -> list[Result]:
    """Measure the cases whose name contains ``only``, one line each as they finish."""
    torch.set_num_threads(1)
    chosen = [case for case in cases if only in case.name]
    results = []
    print(f'{"case":<44}{"bar":>6}{"ratio":>8}{"ours ms":>10}{"peer ms":>10}  difference')
    for case in chosen:
        result = measure_apart(case, rounds)
        results.append(result)
        print(
            f'{result.name:<44}{result.bar:>6.2f}{result.ratio:>8.3f}{result.ours_ms:>10.2f}{result.peer_ms:>10.2f}'
            f'  {result.max_difference:.1e}  {"ok" if result.passed else "BELOW THE BAR"}',
            flush=True,
        )
    return results


def main(cases: Iterable[Case], argv: Sequence[str] | None = None) -> int:
    """Command line over ``cases``; exit status 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description='Time our code beside its peers (peer time / ours, higher is better).')
    parser.add_argument('--only', default='', help='measure the cases whose name contains this')
    parser.add_argument('--rounds', type=int, help='how many times both sides run in turn (default: the case says)')
    parser.add_argument('--out', help='write the results to this JSON file')
    args = parser.parse_args(argv)
    cases = list(cases)
    if not any(args.only in case.name for case in cases):
        parser.error(f'no case contains {args.only!r}; there are: {", ".join(case.name for case in cases)}')
    results = run(cases, args.only, args.rounds)
    if args.out:
        write_json(args.out, results)
    return 0 if all(result.passed for result in results) else 1


if __name__ == '__main__':
    sys.exit('common.py only holds the timing; run vision.py, language.py or run.py')
