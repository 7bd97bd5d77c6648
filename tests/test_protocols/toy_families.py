"""Runs of families that nobody trained, and cells of their table."""

import json

import torch

from florence_mm.protocols.families import FAMILIES
from florence_mm.protocols.family_runs import Cell


def cell(score=0.5, parameters=2_000_000, memory=300 * 2**20, **seconds):
    return Cell(score, {'vqa/accuracy': score}, 'a.pth', parameters, parameters // 2, memory, seconds)


def write_run(folder, last, iterations=10, times=((4, 2.0), (8, 3.0))):
    """A finished run with a log: lines at iterations with the seconds of one."""
    (folder / '1/vis_data').mkdir(parents=True)
    lines = [json.dumps({'iter': step, 'time': time}) for step, time in times]
    lines.append(json.dumps({'caption/CIDEr-D': 3.0, 'time': 99.0, 'step': 1}))  # of a validation
    (folder / '1/vis_data/scalars.json').write_text('\n'.join(lines) + '\n')
    torch.save({'state_dict': {'a': torch.zeros(1)}, 'meta': {'iter': iterations}}, folder / last)
    return str(folder / last)


GIT = FAMILIES['git'].models['captions']
TOWERS = 'unicl_coswin-micro_2xb32-5e_large-digits'
