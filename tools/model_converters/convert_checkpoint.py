"""Convert a public checkpoint to our key names, as safetensors.

python tools/model_converters/convert_checkpoint.py swin_tiny_patch4_window7_224.pth swin_tiny.safetensors
"""

import argparse
import sys

import florence_mm
from florence_mm.models.checkpoints import convert_state_dict, read_checkpoint, write_safetensors


def main() -> int:
    """Convert the file; exit status 1 with one sentence if it cannot be converted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('source', help='a checkpoint of any known format: a file or a URL')
    parser.add_argument('target', help='the file to write, .safetensors')
    parser.add_argument('--prefix', default='', help='keep only the keys under this prefix, without it')
    args = parser.parse_args()
    if not args.target.endswith('.safetensors'):
        parser.error(f'{args.target} must end in .safetensors')
    try:
        state, meta = read_checkpoint(args.source)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    name, state, skipped = convert_state_dict(state)
    state = {key.removeprefix(args.prefix): value for key, value in state.items() if key.startswith(args.prefix)}
    if not state:
        print(f'{args.source} ({name}) has no keys under {args.prefix!r}', file=sys.stderr)
        return 1
    kept = {key: value for key, value in meta.items() if isinstance(value, str | int | float)}
    write_safetensors(
        args.target, state, {**kept, 'converted_from': name, 'florence_mm_version': florence_mm.__version__}
    )
    print(f'{args.source} is {name}: {len(state)} tensors written to {args.target}')
    for reason in dict.fromkeys(skipped.values()):
        print(f'left out, {reason}:', ', '.join(key for key, why in skipped.items() if why == reason))
    return 0


if __name__ == '__main__':
    sys.exit(main())
