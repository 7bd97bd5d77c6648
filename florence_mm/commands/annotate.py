"""Annotate images with models, filter the annotations, and refine them in rounds.

The data engine of Florence-2: CONFIG names pictures, models that annotate them, filters, and what is trained to refine
the annotations (see docs/annotation.md). The result is a task file a round, which TaskManifest reads, with a report and
pictures. A run that was stopped goes on where it was when the command is run again; what was made of other options or
inputs is made again.

Exit status: 0 after a finished run, 2 with one sentence if the pictures, an option or a model are unusable.
"""

import argparse

from florence_mm.config.arguments import device
from florence_mm.config.options import add_config_options

EXAMPLES = (
    'florence-mm annotate CONFIG',
    'florence-mm annotate CONFIG --out data/annotated --rounds 2',
    'florence-mm annotate CONFIG --cfg-options filter.min_score=0.5 merge.add=0.6',
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument('config', help='config file, see docs/annotation.md')
    parser.add_argument('--out', metavar='FOLDER', help="folder that is written to (default: the config's)")
    parser.add_argument('--rounds', type=int, help="rounds of refining (default: the config's)")
    parser.add_argument('--device', type=device, help='cpu, cuda or cuda:NUMBER; default: the GPU if there is one')
    add_config_options(parser, 'filter.min_score=0.5')


def run(args: argparse.Namespace) -> int:
    """Read the config, apply the arguments to it, and annotate."""
    from mmengine.config import Config

    from florence_mm.config.load import load_config
    from florence_mm.config.merge import check_options, merge_options
    from florence_mm.curation.annotation import ANNOTATIONS, REPORT, run_annotation
    from florence_mm.curation.annotation_settings import make_annotation_settings, with_defaults
    from florence_mm.visualization.annotation import draw_annotation_report

    cfg = Config(with_defaults(load_config(args.config).to_dict()))
    check_options(cfg, args.cfg_options or {})
    merge_options(cfg, args.cfg_options or {})
    if args.out is not None:
        cfg.out = args.out
    if args.rounds is not None:
        cfg.refine.rounds = args.rounds
    if args.device is not None:
        cfg.device = args.device
    settings = make_annotation_settings(cfg)
    from florence_mm.apis.annotation_training import build_models

    for number, one in enumerate(run_annotation(settings, build_models(cfg.to_dict()))):
        report = one.report
        draw_annotation_report(report, one.annotations.parent / REPORT)
        print(f'round {number}: {report.kept} of {report.total} annotations kept')
        for name, kind in report.content['kinds'].items():
            print(f'  {name:22}{kind["kept"]:>12} of {kind["annotations"]}')
            for reason, count in kind['dropped'].items():
                print(f'    {reason:20}{count:>12}')
        print(f'  report: {one.annotations.parent / REPORT / "report.md"}')
    print(f'annotations: {settings.out / ANNOTATIONS}')
    return 0
