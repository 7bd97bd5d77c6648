"""Curate raw image-text pairs into shards for training.

CONFIG names sources of raw pairs and the filters: sizes, near-duplicates, relevance, balance. The result is a folder of
webdataset tars with an index, and a report. A run that was stopped goes on where it was when the command is run again;
what was made of other options or inputs is made again.

Exit status: 0 after a finished run, 2 with one sentence if a source, an option or the model is unusable.
"""

import argparse

from florence_mm.config.arguments import positive_int
from florence_mm.config.options import add_config_options

EXAMPLES = (
    'florence-mm curate configs/curation/digits.py --workers 2',
    'florence-mm curate CONFIG --work work_dirs/pairs --out data/pairs --workers 16',
    'florence-mm curate CONFIG --engine ray --workers 512 --cfg-options stage_a.min_side=128',
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument('config', help='config file, such as configs/curation/digits.py')
    parser.add_argument('--work', metavar='FOLDER', help="state between the stages (default: the config's)")
    parser.add_argument('--out', metavar='FOLDER', help="the shards (default: the config's)")
    parser.add_argument('--workers', type=positive_int, help="processes, or Ray tasks at once (default: the config's)")
    parser.add_argument(
        '--engine', choices=('pool', 'ray'), help="processes of this machine, or Ray (default: the config's)"
    )
    add_config_options(parser, 'stage_a.min_side=128')


def run(args: argparse.Namespace) -> int:
    """Read the config, apply the arguments to it, and curate."""
    from mmengine.config import Config

    from florence_mm.config.load import load_config
    from florence_mm.config.merge import check_options, merge_options
    from florence_mm.curation.run import REPORT, curate
    from florence_mm.curation.settings import make_settings, with_defaults
    from florence_mm.visualization.curation import draw_report

    cfg = Config(with_defaults(load_config(args.config).to_dict()))
    check_options(cfg, args.cfg_options or {})
    merge_options(cfg, args.cfg_options or {})
    for name in ('work', 'out', 'workers', 'engine'):
        if getattr(args, name) is not None:
            cfg[name] = getattr(args, name)
    settings = make_settings(cfg)
    make_embed = None
    if settings.model is not None:
        from florence_mm.apis.relevance import MakeTowers

        make_embed = MakeTowers(settings.model.name, settings.model.checkpoint, settings.model.device)
    count_tokens = None
    if settings.tokenizer is not None:
        from florence_mm.registry import TASK_UTILS

        tokenizer = TASK_UTILS.build(dict(settings.tokenizer))

        def count_tokens(text: str) -> int:
            return len(tokenizer.encode(text))

    found = curate(settings, make_embed, count_tokens)
    draw_report(found.report, settings.out / REPORT)
    kept = found.shards.total
    print(f'{kept} of {found.pairs} pairs kept, in {len(found.shards)} shards in {settings.out}')
    for name, count in found.by_reason.items():
        print(f'  {name:22}{count:>12}')
    print(f'report: {settings.out / REPORT / "report.md"}')
    return 0
