"""Pictures and videos to try the page with, from the embedded corpora."""

from pathlib import Path

from PIL import Image

from florence_mm.corpora.clips import FPS, ClipOptions, make_clip
from florence_mm.corpora.digits import load_digits_split, render_digit
from florence_mm.corpora.scenes import SceneOptions, make_scene
from florence_mm.formats.video import encode_mp4
from florence_mm.utils.files import write_atomic

NUMBER = 3
PICTURES = 'pictures'
#: Number of pictures to search.
SEARCHED = 100


def write_examples(folder: Path) -> dict[str, list[str]]:
    """Write held-out digits, scenes and clips; returns the files of each tab by its name.

    The folder ``pictures`` in ``folder`` has :data:`SEARCHED` other digits.
    """
    pictures = folder / PICTURES
    pictures.mkdir(parents=True, exist_ok=True)
    images, _ = load_digits_split('test')
    for number in range(SEARCHED):
        Image.fromarray(render_digit(images[NUMBER + number], 32)).save(pictures / f'{number:03d}.png')
    digits, scenes, clips = [], [], []
    for number in range(NUMBER):
        digits.append(folder / f'digit_{number}.png')
        Image.fromarray(render_digit(images[number], 32)).convert('RGB').save(digits[-1])
        scenes.append(folder / f'scene_{number}.png')
        Image.fromarray(make_scene(SceneOptions(), 'test', number)[0]).save(scenes[-1])
        clips.append(folder / f'clip_{number}.mp4')
        write_atomic(clips[-1], encode_mp4(make_clip(ClipOptions(), 'test', 11 * number)[0], FPS))
    files = {'classify': digits, 'search': digits, 'video': clips}
    files |= dict.fromkeys(('detect', 'ask', 'caption', 'solve'), scenes)
    return {tab: [str(file) for file in found] for tab, found in files.items()}
