"""How much of each named class a model over words and regions moves to the regions of that class.

python tools/analysis_tools/transport_mass.py CONFIG CHECKPOINT --regions FOLDER

Each image with regions of several classes is paired with a sentence that names all its regions from left to right.
UNITER's alignment moves the words of the sentence to the regions by optimal transport; the share of a class's words
that goes to regions of that class is printed beside that of a plan that moves equal shares to all regions.
"""

import argparse
import json
import sys

import torch
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from torch import Tensor

import florence_mm  # noqa: F401  (patches the stack before the model is built)
from florence_mm.corpora.scene_facts import with_article
from florence_mm.errors import one_sentence_errors
from florence_mm.formats.regions import RegionFiles
from florence_mm.models.heads.multimodal.alignment import alignment_plan
from florence_mm.models.multimodal.protocol import RegionReader
from florence_mm.registry import MODELS


@torch.no_grad()
def shares_of(model: RegionReader, files: RegionFiles, image: str, sentence: str) -> list[tuple[float, float]]:
    """Shares of each class of an image that go to its regions: by the model's plan, and by an equal one."""
    regions = files.read(image)
    labels = torch.from_numpy(regions.probabilities).argmax(1)
    present = sorted(set(labels.tolist()) - {0})
    if len(present) < 2:
        return []
    left_to_right = labels[regions.boxes[:, 0].argsort(kind='stable')].tolist()
    names = [with_article(files.classes[label - 1]) for label in left_to_right if label]
    text = sentence.format(f'{", ".join(names[:-1])} and {names[-1]}')
    inputs = torch.cat([torch.from_numpy(regions.features), torch.from_numpy(regions.positions())], 1)[None]
    tokens, words = model.encode_text([text])
    plan = alignment_plan(tokens, model.fuse(words, tokens.mask, model.encode_image(inputs)), model.tokenizer)
    found = []
    for label in present:
        places = _places(model, tokens.input_ids[0].tolist(), files.classes[label - 1])
        moved: Tensor = plan[0, places].sum(0)  # (R,)
        own = labels == label
        found.append((float(moved[own].sum() / moved.sum()), float(own.float().mean())))
    return found


def _places(model: RegionReader, ids: list[int], name: str) -> list[int]:
    """Places of the tokens of a class's name in a text, each time that it occurs."""
    own = model.tokenize([f'a {name}']).input_ids[0, 1:-1].tolist()
    wanted = own[len(model.tokenize(['a']).input_ids[0]) - 2 :]
    starts = [place for place in range(len(ids)) if ids[place : place + len(wanted)] == wanted]
    return [start + number for start in starts for number in range(len(wanted))]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('--regions', required=True, help='folder of region files')
    parser.add_argument('--sentence', default='a picture of {}', help='sentence with {} for the regions')
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
