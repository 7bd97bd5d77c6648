"""A question's way to its answer: the files it goes through, in their order, and how often it enters the model's file.

    python tools/misc/way.py [--all]

Asks a small METER with random weights a question about a generated image, as ``tools/vqa.py`` does, and watches every
call of a function of the package from the image's file to the printed answer. ``--all`` also lists the functions.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.logging import MMLogger
from PIL import Image

import florence_mm
from florence_mm.apis import MultimodalInferencer

PACKAGE = Path(florence_mm.__file__).parent
MODEL = 'models/multimodal/meter.py'


def small_config() -> Config:
    """A METER of a few thousand weights whose answers are words."""
    tower = {'arch': {'embed_dims': 16, 'num_layers': 1, 'num_heads': 2}, 'vocab_size': 600}
    model = {
        'type': 'florence_mm.METER',
        'image_encoder': {'type': 'florence_mm.CoSwin', 'arch': 'micro', 'img_size': 32},
        'text_encoder': {'type': 'florence_mm.CLIPTokenEncoder', 'tower': tower},
        'tokenizer': {'type': 'florence_mm.MaskedCLIPTokenizer', 'vocab_size': 600},
        'fusion': {'hidden_size': 16, 'num_layers': 1, 'num_heads': 2},
        'heads': {'vqa': {'type': 'florence_mm.FusionVQAHead', 'answers': ['yes', 'no']}},
    }
    pipeline = [{'type': 'florence_mm.LoadImage'}, {'type': 'florence_mm.PackVQA'}]
    dataset = {'type': 'florence_mm.VQADataset', 'question_file': 'questions.json', 'pipeline': pipeline}
    return Config({'model': model, 'test_dataloader': {'dataset': dataset}})


def watch(work: Callable[[], Any]) -> list[tuple[str, str, str]]:
    """The calls of functions of the package while ``work`` runs: file, function, and the file of the caller."""
    calls = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == 'call' and frame.f_code.co_filename.startswith(str(PACKAGE)):
            caller = frame.f_back
            # what torch or mmengine calls is called by whoever called them
            while caller is not None and not caller.f_code.co_filename.startswith(str(PACKAGE)):
                caller = caller.f_back
            names = [str(Path(f.f_code.co_filename).relative_to(PACKAGE)) if f else '' for f in (frame, caller)]
            calls.append((names[0], frame.f_code.co_name, names[1]))

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


def question_way() -> list[tuple[str, str, str]]:
    """The calls between a question about an image file and its answer, see :func:`watch`."""
    MMLogger.get_instance('way', log_level='WARNING')  # the initialisation of random weights is logged at length
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / 'image.png'
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file)
        inferencer = MultimodalInferencer(small_config(), None, 'cpu')
        return watch(lambda: inferencer(file, 'is it red?'))


def entries(calls: list[tuple[str, str, str]]) -> list[str]:
    """The functions by which the calls enter the model's file."""
    return [function for name, function, caller in calls if name == MODEL and caller != MODEL]


def main() -> None:
    """Ask, watch, print."""
    parser = argparse.ArgumentParser(description='The files that a question goes through.')
    parser.add_argument('--all', action='store_true', help='list the functions too')
    args = parser.parse_args()
    calls = question_way()
    files = list(dict.fromkeys(name for name, _, _ in calls))
    for name in files:
        functions = dict.fromkeys(function for own, function, _ in calls if own == name)
        print(name + (f': {", ".join(functions)}' if args.all else ''))
    print(f'{len(files)} files; {MODEL} is entered {len(entries(calls))} times: {", ".join(entries(calls))}')


if __name__ == '__main__':
    main()
