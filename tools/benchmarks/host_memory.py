"""Speed of CPU training steps with and without keeping freed memory (florence_mm/engine/host_memory.py).

python tools/benchmarks/host_memory.py [--rounds 3]

Each run is a process of its own, the two kinds in turns; the losses are compared first. Memory is the most that the
process ever held.
"""

import argparse
import statistics
import subprocess
import sys

# median seconds of CPU of a step, MiB at most, and the last loss
CODE = """
import resource, statistics, sys, time, torch
import florence_mm
from florence_mm.engine.host_memory import keep_freed_memory
from florence_mm.registry import MODELS
kind, arch, batch, side = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
if kind == 'kept' and not keep_freed_memory():
    sys.exit('this system does not take the setting')
torch.set_num_threads(1)
torch.manual_seed(0)
model = MODELS.build(dict(type='CoSwin', arch=arch, img_size=side, drop_path_rate=0.0))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
images, times = torch.randn(batch, 3, side, side), []
for _ in range(7):
    start = time.process_time()
    loss = model(images)[-1].square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    times.append(time.process_time() - start)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(statistics.median(times[2:]), peak, loss.item())
"""
CASES = (('micro', 32, 64), ('tiny', 2, 224), ('tiny', 8, 224))


def measure(kind: str, *case: str | int) -> tuple[float, float, float]:
    """Seconds of CPU of a step, MiB, loss."""
    command = [sys.executable, '-W', 'ignore', '-c', CODE, kind, *map(str, case)]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    seconds, mebibytes, loss = map(float, out.split()[-3:])
    return seconds, mebibytes, loss


def main() -> int:
    """Command line; exit status 1 when the losses differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=3, help='processes of each kind (default: 3)')
    args = parser.parse_args()
    for case in CASES:
        ratios, memories = [], []
        for _ in range(args.rounds):
            seconds, memory, loss = measure('returned', *case)
            kept_seconds, kept_memory, kept_loss = measure('kept', *case)
            if abs(loss - kept_loss) > 1e-6 * abs(loss):
                print(f'the losses differ, {loss} and {kept_loss}; the figures do not compare')
                return 1
            ratios.append(seconds / kept_seconds)
            memories.append(kept_memory / memory)
        arch, batch, side = case
        print(
            f'CoSwin-{arch}, {batch}x3x{side}x{side}: time returned / kept {statistics.median(ratios):.2f} '
            f'({min(ratios):.2f} to {max(ratios):.2f}), memory kept / returned {statistics.median(memories):.2f}',
            flush=True,
        )
    return 0


if __name__ == '__main__':
    sys.exit(main())
