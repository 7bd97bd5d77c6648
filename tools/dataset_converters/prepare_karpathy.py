"""Write manifests of the Karpathy splits of COCO or Flickr30k from their public file.

python tools/dataset_converters/prepare_karpathy.py dataset_coco.json --images data/coco --out data/coco/karpathy
python tools/dataset_converters/prepare_karpathy.py dataset_flickr30k.json --images data/flickr30k/images \\
    --out data/flickr30k/karpathy
"""

import argparse

from florence_mm.errors import one_sentence_errors
from florence_mm.preparation.karpathy import read_karpathy, write_karpathy


def main() -> None:
    """Write the manifests and print the numbers of images and captions."""
    parser = argparse.ArgumentParser(description='Write manifests of the Karpathy splits')
    parser.add_argument('file', help='dataset_coco.json, dataset_flickr30k.json or dataset_flickr8k.json')
    parser.add_argument('--out', required=True, help='folder to write to')
    parser.add_argument('--images', help='folder of the images, to check that all exist')
    parser.add_argument('--no-rest', action='store_true', help="leave COCO's 'restval' out of the training images")
    args = parser.parse_args()
    with one_sentence_errors():
        splits = read_karpathy(args.file, args.images, with_rest=not args.no_rest)
        write_karpathy(args.out, splits, args.file)
    parts = [f'{split} {len(rows)} ({sum(len(row["texts"]) for row in rows)})' for split, rows in splits.items()]
    print(f'{args.out}: images (captions): {", ".join(parts)}')


if __name__ == '__main__':
    main()
