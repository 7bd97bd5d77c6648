#!/usr/bin/env bash
# mmengine 0.10.7 (Python 3.11): Config.setdefault(key, {}) returns the dict that it was given, and keeps another one, so
# that what is written into the returned dict never reaches the config; a list likewise. For a dict, Python promises the
# stored value. A key that exists gives the stored value, so the same code works on some configs and not on others.
# Expected: {'seed': 3} and [1]. Seen:
#   new key: {} []
#   known key: {'seed': 3} [1]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -q mmengine==0.10.7 torch==2.13.0 setuptools==80.9.0 >&2
cd "$folder"
seen=$("$folder/venv/bin/python" -W ignore - <<'PYTHON'
from mmengine.config import Config

for name, config in (('new', Config({})), ('known', Config({'randomness': {}, 'extra': []}))):
    config.setdefault('randomness', {})['seed'] = 3
    config.setdefault('extra', []).append(1)
    print(f'{name} key: {dict(config.randomness)} {list(config.extra)}')
PYTHON
)
echo "$seen"
[ "$seen" = $'new key: {} []\nknown key: {\'seed\': 3} [1]' ]
