"""Memory of a training step of Swin-T on images of 224 pixels, forward and backward without optimizer, on a CPU.

    python tools/benchmarks/training_memory.py [--batch 8] [--dtype float32] [--repeats 3]

A process each, ours and timm's in turns, on equal weights and data; both import the same. The bar is on what model and
step add to the memory the process had after its imports; also printed are the peak of the whole process and the
gradients' sum of magnitudes, which must agree.
"""

import argparse
import json
import statistics
import subprocess
import sys

CODE = """
import json, resource, sys, torch
import florence_mm, timm
from florence_mm.models.backbones import CoSwin
from florence_mm.models.checkpoints.formats import convert_state_dict
torch.set_num_threads(1)
side, batch, dtype = sys.argv[1], int(sys.argv[2]), getattr(torch, sys.argv[3])
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
imports = peak()
torch.manual_seed(0)
model = timm.create_model('swin_tiny_patch4_window7_224', num_classes=0, drop_path_rate=0.0)
if side == 'ours':
    state = convert_state_dict(model.state_dict())[1]
    model = CoSwin('tiny', conv_embed=False, drop_path_rate=0.0)
    model.load_state_dict(state)
    del state
model.train()
forward = (lambda x: model(x)[0]) if side == 'ours' else lambda x: model.forward_features(x).permute(0, 3, 1, 2)
def step(batch):
    generator = torch.Generator().manual_seed(1)
    x, slope = (torch.randn(batch, *shape, generator=generator) for shape in ((3, 224, 224), (768, 7, 7)))
    with torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
        loss = (forward(x) * slope).mean()
    loss.backward()
    total = sum(p.grad.abs().sum().item() for p in model.parameters())
    model.zero_grad()
    return total
step(1)  # code and small buffers
total = step(batch)
print(json.dumps(dict(peak=peak(), added=peak() - imports, gradients=total)))
"""

BAR = 0.75


def measure(side: str, batch: int, dtype: str) -> dict[str, float]:
    """MiB of the process and of model and step, the gradients' sum; of one side in its own process."""
    command = [sys.executable, '-W', 'ignore', '-c', CODE, side, str(batch), dtype]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    """Print both sides; exit status 1 when the bar is missed or the gradients differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--batch', type=int, default=8)
    parser.add_argument('--dtype', default='float32', choices=('float32', 'bfloat16'), help='bfloat16 is autocast')
    parser.add_argument('--repeats', type=int, default=3, help='processes of each side')
    args = parser.parse_args()
    runs = {'timm': [], 'ours': []}
    for _ in range(args.repeats):
        for side, done in runs.items():
            done.append(measure(side, args.batch, args.dtype))
    results = {side: {key: statistics.median(r[key] for r in done) for key in done[0]} for side, done in runs.items()}
    for side, r in results.items():
        print(f'{side:<6} peak {r["peak"]:6.0f} MiB, model and step {r["added"]:6.0f}, gradients {r["gradients"]:.6g}')
    ours, peer = results['ours'], results['timm']
    ratio = ours['added'] / peer['added']
    print(f'model and step, ours / timm: {ratio:.2f} (bar {BAR}); whole process {ours["peak"] / peer["peak"]:.2f}')
    agree = (
        abs(ours['gradients'] - peer['gradients']) <= (1e-3 if args.dtype == 'float32' else 0.05) * peer['gradients']
    )
    if not agree:
        print('the gradients differ: the two sides do not do the same work')
    return 0 if ratio <= BAR and agree else 1


if __name__ == '__main__':
    sys.exit(main())
