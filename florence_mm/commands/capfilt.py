"""Draw captions with one model, and filter all captions with another (CapFilt).

PAIRS is a manifest (.jsonl, .csv, .tsv, .parquet) of pictures with their texts, a folder of pictures with texts beside
them, or a tar or folder of tars. Written are a new manifest with the source of each text, the texts that were rejected,
and a report with pictures. A run that was stopped goes on where it was when the command is run again; another threshold
takes seconds.

Exit status: 0 after a finished run, 2 with one sentence if the pairs, an option or a model is unusable.
"""

import argparse
from pathlib import Path

from florence_mm.config.arguments import device, positive_int
from florence_mm.config.arguments import seed as seed_number
from florence_mm.errors import UsageError, shown_path

EXAMPLES = (
    'florence-mm capfilt pairs.jsonl --captioner NAME --filter NAME --out captions',
    'florence-mm capfilt raw --captioner NAME --filter NAME --out captions --shards',
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument('pairs', help='manifest, folder of pictures and texts, or tars')
    for what, does in (('captioner', 'writes'), ('filter', 'matches pictures and texts')):
        parser.add_argument(
            f'--{what}', required=True, metavar='NAME', help=f'name or config file of a model that {does}'
        )
        parser.add_argument(f'--{what}-checkpoint', metavar='FILE', help=f"weights of the {what} (default: the name's)")
    parser.add_argument('--out', required=True, metavar='FOLDER', help='folder that is written to')
    parser.add_argument('--prefix', metavar='FOLDER', help='folder of the paths in a manifest (default: its own)')
    parser.add_argument('--shards', action='store_true', help='write shards for training too')
    parser.add_argument(
        '--threshold', type=float, default=0.5, help='least probability of a match that is kept (default: 0.5)'
    )
    parser.add_argument('--top-p', type=float, default=0.9, help='nucleus that words are drawn from (default: 0.9)')
    parser.add_argument('--texts', type=positive_int, default=1, help='captions drawn of a picture (default: 1)')
    parser.add_argument('--seed', type=seed_number, default=0, help='seed of the captions (default: 0)')
    parser.add_argument('--batch-size', type=positive_int, default=16, help='pictures per batch (default: 16)')
    parser.add_argument('--device', type=device, help='cpu, cuda or cuda:NUMBER; default: the GPU if there is one')


def run(args: argparse.Namespace) -> int:
    """Check the arguments, load both models, and caption and filter."""
    from florence_mm.curation.capfilt import REPORT, CapFiltSettings, run_capfilt
    from florence_mm.curation.options import CapFiltOptions, InputOptions
    from florence_mm.visualization.capfilt import draw_text_report

    options = CapFiltOptions(args.threshold, args.top_p, args.texts, args.seed, args.batch_size)
    path = Path(args.pairs).expanduser()
    if not path.exists():  # before models are loaded
        raise UsageError(f'there is no {shown_path(path)}; name a manifest, a folder of pictures and texts, or tars')
    source = InputOptions(_kind(path), args.pairs, prefix=args.prefix)
    settings = CapFiltSettings(source, Path(args.out).expanduser(), options, args.shards)
    from florence_mm.apis.capfilt import ModelCaptioner, ModelMatcher

    captioner = ModelCaptioner(args.captioner, args.captioner_checkpoint, args.device)
    matcher = ModelMatcher(args.filter, args.filter_checkpoint, args.device)
    found = run_capfilt(settings, captioner, matcher)
    draw_text_report(found.report, settings.out / REPORT)
    print(f'{found.report.kept} of {found.report.total} texts kept')
    for source_name in ('web', 'synthetic'):
        counts = found.report.content[source_name]
        print(f'  {source_name:22}{counts["kept"]:>12} of {counts["texts"]}')
        for name, count in counts['rejected'].items():
            print(f'    {name:20}{count:>12}')
    if found.manifest is not None:
        print(f'manifest: {found.manifest}')
    if found.shards is not None:
        print(f'shards: {found.shards.root}')
    print(f'report: {settings.out / REPORT / "report.md"}')
    return 0


def _kind(path: Path) -> str:
    """Kind of the source at a path."""
    if path.suffix == '.tar' or (path.is_dir() and any(path.glob('*.tar'))):
        return 'tars'
    return 'folder' if path.is_dir() else 'manifest'
