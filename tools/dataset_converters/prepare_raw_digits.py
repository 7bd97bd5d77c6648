"""Write raw pairs of the embedded digits, with planted faults, as tars for curation.

python tools/dataset_converters/prepare_raw_digits.py --out data/raw_digits
"""

import argparse

from florence_mm.config.arguments import seed
from florence_mm.corpora.raw_digits import write_raw_digits
from florence_mm.errors import one_sentence_errors


def main() -> None:
    """Write the pairs and print what is planted."""
    parser = argparse.ArgumentParser(description='Write raw pairs of handwritten digits with planted faults')
    parser.add_argument('--out', default='data/raw_digits', help='folder to write to (default: data/raw_digits)')
    parser.add_argument('--seed', type=seed, default=0, help='of what is planted where (default: 0)')
    args = parser.parse_args()
    with one_sentence_errors():
        planted = write_raw_digits(args.out, args.seed)
    print(f'{args.out}: {sum(planted.values())} raw pairs')
    for name in sorted(planted):
        print(f'  {name:14}{planted[name]:>6}')


if __name__ == '__main__':
    main()
