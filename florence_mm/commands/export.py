"""Export a model to ONNX, OpenVINO or torch.export files, and compare them with it.

The suffix of OUT chooses the format: .onnx, .xml (OpenVINO, with the weights in .bin) or .pt2 (torch.export). A model
of two towers gives two files, OUT with -image and -text before the suffix; with --classes one classifier. Each file is
run in its runtime at several batches and sizes, and is not left behind where an output differs from the model's by
more than 1e-4. A vision-language model gives a file for answers, for matches, or for each.

Exit status: 0, or 2 with one sentence if a model, file or option is unusable.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from florence_mm.config.arguments import positive_int
from florence_mm.config.options import add_config_options
from florence_mm.utils.digests import sha256_of

if TYPE_CHECKING:
    from florence_mm.apis.loaded_model import LoadedModel
    from florence_mm.export.parts import Part

EXAMPLES = (
    'florence-mm export unicl_coswin-micro_1xb64-22e_digits towers.onnx',
    'florence-mm export CONFIG CHECKPOINT pets.onnx --classes "cat, dog"',
    'florence-mm export atss_coswin-micro_fpn_dyhead_2xb4-8e_scenes detector.onnx',
    'florence-mm export CONFIG CHECKPOINT image.xml --part image --free-size',
)

#: Pictures that tell whether a test pipeline gives all of them one size.
_PICTURES = ((256, 320), (360, 300))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument('config', help='config file, or the name of a model')
    parser.add_argument('checkpoint', nargs='?', help="weights; '-' or left out: those published for the name")
    parser.add_argument('out', metavar='OUT', help='file to write: .onnx, .xml (OpenVINO) or .pt2 (torch.export)')
    parser.add_argument(
        '--part',
        help='export one part only: image, text, classifier, detector, recognizer, answerer or matcher',
    )
    parser.add_argument(
        '--classes',
        help="names separated by commas, or 'imagenet1k' or 'digits': folded into a classifier of a two-tower model",
    )
    parser.add_argument('--templates', help="prompts of the classes: 'imagenet', 'simple' or 'none'")
    parser.add_argument(
        '--size',
        nargs='+',
        type=positive_int,
        metavar='PIXELS',
        help='height and width of the input, before them frames of videos (default: what the test pipeline gives)',
    )
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument('--free-size', action='store_true', help='height and width may change from call to call')
    sizes.add_argument('--fixed-size', action='store_true', help='they may not; the default, except of detectors')
    parser.add_argument('--opset', type=int, default=20, help='version of the ONNX operators (default: 20)')
    parser.add_argument(
        '--precision',
        choices=('fp32', 'bf16', 'int8'),
        default='fp32',
        help='bf16 of OpenVINO files, int8 of ONNX and OpenVINO files (default: fp32)',
    )
    parser.add_argument(
        '--calibration',
        nargs='+',
        metavar='PICTURE',
        help='pictures or folders that show the ranges of activations for int8; without, an ONNX file finds them anew '
        'in each call',
    )
    parser.add_argument(
        '--evaluate', action='store_true', help="run the config's test with the model, and with each file in its place"
    )
    parser.add_argument('--overwrite', action='store_true', help='replace OUT if it exists')
    add_config_options(parser)


def run(args: argparse.Namespace) -> int:
    """Export the parts of a model, and print what was compared."""
    from florence_mm.apis.classes import parse_class_names
    from florence_mm.apis.zoo import init_model
    from florence_mm.errors import UsageError
    from florence_mm.export.exporting import export_part
    from florence_mm.export.onnx_files import check_opset
    from florence_mm.export.parts import parts_of
    from florence_mm.export.placing import check_target, format_of, require_packages
    from florence_mm.language.class_names import KNOWN_CLASSES
    from florence_mm.models.multimodal.protocol import VisionLanguage, unwrap_reranker
    from florence_mm.models.protocol import TwoTowerModel, ZeroShotModel

    require_packages(format_of(args.out), args.precision)
    if args.calibration is not None and args.precision != 'int8':
        raise UsageError('--calibration is for --precision int8; give both')
    check_opset(args.opset)
    sources = [args.config, args.checkpoint]
    check_target(args.out, sources, args.overwrite)
    loaded = init_model(_config(args), args.checkpoint, 'cpu')
    model = loaded.model.requires_grad_(False)
    asked = unwrap_reranker(model)
    if isinstance(asked, VisionLanguage):
        asked.use_dataset_meta(loaded.meta.get('dataset_meta') or {})
    if args.classes is not None:
        if not isinstance(model, ZeroShotModel):
            raise UsageError(f'classes are those of a zero-shot model, and {loaded.name} has its own; leave them out')
        names = args.classes if args.classes in KNOWN_CLASSES else parse_class_names(args.classes)
        model.set_classes(names, args.templates)
    elif args.part is None and isinstance(model, TwoTowerModel):
        model.class_features = None  # without --classes: the towers
    given, free_pictures = _pipeline_size(loaded)
    size = tuple(args.size) if args.size else given
    free = True if args.free_size else False if args.fixed_size else None
    parts = parts_of(model, size, free, args.part)
    targets = [_target(args.out, part, len(parts)) for part in parts]
    for target in targets:
        check_target(target, sources, args.overwrite)
    if args.evaluate:
        _check_test(loaded, parts)
    if free_pictures and any(not part.free_size for part in parts if part.kind != 'text'):
        print(
            f'the test pipeline does not resize, and files take {"x".join(map(str, size))} alone; resize in it, or '
            'give --size or --free-size',
            file=sys.stderr,
        )
    pictures = None if args.calibration is None else _calibration(loaded, parts, args.calibration)
    known: dict[str, float] = {}  # metrics of the model itself, once
    for part, target in zip(parts, targets, strict=True):
        print(f'{target}: exporting the {part.kind} part', flush=True)
        examples = None if pictures is None else _examples(loaded, part, pictures)
        made = export_part(part, target, _facts(loaded, part, args), args.opset, args.precision, examples)
        print(
            f'{target}: {made.nodes} nodes, {target.stat().st_size / 2**20:.1f} MB, {made.seconds:.0f} s; '
            + ', '.join(f'{name} {low} to {high or "any"}' for name, (low, high) in made.limits.items())
        )
        for check in made.checks:
            boxes = '' if check.boxes is None else f', {check.boxes} boxes'
            print(f'  input {"x".join(map(str, check.shape))}: largest difference {check.difference:.1e}{boxes}')
        if made.checks[0].boxes is not None and not any(check.boxes for check in made.checks):
            print('  the model found no boxes in random pictures, so none were compared')
        if args.evaluate:
            for name, metrics in _tested(loaded, part, target, known).items():
                print(f'  {name}: ' + ', '.join(f'{key} {value:.4g}' for key, value in metrics.items()))
        print(f'  run it in Python: from florence_mm.export import load_exported; {_call(part, target)}', flush=True)
    return 0


def _config(args: argparse.Namespace) -> Any:
    """The config with the options of the command line; a name stays one, for its weights."""
    if not args.cfg_options:
        return args.config
    from florence_mm.apis.named import resolve_model
    from florence_mm.config.load import load_config

    config, args.checkpoint = resolve_model(args.config, args.checkpoint)
    return load_config(config, args.cfg_options)


def _calibration(loaded: 'LoadedModel', parts: list['Part'], paths: list[str]) -> list[Any]:
    """List the pictures, and check that they are all that the parts take, before anything is written."""
    from florence_mm.apis.base import list_pictures
    from florence_mm.errors import UsageError
    from florence_mm.export.parts import PAIRS

    for part in parts:
        if part.kind in (*PAIRS, 'text') or loaded.pipeline is None or len(part.size) != 2:
            takes = 'texts too' if part.kind in PAIRS else 'no pictures'
            raise UsageError(
                f'--calibration gives pictures, and the {part.kind} part takes {takes}; leave it out, or name another '
                '--part'
            )
    return list(list_pictures(paths))


def _examples(loaded: 'LoadedModel', part: 'Part', pictures: list[Any]) -> Any:
    """Yield pictures as the part takes them."""
    from florence_mm.apis.base import read_picture
    from florence_mm.export.preparing import Preparation, describe_preprocessing

    facts = describe_preprocessing(loaded.pipeline.pipeline, loaded.model.data_preprocessor, _scope(loaded))
    prepare = Preparation(facts)
    for picture in pictures:
        images, sizes = prepare.batch([prepare(read_picture(picture))])
        yield {'images': images, 'sizes': sizes} if part.kind == 'detector' else {'images': images}


def _tested(loaded: 'LoadedModel', part: 'Part', target: Path, known: dict[str, float]) -> dict[str, dict[str, float]]:
    """Metrics of the model, which are kept in ``known``, and of the file in the place of its part."""
    from florence_mm.export.accuracy import test_metrics
    from florence_mm.export.runtimes import open_runtime

    if part.kind == 'classifier':
        # features of texts are not in the file
        metrics = loaded.cfg.test_evaluator
        metrics = metrics if isinstance(metrics, list | tuple) else [metrics]
        loaded.cfg.test_evaluator = [metric for metric in metrics if 'Recall' not in str(metric['type'])]
    if not known:
        known.update(test_metrics(loaded.model, loaded.cfg, part.kind))
    opened = open_runtime(target)
    return {'the model': known, str(target): test_metrics(loaded.model, loaded.cfg, part.kind, opened)}


def _check_test(loaded: 'LoadedModel', parts: list['Part']) -> None:
    """Check that the config's test can be run with a file in the place of each part."""
    from florence_mm.errors import UsageError
    from florence_mm.models.multimodal.protocol import unwrap_reranker

    if loaded.cfg.get('test_evaluator') is None or loaded.pipeline is None:
        raise UsageError(f'{loaded.name} has no test_dataloader and test_evaluator; leave --evaluate out')
    if unwrap_reranker(loaded.model) is not loaded.model or any(part.kind == 'matcher' for part in parts):
        raise UsageError('a matcher is tested by re-ranking, which runs the model itself; leave --evaluate out')


def _call(part: 'Part', target: Path) -> str:
    """How a file is run, in Python."""
    source = {'text': 'a photo of a dog'}.get(part.kind, 'photo.jpg' if len(part.size) == 2 else 'video.mp4')
    about = {'answerer': ", texts='how many dogs are there?'", 'matcher': ", texts='two dogs on a beach'"}
    return f'load_exported({str(target)!r})({source!r}{about.get(part.kind, "")})'


def _target(out: str, part: 'Part', count: int) -> Path:
    path = Path(out)
    return path if count == 1 else path.with_name(f'{path.stem}-{part.kind}{path.suffix}')


def _pipeline_size(loaded: 'LoadedModel') -> tuple[tuple[int, ...] | None, bool]:
    """Size of the inputs that the test pipeline gives, and whether it gives any, with the pictures' own size.

    The size is None if the model tells none either.
    """
    import numpy as np

    from florence_mm.apis.video_inputs import VideoPipeline
    from florence_mm.export.preparing import Preparation, describe_preprocessing
    from florence_mm.models.protocol import finds_boxes

    if loaded.pipeline is None:
        return None, False
    if isinstance(loaded.pipeline, VideoPipeline):
        made = [tuple(loaded.pipeline(_GreyVideo(*size))[0]['inputs'].shape[2:]) for size in _PICTURES]
    else:
        facts = describe_preprocessing(loaded.pipeline.pipeline, loaded.model.data_preprocessor, _scope(loaded))
        prepare = Preparation(facts)
        grey = [np.full((*size, 3), 128, dtype=np.uint8) for size in _PICTURES]
        made = [prepare.batch([prepare(picture)])[0].shape[2:] for picture in grey]
    if made[0] == made[1] or finds_boxes(loaded.model):
        return made[0], False
    # a pipeline that does not resize
    for name in ('image_encoder', 'backbone'):
        side = (loaded.cfg.model.get(name) or {}).get('img_size')
        if side is not None:
            return (*made[0][:-2], *((side, side) if isinstance(side, int) else side)), True
    return None, True


class _GreyVideo:
    """A video reader, as the video pipeline takes it, of 64 grey frames.

    Args:
        height: of a frame.
        width: of a frame.
    """

    name, fps = 'grey', 25.0

    def __init__(self, height: int, width: int) -> None:
        self.size = (height, width, 3)

    def __len__(self) -> int:
        return 64

    def read(self, indices: Any) -> Any:
        """Frames ``(n, H, W, 3)``."""
        import numpy as np

        return np.full((len(indices), *self.size), 128, dtype=np.uint8)

    def close(self) -> None:
        """Do nothing, as nothing is open."""


def _scope(loaded: 'LoadedModel') -> str:
    return loaded.cfg.get('default_scope') or 'florence_mm'


def _facts(loaded: 'LoadedModel', part: 'Part', args: argparse.Namespace) -> dict[str, Any]:
    """What the file tells about itself."""
    import torch

    from florence_mm.export.parts import PAIRS
    from florence_mm.export.preparing import describe_preprocessing
    from florence_mm.models.multimodal.protocol import unwrap_reranker
    from florence_mm.models.protocol import ZeroShotModel
    from florence_mm.version import __version__

    facts: dict[str, Any] = {
        'model': loaded.name,
        'type': type(loaded.model).__name__,
        'checkpoint': _fingerprint(args.checkpoint),
        'versions': {'florence_mm': __version__, 'torch': torch.__version__},
    }
    if part.kind == 'text':
        return facts | {'tokenizer': _plain(loaded.cfg.model.get('tokenizer'))}
    if loaded.pipeline is not None:
        preprocessor = loaded.model.data_preprocessor
        facts['preprocessing'] = describe_preprocessing(loaded.pipeline.pipeline, preprocessor, _scope(loaded))
    if part.kind in PAIRS:
        inner = unwrap_reranker(loaded.model)
        config = loaded.cfg.model if inner is loaded.model else loaded.cfg.model.matcher
        facts |= {'tokenizer': _plain(config.get('tokenizer')), 'max_text_len': inner.max_text_len}
        facts['class_names'] = list(inner.answer_names()) if part.kind == 'answerer' else []
    elif part.kind != 'image':
        names = loaded.model.class_names if isinstance(loaded.model, ZeroShotModel) else loaded.class_names
        facts['class_names'] = list(names or [])
        facts['gives_logits'] = bool(getattr(part.module, 'gives_logits', False))
    return facts


def _plain(config: Any) -> Any:
    return json.loads(json.dumps(config))


def _fingerprint(checkpoint: str | None) -> dict[str, str] | None:
    if checkpoint is None or not Path(checkpoint).is_file():
        return None if checkpoint is None else {'name': checkpoint}
    return {'name': Path(checkpoint).name, 'sha256': sha256_of(checkpoint)}
