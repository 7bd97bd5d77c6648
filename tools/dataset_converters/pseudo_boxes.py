"""Make pseudo boxes: run a detector over images whose class is known, as a source for merge_detection.py.

python tools/dataset_converters/pseudo_boxes.py CONFIG CHECKPOINT MANIFEST.jsonl --out data/in22k/boxes.json
"""

import argparse
import time
from pathlib import Path

import florence_mm  # noqa: F401  patches the installed packages, so it comes before anything that imports them
from florence_mm.apis.classes import parse_class_names
from florence_mm.apis.detection_inferencer import DetectionInferencer
from florence_mm.datasets.detection import OBJECT
from florence_mm.errors import UsageError, one_sentence_errors
from florence_mm.formats.rows import read_rows
from florence_mm.preparation.merging import write_pseudo_boxes
from florence_mm.preparation.merging.taxonomy import class_key
from florence_mm.preparation.pseudo_boxes import image_classes, output_files
from florence_mm.utils.files import refuse_overwriting
from florence_mm.utils.progress import format_seconds


def parse_args() -> argparse.Namespace:
    """Command-line arguments."""
    parser = argparse.ArgumentParser(description='Find boxes with a trained detector in images whose class is known')
    parser.add_argument('config', help="the detector's config")
    parser.add_argument('checkpoint', help='.pth or .safetensors file')
    parser.add_argument('manifest', help='jsonl, csv or parquet file with the columns image and class')
    parser.add_argument('--out', required=True, metavar='FILE.json', help='annotations in the format of COCO')
    parser.add_argument('--image-root', default='', help='folder that the paths in the manifest are relative to')
    parser.add_argument('--score-thr', type=float, default=0.5, help='lowest score of a box (default: 0.5)')
    parser.add_argument('--top-k', type=int, default=10, help='most boxes per image (default: 10)')
    parser.add_argument('--class-agnostic', action='store_true', help="give every box its image's class")
    parser.add_argument(
        '--classes',
        metavar='NAMES',
        help='classes of a zero-shot detector: names separated by commas, or a .txt file with one name per line; '
        "default: the classes in its config, else the manifest's",
    )
    parser.add_argument(
        '--max-bad',
        type=number_or_fraction,
        default=0,
        metavar='N',
        help='most unreadable images that are left out, below 1 a fraction (default: 0)',
    )
    parser.add_argument('--device', help='cpu or cuda; default: the GPU if there is one')
    return parser.parse_args()


def number_or_fraction(text: str) -> int | float:
    """Parse a number of images (``'3'``) or a fraction of them (``'0.01'``)."""
    return int(text) if text.isdigit() else float(text)


def choose_classes(inferencer: DetectionInferencer, wanted: str | None, images: list[tuple[str, str]]) -> list[str]:
    """Return the detector's class names, after setting those of a zero-shot detector.

    Args:
        inferencer: The detector.
        wanted: Names separated by commas, or a .txt file; None: the config's classes, else those of ``images``.
        images: File and class name of each image.

    Raises:
        UsageError: names are given for a detector of fixed classes, there are none, or the file cannot be read.
    """
    if not inferencer.zero_shot:
        if wanted is not None:
            raise UsageError('--classes is for zero-shot detectors and this one has fixed classes; leave it out')
        return list(inferencer.known_classes)
    if wanted is not None and wanted.endswith('.txt'):
        try:
            # lines, as a name may have commas in it
            wanted = Path(wanted).read_text(encoding='utf-8').splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f'--classes {wanted} cannot be read as UTF-8 text ({error}); write or correct it'
            ) from None
    elif wanted is None and not inferencer.model.class_names:
        wanted = sorted({class_key(class_) for _, class_ in images})
    if wanted is not None:
        inferencer.model.set_classes(parse_class_names(wanted))
    return list(inferencer.model.class_names)


def main() -> None:
    """Write the pseudo boxes and print a summary."""
    args = parse_args()
    start = time.monotonic()
    with one_sentence_errors():
        for out in output_files(args.out):
            refuse_overwriting(out, [args.config, args.checkpoint, args.manifest, args.classes], '--out')
        rows = image_classes(read_rows(args.manifest), args.manifest)
        inferencer = DetectionInferencer(args.config, args.checkpoint, args.device)
        names = choose_classes(inferencer, args.classes, rows)
        agnostic = args.class_agnostic or names == [OBJECT]
        if not names and not agnostic:
            raise UsageError(
                f'neither {args.checkpoint} nor {args.config} names the classes of the detector; add them as '
                'test_dataloader.dataset.metainfo.classes, or give --class-agnostic'
            )

        def detect(path: str) -> tuple:
            found = inferencer(path, score_thr=0.0, skip_bad=False)[0]
            return found['boxes'], found['scores'], found['labels'], (found['height'], found['width'])

        counts = write_pseudo_boxes(
            rows,
            detect,
            args.out,
            args.image_root,
            None if agnostic else names,
            args.score_thr,
            args.top_k,
            {'config': args.config, 'checkpoint': args.checkpoint, 'classes': names, 'class_agnostic': agnostic},
            args.max_bad,
        )
    print(
        f'{args.out}: {counts.boxes} boxes in {counts.images} images ({format_seconds(time.monotonic() - start)}); '
        f'{counts.unreadable} images cannot be read and {counts.images_without_boxes} had no box that was good enough; '
        f'of the boxes left out, {counts.low_score} scored below {args.score_thr:g}, {counts.other_class} were of '
        f'another class and {counts.beyond_top_k} beyond the best {args.top_k}'
    )


if __name__ == '__main__':
    main()
