"""Make a few-shot subset of a COCO-format file, the same for everybody.

python tools/dataset_converters/few_shot_subset.py ANNOTATIONS.json --shots 5 --out SUBSET.json
"""

import argparse

from florence_mm.errors import one_sentence_errors
from florence_mm.preparation.few_shot import write_few_shot


def main() -> None:
    """Write the subset and print the number of images per class."""
    parser = argparse.ArgumentParser(description='Make a few-shot subset of a COCO-format file')
    parser.add_argument('annotations', help='COCO-format file')
    parser.add_argument('--out', required=True, metavar='FILE.json', help='the file with the chosen images')
    parser.add_argument('--shots', type=int, default=5, help='images per class (default: 5)')
    parser.add_argument('--seed', type=int, default=0, help='another seed chooses other images (default: 0)')
    args = parser.parse_args()
    with one_sentence_errors():
        counts = write_few_shot(args.annotations, args.out, args.shots, args.seed)
    print(f'{args.out}: ' + ', '.join(f'{name} in {count} images' for name, count in counts.items()))


if __name__ == '__main__':
    main()
