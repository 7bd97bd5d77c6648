"""Write documents of the embedded scenes: several pictures, each followed by a caption of it.

python tools/dataset_converters/prepare_scenes.py --out data/scenes
python tools/dataset_converters/prepare_documents.py --scenes data/scenes --out data/documents
"""

import argparse

from florence_mm.corpora.scene_documents import DocumentOptions, write_scene_documents
from florence_mm.errors import one_sentence_errors


def parse_args() -> argparse.Namespace:
    """Command-line arguments."""
    default = DocumentOptions()
    parser = argparse.ArgumentParser(description='Write documents of scenes of digits and their captions')
    parser.add_argument('--scenes', default='data/scenes', help='folder of prepare_scenes.py (default: data/scenes)')
    parser.add_argument('--out', default='data/documents', help='folder to write to (default: data/documents)')
    parser.add_argument(
        '--pictures', type=int, default=default.pictures, help='pictures of a document (default: %(default)s)'
    )
    parser.add_argument(
        '--rounds',
        type=int,
        default=default.rounds,
        help='how often each picture stands in the training documents (default: %(default)s)',
    )
    parser.add_argument('--seed', type=int, default=default.seed, help='seed (default: %(default)s)')
    return parser.parse_args()


def main() -> None:
    """Write the documents."""
    args = parse_args()
    with one_sentence_errors():
        options = DocumentOptions(args.pictures, args.rounds, args.seed)
        train, test = write_scene_documents(args.scenes, args.out, options)
    print(f'{train} training and {test} test documents of {args.pictures} pictures are in {args.out}')


if __name__ == '__main__':
    main()
