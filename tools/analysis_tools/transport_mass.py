"""How much of each named class a model over words and regions moves to the regions of that class.

python tools/analysis_tools/transport_mass.py CONFIG CHECKPOINT --regions FOLDER

Each image with regions of several classes is paired with a sentence that names one of them. The optimal transport of
UNITER's alignment moves the words of the sentence to the regions; the share of the class's word that goes to regions of
that class is printed beside that of a plan that moves equal shares to all regions.
"""

import argparse
import json
import sys

import torch
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from torch import Tensor

import florence_mm  # noqa: F401  (patches the stack before the model is built)
from florence_mm.errors import one_sentence_errors
from florence_mm.formats.regions import RegionFiles
from florence_mm.models.heads.multimodal.alignment import alignment_plan
from florence_mm.models.multimodal.protocol import RegionReader
from florence_mm.registry import MODELS


@torch.no_grad()
def shares_of(model: RegionReader, files: RegionFiles, image: str, sentence: str) -> list[tuple[float, float]]:
    """Shares of each named class of an image that go to its regions: by the model's plan, and by an equal one."""
    regions = files.read(image)
    labels = torch.from_numpy(regions.probabilities).argmax(1)
    inputs = torch.cat([torch.from_numpy(regions.features), torch.from_numpy(regions.positions())], 1)[None]
    found = []
    present = sorted(set(labels.tolist()) - {0})
    for label in present if len(present) > 1 else []:
        name = files.classes[label - 1]
        tokens, text = model.encode_text([sentence.format(name)])
        fused = model.fuse(text, tokens.mask, model.encode_image(inputs))
        plan: Tensor = alignment_plan(tokens, fused, model.tokenizer)
        words = _places(model, tokens.input_ids[0].tolist(), name)
        moved = plan[0, words].sum(0)  # (R,)
        own = labels == label
        found.append((float(moved[own].sum() / moved.sum()), float(own.float().mean())))
    return found


def _places(model: RegionReader, ids: list[int], name: str) -> list[int]:
    """Places of the tokens of a class's name in a text."""
    own = model.tokenize([f'a {name}']).input_ids[0, 1:-1].tolist()
    wanted = own[len(model.tokenize(['a']).input_ids[0]) - 2 :]
    starts = [place for place in range(len(ids)) if ids[place : place + len(wanted)] == wanted]
    return [starts[-1] + number for number in range(len(wanted))]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('--regions', required=True, help='folder of region files')
    parser.add_argument('--sentence', default='a picture of a {}', help='sentence with {} for the class')
    args = parser.parse_args()
    with one_sentence_errors():
        model = MODELS.build(Config.fromfile(args.config).model)
        load_checkpoint(model, args.checkpoint, map_location='cpu')
        model.eval()
        files = RegionFiles(args.regions)
        shares = [pair for image in files for pair in shares_of(model, files, image, args.sentence)]
        moved, equal = (sum(values) / len(values) for values in zip(*shares, strict=True))
        print(json.dumps({'pairs': len(shares), 'transport mass': round(moved, 3), 'equal plan': round(equal, 3)}))
        return 0


if __name__ == '__main__':
    sys.exit(main())
