"""Time and memory of a Dynamic Head's losses over many classes: one 800x1333 image, forward and backward, CPU.

python tools/benchmarks/classification_memory.py [--classes 25190] [--shared 1203]

Each case runs in its own process: ours with all classes and with 80 annotated ones, and at ``--shared`` classes ours
and mmdet's, which holds all logits several times (at 25,190 classes about 20 GB). The tower is left out, as it does not
depend on the classes.
"""

import argparse
import subprocess
import sys

# seconds of CPU, MiB that one pass adds to the peak, and the classification loss
CODE = """
import resource, sys, time, torch
import florence_mm
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from florence_mm.models.heads import DynamicHead
torch.set_num_threads(1)
side, classes, annotated = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
assigner = dict(type='mmdet.ATSSAssigner', topk=9, iou_calculator=dict(type='mmdet.BboxOverlaps2D'))
torch.manual_seed(0)
head = DynamicHead(classes, num_blocks=0, train_cfg=ConfigDict(assigner=assigner, allowed_border=-1, pos_weight=-1))
torch.nn.init.constant_(head.atss_cls.bias, -4.6)
corner = torch.rand(8, 2) * torch.tensor([1000.0, 500.0])
boxes = torch.cat([corner, corner + 32 + 250 * torch.rand(8, 2)], 1)
instances = InstanceData(bboxes=boxes, labels=torch.arange(8))
def step(size):
    meta = dict(img_shape=size, pad_shape=size)
    if annotated < classes:
        meta['annotated_labels'] = torch.arange(annotated)
    sample = DetDataSample(metainfo=meta)
    sample.gt_instances = instances
    sizes = [[-(-n // stride) for n in size] for stride in (8, 16, 32, 64, 128)]
    feats = [torch.randn(1, 256, *s).contiguous(memory_format=torch.channels_last).requires_grad_() for s in sizes]
    if side == 'ours':
        losses = head.loss(feats, [sample])
    else:
        losses = head.loss_by_feat(*head(feats), [instances], [meta])
    sum(sum(v) if isinstance(v, list) else v for v in losses.values()).backward()
    head.zero_grad()
    return float(sum(losses['loss_cls']) if isinstance(losses['loss_cls'], list) else losses['loss_cls'])
step((128, 128))
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
value = step((800, 1344))
print(time.process_time() - start, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, value)
"""


def measure(side: str, classes: int, annotated: int) -> tuple[float, float, float]:
    """CPU seconds, MiB added to the peak, classification loss."""
    command = [sys.executable, '-W', 'ignore', '-c', CODE, side, str(classes), str(annotated)]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    seconds, mebibytes, loss = map(float, out.split()[-3:])
    print(
        f'{side:<7}{classes:>7} classes,{annotated:>6} annotated {seconds:8.1f} s {mebibytes:9.0f} MiB  loss {loss:.5f}'
    )
    return seconds, mebibytes, loss


def main() -> int:
    """Command line; exit status 1 when the two losses differ or ours needs more than a quarter of mmdet's memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--classes', type=int, default=25190)
    parser.add_argument('--shared', type=int, default=1203, help='classes at which both sides run')
    args = parser.parse_args()
    measure('ours', args.classes, 80)
    measure('ours', args.classes, args.classes)
    seconds, memory, loss = measure('ours', args.shared, args.shared)
    peer_seconds, peer_memory, peer_loss = measure('mmdet', args.shared, args.shared)
    if abs(loss - peer_loss) > 1e-4 * abs(peer_loss):
        print('the losses differ; the figures do not compare')
        return 1
    times, memories = peer_seconds / seconds, peer_memory / memory
    print(f'mmdet / ours at {args.shared} classes: {times:.2f} in time, {memories:.1f} in memory')
    return 0 if memory <= 0.25 * peer_memory else 1


if __name__ == '__main__':
    sys.exit(main())
