"""Answer questions, match sentences and write captions with a vision-language model.

    python tools/vqa.py CONFIG CHECKPOINT IMAGE... [--question TEXT]... [--match SENTENCE]... [--caption] ...

IMAGE is a file or a folder. Each image is encoded once for all questions, sentences and the caption. Results are
printed, and with ``--out`` written as JSON; ``--attention WORD PNG`` draws the cross-attention of a word in the first
text that contains it. ``--question`` needs a model with an answer head, ``--match`` one with a matching head, and
``--caption`` one with a caption head. Exit status: 0; 1 if some images failed and others did not (each has an ``error``
in the file and a sentence on the screen); 2 with one sentence if config, checkpoint or a word are unusable, or all
images failed.
"""

import argparse
import re
import sys
from pathlib import Path

import florence_mm  # noqa: F401  patches the installed packages, so it comes before anything that imports them
from florence_mm.apis import MultimodalInferencer
from florence_mm.apis.base import list_pictures
from florence_mm.apis.named import checkpoint_and_inputs
from florence_mm.apis.results import print_any_name, report_failures
from florence_mm.config.arguments import device, positive_int
from florence_mm.config.load import load_config
from florence_mm.config.options import add_config_options
from florence_mm.errors import UsageError, one_sentence_errors
from florence_mm.utils.files import refuse_overwriting


def parse_args() -> argparse.Namespace:
    """Command-line arguments."""
    parser = argparse.ArgumentParser(
        description='Answer questions, match sentences and write captions with a vision-language model.'
    )
    parser.add_argument('config', help='config file, PACKAGE::FILE, or the name of a model')
    parser.add_argument(
        'checkpoint', nargs='?', help=".pth or .safetensors file; may be left out or '-' for a model given by name"
    )
    parser.add_argument('images', nargs='+', metavar='IMAGE', help='an image, or a folder of images')
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
    parser.add_argument('--out', metavar='JSON', help='also write the results to this file')
    parser.add_argument(
        '--attention', nargs=2, metavar=('WORD', 'PNG'), help='draw the cross-attention of a word over one image'
    )
    parser.add_argument('--batch-size', type=positive_int, default=1, help='images per batch (default: 1)')
    parser.add_argument('--device', type=device, help='cpu, cuda or cuda:NUMBER; default: the GPU if there is one')
    add_config_options(parser)
    return parser.parse_args()


def check_outputs(args: argparse.Namespace, files: list) -> None:
    """Check before the model is loaded that the files to write can be, and replace none that is read."""
    sources = [args.config, args.checkpoint, *files]
    if args.out:
        refuse_overwriting(args.out, sources, '--out')
    if args.attention:
        path = args.attention[1]
        if not path.lower().endswith('.png'):
            raise UsageError(f'--attention {path} must end in .png')
        if len(files) != 1:
            raise UsageError(f'--attention draws one image, but there are {len(files)}; name one')
        refuse_overwriting(path, sources, '--attention')
        if args.out and Path(path).absolute() == Path(args.out).absolute():
            raise UsageError(f'--attention and --out both name {path}; give two files')


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


def draw(inferencer: MultimodalInferencer, result: dict, texts: list[str], word: str, path: str) -> None:
    """Draw the attention of a word in the first text, or else in the caption, that contains it."""
    texts = [*texts, *([result['caption']] if result.get('caption') else [])]
    text = next((t for t in texts if word.casefold() in re.findall(r'\w+', t.casefold())), texts[0] if texts else None)
    if text is None:
        raise UsageError(f'--attention {word} needs a text with that word; give --question, --match or --caption')
    inferencer.draw_attention(result['file'], text, word, path)
    print(f'{path}: attention to {word!r} in {text!r}')


def main() -> int:
    """Run the model, print and write the results."""
    args = parse_args()
    print_any_name()
    with one_sentence_errors():
        args.checkpoint, args.images = checkpoint_and_inputs(args.config, args.checkpoint, args.images)
        files = list_pictures(args.images)
        check_outputs(args, files)
        cfg = load_config(args.config, args.cfg_options)
        inferencer = MultimodalInferencer(cfg, args.checkpoint, args.device, args.batch_size)
        results = inferencer(files, args.question, args.match, args.caption, args.top, args.out)
        good = [result for result in results if 'error' not in result]
        for result in good:
            show(result)
        if args.attention and good:
            draw(inferencer, good[0], [*args.question, *args.match], *args.attention)
    if args.out:
        print(f'{args.out}: {len(good)} images')
    return report_failures(results, 'images')


if __name__ == '__main__':
    sys.exit(main())
