"""Publish a trained checkpoint: only the weights, as safetensors, with their origin in the header.

python tools/model_converters/publish_model.py work_dirs/quickstart/epoch_36.pth coswin_micro.safetensors

The optimizer state and log history are dropped, the config, class names and version go into the header, and the first
eight digits of the file's SHA-256 into its name. Exit status: 0, or 2 with one sentence if it cannot be published.
"""

import argparse
import hashlib
import sys
from pathlib import Path

import florence_mm
from florence_mm.errors import one_sentence_errors
from florence_mm.models.checkpoints import (
    check_values,
    check_whole_file,
    plain_meta,
    read_checkpoint,
    write_safetensors,
)


def main() -> int:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('source', help='a checkpoint written by training')
    parser.add_argument('target', help='the file to write, .safetensors; the hash is added to its name')
    args = parser.parse_args()
    target = Path(args.target)
    if target.suffix != '.safetensors':
        parser.error(f'{target} must end in .safetensors')
    with one_sentence_errors():
        state, meta = read_checkpoint(args.source)
        check_whole_file(state, args.source)
        check_values(state, args.source)
        header = {key: value for key, value in plain_meta(meta).items() if key != 'cfg'}
        header |= {'config': meta.get('cfg', meta.get('config', '')), 'florence_mm_version': florence_mm.__version__}
        # written beside the target and renamed, so that a file of that name without a hash stays as it is
        written = write_safetensors(target.with_name(f'.{target.name}'), state, header)
        digest = hashlib.sha256(written.read_bytes()).hexdigest()
        published = written.replace(target.with_name(f'{target.stem}-{digest[:8]}.safetensors'))
    print(f'{len(state)} tensors, {published.stat().st_size / 2**20:.1f} MiB, sha256 {digest}: {published}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
