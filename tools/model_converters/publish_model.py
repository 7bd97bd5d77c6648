"""Publish a trained checkpoint: only the weights, as safetensors, with their origin in the header.

python tools/model_converters/publish_model.py work_dirs/quickstart/epoch_36.pth coswin_micro.safetensors

The optimizer state and log history are dropped, the config and version go into the header, and the first eight digits
of the file's SHA-256 into its name.
"""

import argparse
import hashlib
import sys
from pathlib import Path

import florence_mm
from florence_mm.models.checkpoints import read_checkpoint, write_safetensors


def main() -> int:
    """Write the file; exit status 1 with one sentence if it cannot be published."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('source', help='a checkpoint written by training')
    parser.add_argument('target', help='the file to write, .safetensors; the hash is added to its name')
    args = parser.parse_args()
    target = Path(args.target)
    if target.suffix != '.safetensors':
        parser.error(f'{target} must end in .safetensors')
    try:
        state, meta = read_checkpoint(args.source)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    header = {key: value for key, value in meta.items() if isinstance(value, str | int | float) and key != 'cfg'}
    header |= {'config': meta.get('cfg', meta.get('config', '')), 'florence_mm_version': florence_mm.__version__}
    written = write_safetensors(target, state, header)
    digest = hashlib.sha256(written.read_bytes()).hexdigest()
    published = written.replace(target.with_name(f'{target.stem}-{digest[:8]}.safetensors'))
    print(f'{len(state)} tensors, {published.stat().st_size / 2**20:.1f} MiB, sha256 {digest}: {published}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
