"""Write the embedded handwritten digits as images and manifests.

python tools/dataset_converters/prepare_digits.py --out data/digits
"""

import argparse
import time

from florence_mm.corpora.digits import load_digits_split, write_digits
from florence_mm.errors import one_sentence_errors


def main() -> None:
    """Write the digits and print a summary."""
    parser = argparse.ArgumentParser(description='Write the handwritten digits of scikit-learn as images and manifests')
    parser.add_argument('--out', default='data/digits', help='folder to write to (default: data/digits)')
    parser.add_argument('--size', type=int, default=32, help='width and height of the images (default: 32)')
    args = parser.parse_args()
    start = time.monotonic()
    with one_sentence_errors():
        written, total = write_digits(args.out, args.size)
    train, test = (len(load_digits_split(split)[1]) for split in ('train', 'test'))
    what = f'wrote {written} of {total} files' if written else f'all {total} files were there already'
    print(f'{args.out}: {train} training and {test} test digits of {args.size}x{args.size} pixels; ', end='')
    print(f'{what} ({time.monotonic() - start:.1f} s)')


if __name__ == '__main__':
    main()
