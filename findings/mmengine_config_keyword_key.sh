#!/usr/bin/env bash
# mmengine 0.10.7 (Python 3.11): Config.pretty_text and dump, which write the config of every run, do not escape keys of
# dicts. A key that is a keyword of Python, or has a single quote, is a SyntaxError; one with a backslash is read back as
# another key, and so is one that Python normalises as an identifier, such as the ligature of f and i.
# Expected: each key as it was. Seen:
#   class: SyntaxError
#   women's: SyntaxError
#   C:\new: another key
#   ﬁ: another key
#   title: same
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -q mmengine==0.10.7 torch==2.13.0 setuptools==80.9.0 >&2
cd "$folder"
seen=$(PYTHONUTF8=1 "$folder/venv/bin/python" -W ignore - <<'PYTHON'
from mmengine.config import Config

for key in ('class', "women's", 'C:\\new', '\ufb01', 'title'):
    try:
        Config({'columns': {key: 1}}).dump('config.py')
        print(f'{key}: {"same" if Config.fromfile("config.py").columns == {key: 1} else "another key"}')
    except SyntaxError:
        print(f'{key}: SyntaxError')
PYTHON
)
echo "$seen"
[ "$seen" = $'class: SyntaxError\nwomen\'s: SyntaxError\nC:\\new: another key\n\ufb01: another key\ntitle: same' ]
