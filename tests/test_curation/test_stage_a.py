import io
import json
from collections import Counter

import cv2
import numpy as np
import pytest
from pyarrow import parquet
from raw_pairs import good, picture, write_faulty_set, write_tar

from florence_mm.curation import reasons
from florence_mm.curation.columns import make_id, sidecar_schema
from florence_mm.curation.hashing import perceptual_hash, sampling_hash
from florence_mm.curation.inputs import RawShard, find_shards
from florence_mm.curation.options import InputOptions, StageAOptions
from florence_mm.curation.stage_a import measure_shard, process_shard, sidecar_path
from florence_mm.formats.shards import read_range
from florence_mm.language.labels import text_label


class BrightnessModel:
    """A model whose feature of a picture is its mean colour, and of a text the colour that it names."""

    name, least, width = 'brightness', 8, 3

    def __init__(self):
        self.batches = []

    def prepare(self, image):
        return image.reshape(-1, 3).mean(0)

    def __call__(self, images, texts):
        self.batches.append(len(images))
        colours = {'red': (1, 0, 0), 'green': (0, 1, 0), 'nothing': (np.nan, 0, 0)}
        given, named = np.float32(images), np.float32([colours[text] for text in texts])
        return given / np.linalg.norm(given, axis=1, keepdims=True), named


def measured(shard, embed=None, **options):
    file = io.BytesIO()  # what parquet makes of it
    parquet.write_table(measure_shard(shard, StageAOptions(**options), embed), file)
    return parquet.read_table(file).to_pylist()


def tar_shard(tmp_path, members, **names):
    write_tar(tmp_path / 'raw/0.tar', members)
    (shard,) = find_shards([InputOptions('tars', str(tmp_path / 'raw'), **names)], tmp_path / 'work')
    return shard


def flat(colour):
    return cv2.imencode('.png', np.full((64, 64, 3), colour[::-1], np.uint8))[1].tobytes()


def test_every_planted_pair_is_kept_or_dropped_for_its_reason(tmp_path):
    planted = write_faulty_set(tmp_path / 'raw')
    shards = find_shards([InputOptions('tars', str(tmp_path / 'raw'))], tmp_path / 'work')
    counts = [process_shard(shard, StageAOptions(), tmp_path / 'work') for shard in shards]
    found = sum((Counter(one.by_reason) for one in counts), Counter())
    assert found == planted
    assert [one.pairs for one in counts] == [sum(planted.values()) - 7 - 3, 7, 3]
    for shard, one in zip(shards, counts, strict=True):
        table = parquet.read_table(sidecar_path(tmp_path / 'work', shard.number))
        assert table.schema.equals(sidecar_schema()) and sum(table['pairs'].to_pylist()) == one.pairs
        assert table['id'].to_pylist() == [make_id(shard.number, position) for position in range(table.num_rows)]
        assert all(reason is None or reason in reasons.STAGE_A for reason in table['drop'].to_pylist())


def test_a_row_has_the_values_of_its_pair(tmp_path):
    shard = tar_shard(
        tmp_path,
        [*good(7, ' Two DOGS. ', query='dogs'), *good(8, 'a photo of a cat', augmented=True, label_text='cat')],
    )
    dogs, cat = measured(shard, seed=3)
    assert read_range(shard.path, dogs['image_offset'], dogs['image_size']) == picture(7)
    whole = cv2.imdecode(np.frombuffer(picture(7), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert (dogs['phash'] ^ perceptual_hash(whole)).bit_count() <= 2
    assert (dogs['key'], dogs['width'], dogs['height'], dogs['path']) == ('0007', 96, 80, None)
    assert (dogs['text'], dogs['normalized'], dogs['words']) == (' Two DOGS. ', 'two dogs', 2)
    assert (dogs['label'], dogs['query'], dogs['augmented']) == (text_label('two dogs'), 'dogs', False)
    assert dogs['sampling'] == sampling_hash(3, dogs['id']) and dogs['score'] is None and dogs['drop'] is None
    assert (cat['augmented'], cat['label_text'], cat['label']) == (True, 'cat', text_label('cat'))


def test_all_four_kinds_of_sources_give_the_same_rows(tmp_path):
    import pyarrow as pa

    texts = ['one', 'two words', 'three small words']
    shards = [tar_shard(tmp_path, [m for n, text in enumerate(texts) for m in good(n, text)], query='numbers')]
    folder = tmp_path / 'folder/deeper'
    folder.mkdir(parents=True)
    for number, text in enumerate(texts):
        (folder / f'{number}.jpg').write_bytes(picture(number))
        (folder / f'{number}.txt').write_text(text)
    lines = [json.dumps({'image': f'deeper/{number}.jpg', 'caption': text}) for number, text in enumerate(texts)]
    (tmp_path / 'folder/list.jsonl').write_text('\n'.join(lines))
    rows = [{'picture': {'bytes': picture(number)}, 'text': text} for number, text in enumerate(texts)]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / 'rows.parquet', row_group_size=2)
    for kind, path, names in (
        ('folder', 'folder', {}),
        ('manifest', 'folder/list.jsonl', {}),
        ('parquet', 'rows.parquet', {'image': 'picture'}),
    ):
        source = InputOptions(kind, str(tmp_path / path), names, query='numbers')
        shards += find_shards([source], tmp_path / 'work' / kind)
    same = ('id', 'width', 'height', 'phash', 'text', 'normalized', 'label', 'query', 'words', 'sampling', 'drop')
    found = [[tuple(row[name] for name in same) for row in measured(shard)] for shard in shards]
    assert len(found) == 4 and len(found[0]) == 3 and all(row[-1] is None for row in found[0])
    assert found[0] == found[1] == found[2] == found[3]


def test_listed_pairs_whose_picture_or_line_is_unusable_have_a_reason(tmp_path):
    (tmp_path / 'there.jpg').write_bytes(picture(1))
    (tmp_path / 'list.jsonl').write_bytes(
        b'{"image": "there.jpg", "text": "a"}\n{"image": "gone.jpg", "text": "b"}\nno json\n{"text": "c"}\n'
        b'{"image": "there.jpg"}\n{"image": "there.jpg", "text": "x", "augmented": true}\n'
    )
    (shard,) = find_shards([InputOptions('manifest', str(tmp_path / 'list.jsonl'))], tmp_path / 'work')
    assert [row['drop'] for row in measured(shard)] == [
        None, 'no_image', 'invalid_text', 'no_image', 'no_text', 'invalid_text',
    ]  # fmt: skip


def test_the_table_of_img2dataset_gives_what_the_tar_lacks(tmp_path):
    import pyarrow as pa

    shard = tar_shard(tmp_path, [*good(1), ('0002.jpg', picture(2))], names={'query': 'search'})
    rows = [{'key': '0001', 'caption': 'other', 'search': 'a'}, {'key': '0002', 'caption': 'theirs', 'search': 'b'}]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / 'raw/0.parquet')
    assert [(row['text'], row['query']) for row in measured(shard)] == [
        ('a picture of thing 1', 'a'),
        ('theirs', 'b'),
    ]


def test_the_model_scores_in_batches_and_its_faults_are_reasons(tmp_path):
    colours = {'red': (200, 0, 0), 'green': (0, 200, 0)}
    pairs = [('red', 'red'), ('green', 'red'), ('green', 'green'), ('red', 'nothing'), ('red', '.'), ('red', 'red')]
    members = []
    for number, (colour, text) in enumerate(pairs):
        members += [(f'{number}.png', flat(colours[colour])), (f'{number}.txt', text.encode())]
    model = BrightnessModel()
    rows = measured(tar_shard(tmp_path, members), model, embeddings=True, batch_size=2)
    assert [row['drop'] for row in rows] == [None, None, None, 'score_not_finite', 'blank_text', None]
    assert [row['score'] for row in rows] == [1, 0, 1, None, None, 1]
    assert model.batches == [2, 2, 1]
    assert [row['embedding'] for row in rows][1:5] == [[0, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize('least', [0, 40])
def test_reduced_decoding_keeps_the_pixels_that_are_needed(tmp_path, least):
    seen = []

    class Model(BrightnessModel):
        def prepare(self, image):
            seen.append(image.shape)
            return super().prepare(image)

    model = Model()
    model.least = least
    shard = tar_shard(tmp_path, [('0.jpg', picture(1, (640, 480))), ('0.txt', b'red')])
    (reduced,) = measured(shard, model if least else None)
    (whole,) = measured(shard, model if least else None, reduced=False)
    assert seen == ([(120, 160, 3), (480, 640, 3)] if least else [])
    assert (reduced['width'], reduced['height']) == (whole['width'], whole['height']) == (640, 480)
    assert (reduced['phash'] ^ whole['phash']).bit_count() <= 4


def test_sizes_are_those_of_upright_pictures(tmp_path):
    from io import BytesIO

    from PIL import Image

    turned = BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (120, 60)).save(turned, 'JPEG', exif=exif)
    shard = tar_shard(tmp_path, [('0.jpg', turned.getvalue()), ('0.txt', b'tall')])
    (row,) = measured(shard)
    assert (row['width'], row['height']) == (60, 120)


def test_a_sidecar_counts_only_with_its_record_options_and_input(tmp_path, monkeypatch):
    write_tar(tmp_path / 'raw/0.tar', [*good(1), *good(2)])
    work = tmp_path / 'work'
    runs = []
    monkeypatch.setattr(
        'florence_mm.curation.stage_a.measure_shard', lambda *args: runs.append(1) or measure_shard(*args)
    )

    def run(**options):
        (shard,) = find_shards([InputOptions('tars', str(tmp_path / 'raw'))], work)
        runs.clear()
        process_shard(shard, StageAOptions(**options), work)
        return len(runs)

    assert run() == 1 and run() == 0
    path = sidecar_path(work, 0)
    whole = path.read_bytes()
    path.write_bytes(b'')  # as a killed COPY leaves it
    assert run() == 1 and path.read_bytes() == whole and run() == 0
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert run() == 1 and path.read_bytes() == whole
    path.with_suffix('.json').write_text('{"made_of"')
    assert run() == 1
    assert run(min_side=33) == 1 and run(min_side=33) == 0
    write_tar(tmp_path / 'raw/0.tar', [*good(1), *good(3)])
    assert run(min_side=33) == 1
    (tmp_path / 'raw/0_stats.json').write_text('{"successes": 5}')
    assert run(min_side=33) == 1
    rows = [(row['drop'], row['pairs']) for row in parquet.read_table(path).to_pylist()]
    assert rows == [(None, 1), (None, 1), ('missing', 3)]


def test_pictures_that_a_list_names_count_as_input(tmp_path):
    (tmp_path / 'a.jpg').write_bytes(picture(1))
    (tmp_path / 'a.txt').write_text('a')
    (shard,) = find_shards([InputOptions('folder', str(tmp_path))], tmp_path / 'work')
    before = shard.digest()
    assert shard.digest() == before
    (tmp_path / 'a.jpg').write_bytes(picture(2, (100, 100)))
    assert shard.digest() != before


def test_shards_are_named_in_messages():
    shard = RawShard(3, 'rows.parquet', InputOptions('parquet', 'rows.parquet'), (4, 5))
    assert str(shard) == 'raw shard 3 (rows.parquet, row groups 4 to 5)'
