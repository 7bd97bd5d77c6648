"""Memory of the processes of a sharded run at its start, whole models split afterwards and split while initialised.

    python tools/benchmarks/sharded_start.py [CONFIG] [--ranks 2]

Both ways build and initialise the config's model from one seed in gloo processes on a CPU, and shard it; what each
process adds at its peak to the memory it had after its imports is compared with the size of the weights. The bar is
1 / W of the weights and the largest group that is gathered at once: a block, or what is in none. The exit status tells
whether the bytes of parameters, counted while they are split, keep to it, and whether both ways give equal weights.
"""

import argparse
import json
import os
import socket
import subprocess
import sys

from florence_mm.config.arguments import positive_int

CONFIG = 'configs/unicl/unicl_coswin-t_8xb512-32e_in21k-yfcc14m.py'
CODE = """
import json, os, resource, sys, time, torch
from torch import distributed
import florence_mm, mmdet.models, mmaction.models, mmpretrain.models
from mmengine.registry import MODELS, init_default_scope
from florence_mm.config.load import load_config
from florence_mm.config.pretrained import drop_pretrained
from florence_mm.engine.host_memory import keep_freed_memory
from florence_mm.engine.memory import BLOCKS
from florence_mm.engine.meta_init import ShardedInit
from florence_mm.engine.parallelize import parallelize
way, config = sys.argv[1:]
torch.set_num_threads(1)
distributed.init_process_group('gloo')
keep_freed_memory()  # as the runner does
cfg = load_config(config, None)
init_default_scope(cfg.get('default_scope', 'florence_mm'))
drop_pretrained(cfg.model, 'model')
with torch.device('meta'):
    shapes = MODELS.build(cfg.model)
size = lambda module: sum(parameter.nbytes for parameter in module.parameters())
kinds = {type(module).__name__ for module in shapes.modules()} & set(BLOCKS)
blocks = [module for module in shapes.modules() if type(module).__name__ in kinds]
total = size(shapes)
block = max(total - sum(map(size, blocks)), *map(size, blocks))
torch.ones(8, 8) @ torch.ones(8, 8)
distributed.barrier()
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before, start = peak(), time.process_time()
torch.manual_seed(0)
init = ShardedInit() if way == 'split' else None
def build():
    model = MODELS.build(cfg.model)
    torch.manual_seed(1)
    model.init_weights()
    return model
if init is None:
    model = build()
else:
    with init:
        model = build()
parallelize(model, sorted(kinds), shard=True, init=init)
added, seconds = peak() - before, time.process_time() - start
check = sum(p.detach().to_local().double().abs().sum().item() for p in model.parameters())
counted = init.peak if init else None
print(json.dumps(dict(added=added, total=total, block=block, seconds=seconds, check=check, counted=counted)))
"""


def measure(way: str, config: str, ranks: int) -> list[dict[str, float]]:
    """What each process prints."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        place = {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(free.getsockname()[1]), 'WORLD_SIZE': str(ranks)}
    command = [sys.executable, '-W', 'ignore', '-c', CODE, way, config]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **place, 'RANK': str(rank)})
        for rank in range(ranks)
    ]
    return [json.loads(process.communicate()[0].splitlines()[-1]) for process in started]


def main() -> int:
    """Print both ways; exit status 1 when the bar is missed or the weights differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', nargs='?', default=CONFIG, help='default: %(default)s')
    parser.add_argument('--ranks', type=positive_int, default=2, help='processes (default: 2)')
    args = parser.parse_args()
    whole, split = (measure(way, args.config, args.ranks) for way in ('whole', 'split'))
    mib = 2**20
    total, block = whole[0]['total'], whole[0]['block']
    bar = total / args.ranks + block
    print(f'{args.config}: weights {total / mib:.0f} MiB, largest group {block / mib:.0f}, bar {bar / mib:.0f}')
    for way, found in (('whole', whole), ('split', split)):
        added = ', '.join(f'{process["added"] / mib:.0f}' for process in found)
        print(f'{way}: {added} MiB at the peak of each process, {found[0]["seconds"]:.1f} s of CPU')
    counted = max(process['counted'] for process in split)
    print(f'counted while split: {counted / mib:.0f} MiB of parameters at the peak')
    equal = all(a['check'] == b['check'] for a, b in zip(whole, split, strict=True))
    print('weights are equal' if equal else 'the weights differ')
    return 0 if equal and counted <= bar else 1


if __name__ == '__main__':
    sys.exit(main())
