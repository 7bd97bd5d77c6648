#!/usr/bin/env bash
# opencv-python-headless 5.0.0.93 (written with Pillow 13.0.0, Python 3.11): cv2.imread and cv2.imdecode turn JPEG, PNG
# and WebP images upright, and leave AVIF images as they are stored, so that a portrait photograph lies on its side.
# AVIF says how to turn an image by the properties irot and imir of the format, which every reader must apply
# (ISO/IEC 23008-12, 6.5.10 and 6.5.12); Pillow applies them.
# Expected: (40, 20) for all four formats. Seen:
#   JPEG (40, 20), PNG (40, 20), WEBP (40, 20), AVIF (20, 40)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m pip install -q --target "$folder" opencv-python-headless==5.0.0.93 pillow==13.0.0 >&2
cd "$folder"
seen=$(PYTHONPATH=$folder "${PYTHON:-python3}" - <<'PYTHON'
import io

import cv2
import numpy as np
from PIL import Image, ImageOps

exif = Image.Exif()
exif[0x0112] = 6  # shown after a quarter turn
shapes = []
for form in ('JPEG', 'PNG', 'WEBP', 'AVIF'):
    file = io.BytesIO()
    Image.new('RGB', (40, 20)).save(file, form, exif=exif)
    assert ImageOps.exif_transpose(Image.open(file)).size == (20, 40)
    read = cv2.imdecode(np.frombuffer(file.getvalue(), np.uint8), cv2.IMREAD_COLOR)
    shapes.append(f'{form} {read.shape[:2]}')
print(', '.join(shapes))
PYTHON
)
echo "$seen"
[ "$seen" = 'JPEG (40, 20), PNG (40, 20), WEBP (40, 20), AVIF (20, 40)' ]
