"""Memory and time of a training step of Video Swin-T: one clip of 16 frames, 112 pixels, forward and backward, CPU.

python tools/benchmarks/video_memory.py [--frames 16] [--side 112] [--repeats 5]

A process each, ours and mmaction2's in turns, on equal weights and data; both import the same. The allocator's peaks
differ by a tenth from run to run, so medians are compared. The bar is on what model and step
add to the memory the process had after its imports; also printed are the peak of the whole process and the gradients'
sum of magnitudes, which must agree.
"""

import argparse
import json
import statistics
import subprocess
import sys

CODE = """
import json, resource, sys, time, torch
import florence_mm
torch.set_num_threads(1)
side, frames, pixels = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
from mmaction.models import SwinTransformer3D
from florence_mm.models.backbones import VideoCoSwin
from florence_mm.models.checkpoints.formats import convert_state_dict
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
imports = peak()
torch.manual_seed(0)
model = SwinTransformer3D('tiny', pretrained2d=False, drop_path_rate=0.0)
if side == 'ours':
    state = convert_state_dict(model.state_dict())[1]
    model = VideoCoSwin('tiny', conv_embed=False, drop_path_rate=0.0)
    model.load_state_dict(state)
    del state
model.train()
def step(frames, pixels):
    x = torch.randn(1, 3, frames, pixels, pixels, generator=torch.Generator().manual_seed(1))
    model(x).square().mean().backward()
    total = sum(p.grad.abs().sum().item() for p in model.parameters())
    model.zero_grad()
    return total
step(2, 32)  # code and small buffers
start = time.process_time()
total = step(frames, pixels)
print(json.dumps(dict(seconds=time.process_time() - start, peak=peak(), added=peak() - imports, gradients=total)))
"""

BAR = 0.9


def measure(side: str, frames: int, pixels: int) -> dict[str, float]:
    """MiB of the process and of model and step, CPU seconds, the gradients' sum; of one side in its own process."""
    command = [sys.executable, '-W', 'ignore', '-c', CODE, side, str(frames), str(pixels)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    """Print both sides; exit status 1 when the bar is missed or the gradients differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--frames', type=int, default=16)
    parser.add_argument('--side', type=int, default=112, help='height and width in pixels')
    parser.add_argument('--repeats', type=int, default=5, help='processes of each side')
    args = parser.parse_args()
    runs = {'mmaction2': [], 'ours': []}
    for _ in range(args.repeats):
        for side, done in runs.items():
            done.append(measure(side, args.frames, args.side))
    results = {side: {key: statistics.median(r[key] for r in done) for key in done[0]} for side, done in runs.items()}
    for side, r in results.items():
        print(
            f'{side:<10} peak {r["peak"]:7.0f} MiB, of model and step {r["added"]:7.0f} MiB, {r["seconds"]:6.2f} s, '
            f'gradients {r["gradients"]:.6g}'
        )
    ours, peer = results['ours'], results['mmaction2']
    ratio = ours['added'] / peer['added']
    print(f'model and step, ours / mmaction2: {ratio:.2f} (bar {BAR}); whole process {ours["peak"] / peer["peak"]:.2f}')
    agree = abs(ours['gradients'] - peer['gradients']) <= 1e-3 * peer['gradients']
    if not agree:
        print('the gradients differ: the two sides do not do the same work')
    return 0 if ratio <= BAR and agree else 1


if __name__ == '__main__':
    sys.exit(main())
