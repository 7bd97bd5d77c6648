"""Convert a public checkpoint to our key names, as safetensors.

python tools/model_converters/convert_checkpoint.py swin_tiny_patch4_window7_224.pth swin_tiny.safetensors

Exit status: 0, or 2 with one sentence if the file cannot be converted.
"""

import argparse
import sys

import florence_mm
from florence_mm.errors import UsageError, one_sentence_errors
from florence_mm.models.checkpoints import (
    check_values,
    check_whole_file,
    convert_state_dict,
    plain_meta,
    read_checkpoint,
    write_safetensors,
)
from florence_mm.utils.files import refuse_overwriting


def main() -> int:
    """Convert the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('source', help='a checkpoint of any known format: a file or a URL')
    parser.add_argument('target', help='the file to write, .safetensors')
    parser.add_argument('--prefix', default='', help='keep only this part, such as image_encoder')
    args = parser.parse_args()
    if not args.target.endswith('.safetensors'):
        parser.error(f'{args.target} must end in .safetensors')
    with one_sentence_errors():
        refuse_overwriting(args.target, [args.source], 'the target')
        state, meta = read_checkpoint(args.source)
        name, state, skipped = convert_state_dict(state, args.source, meta)
        prefix = f'{args.prefix.rstrip(".")}.' if args.prefix else ''
        kept = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if not kept:
            begin = ', '.join(dict.fromkeys(key.split('.')[0] for key in state))
            raise UsageError(f'{args.source} ({name}) has no keys under {prefix!r}; they begin with {begin}')
        check_whole_file(kept, args.source)
        check_values(kept, args.source)
        header = {'converted_from': name, **plain_meta(meta), 'florence_mm_version': florence_mm.__version__}
        write_safetensors(args.target, kept, header)
    print(f'{args.source} is {name}: {len(kept)} tensors written to {args.target}')
    for reason in dict.fromkeys(skipped.values()):
        print(f'left out, {reason}:', ', '.join(key for key, why in skipped.items() if why == reason))
    return 0


if __name__ == '__main__':
    sys.exit(main())
