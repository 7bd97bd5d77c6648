"""Convert a checkpoint from a public layout into ours, or back.

The layout of the source is recognised from its keys. Without --to the target is ours; public layouts load in the
package they are of: timm, torchvision, transformers, open_clip, mmdet, mmpretrain, mmaction2 and others.
"""

import argparse
from typing import Any

EXAMPLES = (
    'florence-mm convert swin_tiny_patch4_window7_224.pth swin_tiny.safetensors',
    'florence-mm convert swin_tiny.safetensors swin_tiny_timm.pth --to timm-swin',
    'florence-mm convert epoch_30.pth swin_folder --to hugging-face-swin --prefix image_encoder',
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        'source', help='a checkpoint of any known layout: a file, a URL, a folder of transformers, or an index of files'
    )
    parser.add_argument(
        'target', help='the file to write: .safetensors, or for a public layout also .pth or a folder with config.json'
    )
    parser.add_argument(
        '--to', metavar='LAYOUT', help='layout of the target (default: ours, florence_mm); an unknown one lists all'
    )
    parser.add_argument('--prefix', default='', help='keep only this part of the model, such as image_encoder')
    parser.add_argument(
        '--dtype', choices=('float32', 'float16', 'bfloat16', 'float64'), help='type of the weights (default: as is)'
    )
    parser.add_argument(
        '--config', help='config of the model, for settings that no tensor tells: activation, epsilon, heads'
    )


def run(args: argparse.Namespace) -> int:
    """Convert the file; returns the exit status."""
    from florence_mm.models.checkpoints import convert_file

    settings = _settings(args.config, args.to, args.prefix) if args.config else None
    report = convert_file(args.source, args.target, args.to, args.prefix, args.dtype, settings)
    written = ' and '.join(map(str, report.files))
    print(f'{args.source} is {report.found}: {report.tensors} tensors written to {written} as {report.target}')
    if details := str(report):
        print(details)
    return 0


def _settings(config: str, to: str | None, prefix: str) -> dict[str, Any]:
    """Read what the target's layout asks of a model from the model of a config, which gets no memory for weights."""
    import torch
    from mmengine.registry import MODELS, init_default_scope

    from florence_mm.config.load import load_config
    from florence_mm.errors import UsageError
    from florence_mm.models.checkpoints.exporting import find_export
    from florence_mm.models.checkpoints.settings import read_settings

    if to is None:
        raise UsageError('--config is of use with --to alone; say what to convert to')
    cfg = load_config(config)
    if 'model' not in cfg:
        raise UsageError(f'{config} has no model; give the config that the checkpoint was trained with')
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    try:
        part = model.get_submodule(prefix.rstrip('.'))
    except AttributeError:
        raise UsageError(f'the model of {config} has no part {prefix}; give the config of the checkpoint') from None
    return read_settings(find_export(to).settings, part)
