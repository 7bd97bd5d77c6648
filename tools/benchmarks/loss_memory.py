"""Memory of a forward and backward pass of the contrastive loss and of open_clip's, each in its own process.

python tools/benchmarks/loss_memory.py [--batch 16384]
"""

import argparse
import subprocess
import sys

# peak resident memory before and after one pass, in MiB
CODE = """
import resource, sys, torch
from torch.nn import functional as F
torch.set_num_threads(1)
side, batch = sys.argv[1], int(sys.argv[2])
if side == 'ours':
    from florence_mm.ops.contrastive import unified_contrastive_loss
    def loss(image, text, scale):
        return sum(unified_contrastive_loss(image, text, torch.arange(len(image)), scale))
else:
    import florence_mm
    from open_clip.loss import ClipLoss
    def loss(image, text, scale):
        return 2 * ClipLoss()(image, text, scale)
def step(batch):
    torch.manual_seed(0)
    image, text = (F.normalize(torch.randn(batch, 512), dim=1).requires_grad_() for _ in range(2))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    value = loss(image, text, torch.tensor(1 / 0.07, requires_grad=True))
    value.backward()
    return before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, float(value.detach())
step(256)
before, after, value = step(batch)
print((after - before) / 1024, value)
"""


def measure(side: str, batch: int) -> tuple[float, float]:
    """MiB that a pass added to the peak, and the loss."""
    out = subprocess.run(
        [sys.executable, '-c', CODE, side, str(batch)], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    mebibytes, value = out.split()[-2:]
    return float(mebibytes), float(value)


def main() -> int:
    """Command line; exit status 1 when ours needs more than a quarter of the peer's memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--batch', type=int, default=16384)
    batch = parser.parse_args().batch
    ours, value = measure('ours', batch)
    print(f'ours       {ours:9.1f} MiB  loss {value:.6f}', flush=True)
    peer, peer_value = measure('open_clip', batch)
    print(f'open_clip  {peer:9.1f} MiB  loss {peer_value:.6f}')
    if abs(value - peer_value) > 1e-3:
        print('the losses differ; the figures do not compare')
        return 1
    print(f'ours / open_clip = {ours / peer:.1%}, bar 25 %')
    return 0 if ours <= 0.25 * peer else 1


if __name__ == '__main__':
    sys.exit(main())
