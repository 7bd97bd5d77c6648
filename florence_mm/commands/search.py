"""Search a folder of pictures or videos by text or by picture.

First make an index of the features with a two-tower model; with a video encoder it is of videos:

  search index FILE_OR_FOLDER ... --index DIR --model NAME

The same command adds later what is new, embeds what changed, drops what is gone, and goes on where it was stopped; the
index remembers its model. Then search it:

  search TEXT ... --index DIR
  search --image FILE --index DIR

With --out-dir a grid of what was found is drawn. Exit status: 0; 1 if some files could not be read; 2 with one sentence
if model, index or query are unusable.
"""

import argparse
from pathlib import Path

from florence_mm.config.arguments import positive_int
from florence_mm.errors import UsageError

from .model_choice import add_model_options, choose_model

EXAMPLES = (
    'florence-mm search index photos --index photos.index --model NAME',
    'florence-mm search "a dog on a beach" --index photos.index',
    'florence-mm search --image query.jpg --index photos.index --top 10 --out-dir found',
)
_INDEX = 'index'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument(
        'words', nargs='*', metavar='TEXT', help="a text to search for, or several; or 'index' and files or folders"
    )
    parser.add_argument('--index', required=True, metavar='DIR', help='folder of the index')
    searching = parser.add_argument_group('searching')
    searching.add_argument('--image', action='append', default=[], metavar='FILE', help='search by a picture')
    searching.add_argument('--top', type=positive_int, default=5, help='number of items found (default: 5)')
    searching.add_argument('--out-dir', metavar='DIR', help='draw what was found as search.png, and write search.json')
    searching.add_argument('--exact', action='store_true', help='compare with every item, also above 100,000 items')
    indexing = parser.add_argument_group("making an index, after 'search index'")
    indexing.add_argument(
        '--dtype', choices=('float32', 'float16'), help='of a new index; float16 halves its size (default: float32)'
    )
    add_model_options(parser.add_argument_group('model'), 'pictures')


def require_index(folder: str | Path) -> None:
    """Check that a folder is an index.

    Raises:
        UsageError: it is not.
    """
    if not (Path(folder) / 'index.json').is_file():
        raise UsageError(f"{folder} is no index; make it first: search index FOLDER --index '{folder}'")


def run(args: argparse.Namespace) -> int:
    """Index or search."""
    indexing = args.words[:1] == [_INDEX]
    if indexing and not args.words[1:]:
        raise UsageError("'search index' needs files or folders; give them, as in: search index photos --index DIR")
    if not indexing and not args.words and not args.image:
        raise UsageError('there is nothing to search for; give a text or --image FILE')
    if not indexing:
        require_index(args.index)
    _choose_as_before(args)
    config, checkpoint = choose_model(args)
    from florence_mm.apis.results import print_any_name
    from florence_mm.apis.retrieval_inferencer import RetrievalInferencer

    print_any_name()
    inferencer = RetrievalInferencer(config, checkpoint, args.device, args.batch_size, args.precision)
    return _index(args, inferencer) if indexing else _search(args, inferencer)


def _choose_as_before(args: argparse.Namespace) -> None:
    """Take the model that the index was made with, unless one is given."""
    file = Path(args.index) / 'index.json'
    if args.model is not None or args.checkpoint is not None or not file.is_file():
        return
    from florence_mm.utils.json_files import read_json

    from .index_models import recall_model

    args.model, args.checkpoint = recall_model(args.index, read_json(file))


def _index(args: argparse.Namespace, inferencer: object) -> int:
    from florence_mm.apis.results import report_failures

    from .index_models import remember_model

    report = inferencer.index(args.words[1:], args.index, args.dtype)
    if Path(args.index).exists():
        remember_model(args.index, *inferencer.source)
    if not Path(args.index).exists():
        return report_failures(report.failed, 'file')
    parts = [f'{report.added} added', f'{report.unchanged} unchanged']
    counts = (report.changed, 'changed'), (report.vanished, 'gone'), (report.drawings, 'of earlier searches left out')
    parts += [f'{number} {word}' for number, word in counts if number]
    print(f'{args.index}: {", ".join(parts)}')
    done = [{}] * (report.added + report.unchanged + report.changed)
    return report_failures([*done, *report.failed], 'file')


def _search(args: argparse.Namespace, inferencer: object) -> int:
    inferencer.open(args.index)
    queries = [*args.words, *map(Path, args.image)]
    for result in inferencer.search(queries, args.top, args.out_dir, args.exact or None):
        print(f'{result["query"]}:')
        for file, score in zip(result['files'], result['scores'], strict=True):
            print(f'  {score:.3f} {file}')
    if args.out_dir:
        print(f'{args.out_dir}: search.png and search.json')
    return 0
