"""Answer questions, match sentences and write captions with a vision-language model.

    python tools/vqa.py CONFIG CHECKPOINT IMAGE... [--question TEXT]... [--match SENTENCE]... [--caption] ...

IMAGE is a file or a folder. Each image is encoded once for all questions, sentences and the caption. Results are
printed, and with ``--out`` written as JSON; ``--attention WORD PNG`` draws the cross-attention of a word in the first
text that contains it. Exit status: 0, or 2 with one sentence if config, checkpoint, a word or an image are
unusable (the other images are still processed).
"""

import argparse
import re
import sys

import florence_mm  # noqa: F401  patches the installed packages, so it comes before anything that imports them
from florence_mm.apis import MultimodalInferencer
from florence_mm.apis.inputs import list_pictures
from florence_mm.config.load import load_config
from florence_mm.config.options import add_config_options
from florence_mm.errors import UsageError, one_sentence_errors


def parse_args() -> argparse.Namespace:
    """Command-line arguments."""
    parser = argparse.ArgumentParser(
        description='Answer questions, match sentences and write captions with a vision-language model.'
    )
    parser.add_argument('config', help='config file, or PACKAGE::FILE')
    parser.add_argument('checkpoint', help='.pth or .safetensors file')
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
    parser.add_argument('--top', type=int, default=5, help='number of answers listed (default: 5)')
    parser.add_argument('--out', metavar='JSON', help='also write the results to this file')
    parser.add_argument(
        '--attention', nargs=2, metavar=('WORD', 'PNG'), help='draw the cross-attention of a word over one image'
    )
    parser.add_argument('--batch-size', type=int, default=1, help='images per batch (default: 1)')
    parser.add_argument('--device', help='as torch names it, for example cuda:1; default: the GPU if there is one')
    add_config_options(parser)
    return parser.parse_args()


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
    with one_sentence_errors():
        if args.attention and not args.attention[1].lower().endswith('.png'):
            raise UsageError(f'--attention {args.attention[1]} must end in .png')
        files = list_pictures(args.images)
        if args.attention and len(files) != 1:
            raise UsageError(f'--attention draws one image, but there are {len(files)}; name one')
        cfg = load_config(args.config, args.cfg_options)
        inferencer = MultimodalInferencer(cfg, args.checkpoint, args.device, args.batch_size)
        results = inferencer(files, args.question, args.match, args.caption, args.top, args.out, skip_bad=True)
        good = [result for result in results if 'error' not in result]
        for result in good:
            show(result)
        if args.attention and good:
            draw(inferencer, good[0], [*args.question, *args.match], *args.attention)
    bad = [result['error'] for result in results if 'error' in result]
    if args.out:
        print(f'{args.out}: {len(good)} images')
    for sentence in bad:
        print(f'error: {sentence}', file=sys.stderr)
    return 2 if bad else 0


if __name__ == '__main__':
    sys.exit(main())
