"""Answer questions about images, match sentences with them, and write captions.

Each image is encoded once for all questions, sentences and the caption. Results are printed, with --out-dir drawn, and
with --out written as JSON; --attention WORD PNG draws the cross-attention of a word in the first text that contains it.
--question needs a model with an answer head, --match one with a matching head, and --caption one with a caption head.
Exit status: 0; 1 if some images failed and others did not (each has an error in the file and a sentence on the
screen); 2 with one sentence if the model or a word are unusable, or all images failed.
"""

import argparse
import re
from pathlib import Path
from typing import Any

from florence_mm.config.arguments import positive_int
from florence_mm.errors import UsageError

from .model_command import ModelCommand

EXAMPLES = (
    'florence-mm ask photo.jpg --question "how many dogs are there?" --model NAME',
    'florence-mm ask photos --question "is it red?" --question "where is it?" --out-dir answered',
    'florence-mm ask photo.jpg --match "a dog on a beach" --attention dog dog.png',
)


def _add_own(parser: argparse.ArgumentParser) -> None:
    add_images(parser)
    parser.add_argument(
        '--question', action='append', default=[], metavar='TEXT', help='question to answer; may be repeated'
    )
    parser.add_argument(
        '--match',
        action='append',
        default=[],
        metavar='SENTENCE',
        help='sentence to match with the image; may be repeated',
    )
    parser.add_argument('--caption', action='store_true', help='write a caption')
    parser.add_argument('--top', type=positive_int, default=5, help='number of answers listed (default: 5)')


def add_images(parser: argparse.ArgumentParser) -> None:
    """Add the images, and where results go."""
    parser.add_argument('images', nargs='+', metavar='IMAGE', help='an image, a folder, a URL or a pattern as "*.jpg"')
    parser.add_argument('--out', metavar='JSON', help='also write the results to this file')
    parser.add_argument('--out-dir', metavar='DIR', help='also draw each image with its texts into this folder')
    parser.add_argument(
        '--attention', nargs=2, metavar=('WORD', 'PNG'), help='draw the cross-attention of a word over one image'
    )


def check(args: argparse.Namespace) -> None:
    """Check what can be checked before the model is looked for; the images are listed.

    Raises:
        UsageError: there are no images, or the files to write cannot be.
    """
    from florence_mm.apis.base import list_pictures

    args.images = list_pictures(args.images)
    if args.attention:
        path = args.attention[1]
        if not path.lower().endswith('.png'):
            raise UsageError(f'--attention {path} must end in .png')
        if len(args.images) != 1:
            raise UsageError(f'--attention draws one image, but there are {len(args.images)}; name one')
        if args.out and Path(path).absolute() == Path(args.out).absolute():
            raise UsageError(f'--attention and --out both name {path}; give two files')


def ask(args: argparse.Namespace, config: object, checkpoint: str | Path | None) -> int:
    """Run the model, print and write the results; returns the exit status."""
    from florence_mm.apis.multimodal_inferencer import MultimodalInferencer
    from florence_mm.apis.results import print_any_name, report_failures
    from florence_mm.utils.words import counted

    print_any_name()
    inferencer = MultimodalInferencer(config, checkpoint, args.device, args.batch_size, args.precision)
    if args.attention:
        inferencer.require_attention()
    results = inferencer(
        args.images, args.question, args.match, args.caption, args.top, args.out, out_dir=args.out_dir or None
    )
    good = [result for result in results if 'error' not in result]
    for result in good:
        show(result)
    if args.attention and good:
        draw(inferencer, good[0], [*args.question, *args.match], *args.attention)
    for place in (args.out, args.out_dir):
        if place:
            print(f'{place}: {counted(len(good), "image")}')
    return report_failures(results, 'image')


def show(result: dict) -> None:
    """Print the results of an image."""
    print(f'{result["file"]}:')
    for asked in result.get('answers', []):
        best = zip(asked['answers'], asked['scores'], strict=True)
        print(f'  {asked["question"]} ' + ', '.join(f'{answer} ({score:.2f})' for answer, score in best))
    for match in result.get('matches', []):
        print(f'  {match["score"]:.2f} {match["sentence"]}')
    if 'caption' in result:
        print(f'  {result["caption"]}')


def draw(inferencer: Any, result: dict, texts: list[str], word: str, path: str) -> None:
    """Draw the attention of a word in the first text, or else in the caption, that contains it."""
    texts = [*texts, *([result['caption']] if result.get('caption') else [])]
    text = next((t for t in texts if word.casefold() in re.findall(r'\w+', t.casefold())), texts[0] if texts else None)
    if text is None:
        raise UsageError(f'--attention {word} needs a text with that word; give --question, --match or --caption')
    inferencer.draw_attention(result['file'], text, word, path)
    print(f'{path}: attention to {word!r} in {text!r}')


def written(args: argparse.Namespace) -> list[tuple[str, str | Path | None]]:
    """Option and path of each file that is written."""
    return [('--out', args.out), ('--attention', args.attention and args.attention[1])]


COMMAND = ModelCommand(_add_own, ask, written, check=check)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    COMMAND.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Ask the chosen model."""
    return COMMAND.run(args)
