import csv
import json
import multiprocessing
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader

from florence_mm.datasets import ImageTextManifest
from florence_mm.errors import DataError
from florence_mm.language.labels import text_label
from florence_mm.registry import DATASETS
from florence_mm.utils.seeded import SeededIndex, seed_everything_for_sample

PACK = [{'type': 'LoadImage'}, {'type': 'PackImageText'}]


@pytest.fixture
def folder(tmp_path):
    """Twelve 6x8 images; image i has the value 20 * i everywhere."""
    for i in range(12):
        cv2.imwrite(str(tmp_path / f'{i}.png'), np.full((6, 8, 3), 20 * i, dtype=np.uint8))
    return tmp_path


def write(path, rows):
    """Rows as the format that the name of ``path`` asks for; a string is a line as it is."""
    if path.suffix == '.jsonl':
        path.write_text(''.join((row if isinstance(row, str) else json.dumps(row)) + '\n' for row in rows))
    elif path.suffix == '.parquet':
        import pyarrow
        import pyarrow.parquet

        # the columns are those of the first row
        whole = [{**dict.fromkeys(key for other in rows for key in other), **row} for row in rows]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(whole), path)
    else:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        with path.open('w', newline='') as file:
            writer = csv.writer(file, delimiter='\t' if path.suffix == '.tsv' else ',')
            writer.writerow(columns)
            for row in rows:
                cells = [row.get(column, '') for column in columns]
                writer.writerow([json.dumps(cell) if isinstance(cell, list) else cell for cell in cells])
    return str(path)


def build(folder, rows, name='m.jsonl', pipeline=PACK, **kwargs):
    return DATASETS.build(
        {'type': 'ImageTextManifest', 'ann_file': write(folder / name, rows), 'pipeline': pipeline, **kwargs}
    )


ROWS = [
    {'image': '0.png', 'class': 'dog', 'origin': 'web'},
    {'image': '1.png', 'text': 'A Dog.', 'origin': 'web'},
    {'image': '2.png', 'text': 'a photo of a dog', 'label': 'dog', 'augmented': True},
    {'image': '3.png', 'texts': ['two, birds', 'a "pair" of\nbirds']},
    {'image': '4.png', 'class': 'cat', 'text': 'my cat'},
]


@pytest.mark.parametrize('name', ['m.jsonl', 'm.csv', 'm.tsv', 'm.parquet'])
def test_all_formats_give_the_same_samples(folder, name):
    dataset = build(folder, ROWS, name, test_mode=True)
    assert dataset.metainfo['classes'] == ('cat', 'dog')
    samples = [data['data_samples'] for data in dataset]
    assert [int(data['inputs'][0, 0, 0]) for data in dataset] == [0, 20, 40, 60, 80]
    assert [s.text for s in samples] == ['dog', 'A Dog.', 'a photo of a dog', 'two, birds', 'my cat']
    assert [s.augmented for s in samples] == [False, False, True, False, False]
    assert [int(s.gt_label) if 'gt_label' in s else None for s in samples] == [1, None, None, None, 0]
    assert samples[3].texts == ['two, birds', 'a "pair" of\nbirds']
    assert 'texts' not in samples[0]
    assert samples[1].extra == {'origin': 'web'}
    # the class "dog", the caption "dog" with a template, and "dog" itself are one label; "a dog" is another
    keys = [s.label_key for s in samples]
    assert keys[0] == keys[2] == text_label('dog')
    assert keys[1] == text_label('a dog') != keys[0]
    line = {'m.csv': 5, 'm.tsv': 5}.get(name, 4)
    assert samples[3].source.endswith(f'{name}, line {line}')


def test_batch_is_that_of_the_architecture(folder):
    data = build(folder, ROWS)[0]
    assert data['inputs'].shape == (3, 6, 8)
    assert data['inputs'].dtype == torch.uint8
    assert data['inputs'].is_contiguous()
    sample = data['data_samples']
    assert sample.gt_label.shape == (1,)
    assert sample.gt_label.dtype == torch.int64
    assert isinstance(sample.label_key, int)
    assert sample.ori_shape == (6, 8)


def test_columns_can_be_renamed(folder):
    rows = [{'filepath': '1.png', 'title': 'one', 'text': 'kept apart'}]
    sample = build(folder, rows, columns={'image': 'filepath', 'text': 'title'})[0]['data_samples']
    assert sample.text == 'one'
    assert sample.extra == {'text': 'kept apart'}
    with pytest.raises(ValueError, match=r"columns names \['caption'\]"):
        build(folder, rows, columns={'caption': 'title'})


def test_paths(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp('lists')
    rows = [{'image': '3.png', 'text': 'x'}, {'image': str(folder / '4.png'), 'text': 'y'}]
    ann_file = write(elsewhere / 'm.jsonl', rows)
    for kwargs in (
        {'data_prefix': str(folder)},
        {'data_root': str(folder)},
        {'data_prefix': {'img_path': str(folder)}},
    ):
        dataset = ImageTextManifest(ann_file, pipeline=PACK, **kwargs)
        assert [int(data['inputs'][0, 0, 0]) for data in dataset] == [60, 80]
    dataset = ImageTextManifest('m.jsonl', data_root=str(elsewhere), data_prefix=f'../{folder.name}', pipeline=PACK)
    assert int(dataset[0]['inputs'][0, 0, 0]) == 60


def test_given_classes(folder):
    rows = [{'image': '0.png', 'class': 'Dog '}, {'image': '1.png', 'class': 2}]
    dataset = build(folder, rows, classes=['cat', 'dog', 'emu'])
    assert [dataset.get_cat_ids(i) for i in range(2)] == [[1], [2]]
    assert dataset[1]['data_samples'].text == 'emu'
    (folder / 'names.txt').write_text('cat\ndog\n\nemu\n')
    assert build(folder, rows, classes=str(folder / 'names.txt')).metainfo['classes'] == ('cat', 'dog', 'emu')
    assert build(folder, rows, metainfo={'classes': ['cat', 'dog', 'emu']}).get_cat_ids(0) == [1]
    assert len(build(folder, [{'image': '0.png', 'class': 'tench'}], classes='imagenet1k').metainfo['classes']) == 1000
    with pytest.raises(DataError, match=r"line 1: the class name 'missile' stands for the classes \[657, 744\] alike"):
        build(folder, [{'image': '0.png', 'class': 'missile'}], classes='imagenet1k')


BAD_LINES = [
    ('{"image": "1.png", "text": ', 'line 2: not a JSON object'),
    ('[1, 2]', 'line 2: expected a JSON object, got list'),
    ('{"image": "1.png", "text": "a", "text": "b"}', "line 2: the key 'text' occurs twice"),
    ('{"image": "1.png", "text": "a\\ud800"}', 'line 2: the text .* is not valid UTF-8'),
    ({'text': 'no image'}, "line 2: no 'image'"),
    ({'image': '', 'text': 'a'}, "line 2: the image path '' is empty"),
    ({'image': 3, 'text': 'a'}, 'line 2: the image path must be a string, but is 3'),
    ({'image': '1.png'}, "line 2: no description; a row needs one of 'text', 'texts', 'class'"),
    ({'image': '1.png', 'text': ' . '}, "line 2: the text ' . ' is empty"),
    ({'image': '1.png', 'text': 7}, 'line 2: the text must be a string, but is 7'),
    ({'image': '1.png', 'text': 'a', 'texts': ['b']}, 'line 2: both `text` and `texts`'),
    ({'image': '1.png', 'texts': 'abc'}, "line 2: `texts` must be a list of strings, but is 'abc'"),
    ({'image': '1.png', 'texts': []}, 'line 2: `texts` is an empty list'),
    ({'image': '1.png', 'texts': ['a', '']}, "line 2: the text '' is empty"),
    ({'image': '1.png', 'class': 'emu'}, "line 2: class 'emu' is not one of the 2 names"),
    ({'image': '1.png', 'class': 5}, 'line 2: class 5 is outside 0 to 1'),
    ({'image': '1.png', 'class': 1.5}, 'line 2: the class must be a name or an index, but is 1.5'),
    ({'image': '1.png', 'class': 'dog', 'label': 'dog'}, 'line 2: `label` without `text`'),
    ({'image': '1.png', 'text': 'a', 'augmented': True}, 'line 2: `augmented` without `label`'),
    ({'image': '1.png', 'text': 'a', 'augmented': 'maybe'}, 'line 2: `augmented` must be true or false'),
]


@pytest.mark.parametrize(('line', 'message'), BAD_LINES)
def test_a_bad_line_is_named_or_counted(folder, line, message):
    rows = [{'image': '0.png', 'class': 'dog'}, line, {'image': '2.png', 'class': 'cat'}]
    with pytest.raises(DataError, match=message) as info:
        build(folder, rows, classes=['cat', 'dog'])
    assert str(folder / 'm.jsonl') in str(info.value)
    assert '\n' not in str(info.value)
    dataset = build(folder, rows, classes=['cat', 'dog'], skip_bad={'max': 1})
    assert len(dataset) == 2
    assert dataset.num_skipped == 1
    assert [int(data['inputs'][0, 0, 0]) for data in dataset] == [0, 40]


def test_bad_csv(folder):
    path = folder / 'm.csv'
    for content, message in (
        (b'image,text\n0.png,a\n1.png\n', 'line 3: 1 cells, but the header has 2'),
        (b'image,text\n0.png,a\n1.png,b,c\n', 'line 3: 3 cells, but the header has 2'),
        (b'image,text\n0.png,a\n1.png,"b\n', 'line 3: a quotation mark opens a cell and has no partner'),
        (b'image,text\n0.png,a\n1.png,b\xff\n', 'line 3: the line is not UTF-8'),
        (b'image,texts\n0.png,"[""a""]"\n1.png,a|b\n', 'line 3: `texts` must be a JSON list'),
        (b'image,text,text\n', "line 1: the column 'text' occurs twice"),
        (b'filename,text\n0.png,a\n', "line 2: no 'image'"),
        (b'image,text\n', 'has no usable rows'),
        (b'', 'has no usable rows'),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            ImageTextManifest(str(path))
    # a cell over two lines counts as lines do in an editor; a byte order mark is no part of the first column
    path.write_bytes(b'\xef\xbb\xbfimage,text\r\n0.png,"a\r\nb"\r\n1.png,\r\n')
    with pytest.raises(DataError, match='line 4: no description'):
        ImageTextManifest(str(path))


def test_bad_jsonl_bytes_and_parquet(folder):
    (folder / 'm.jsonl').write_bytes(b'\xef\xbb\xbf{"image": "0.png", "text": "a"}\n\n{"image": "\xff"}\n')
    with pytest.raises(DataError, match='line 3: the line is not UTF-8'):
        ImageTextManifest(str(folder / 'm.jsonl'))
    path = folder / 'm.parquet'
    write(path, [{'image': b'\x89PNG', 'text': 'a'}])
    with pytest.raises(DataError, match='line 1: the image is stored in the manifest itself'):
        ImageTextManifest(str(path))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match='m.parquet is not a whole parquet file'):
        ImageTextManifest(str(path))
    with pytest.raises(FileNotFoundError, match='there is no manifest .*nowhere.jsonl'):
        ImageTextManifest(str(folder / 'nowhere.jsonl'))
    with pytest.raises(DataError, match='must end in one of .jsonl, .csv, .tsv, .parquet'):
        ImageTextManifest(str(folder / 'm.txt'))


def test_cap_on_lines(folder, caplog):
    rows = [{'image': '0.png', 'text': 'a' if i % 5 else ''} for i in range(20)]
    assert len(build(folder, rows, skip_bad={'max': 4})) == 16
    assert len(build(folder, rows, skip_bad={'max': 0.2})) == 16
    with pytest.raises(DataError, match='4 rows are unusable, more than the 3 that skip_bad allows.*line 16'):
        build(folder, rows, skip_bad={'max': 3})
    with pytest.raises(DataError, match='4 rows are unusable, more than the 3'):
        build(folder, rows, skip_bad={'max': 0.19})
    for bad in ({'max': -1}, {'max': 1.5}, {'max': True}):
        with pytest.raises(ValueError, match='must be a number of rows'):
            build(folder, rows, skip_bad=bad)
    with pytest.raises(ValueError, match='must be dict'):
        build(folder, rows, skip_bad={'maximum': 3})


def test_merge_images(folder):
    rows = [
        {'image': '0.png', 'text': 'a'},
        {'image': '1.png', 'text': 'b', 'class': 'x'},
        {'image': '0.png', 'text': 'c', 'class': 'y'},
        {'image': '0.png', 'text': 'A.'},
    ]
    with pytest.raises(DataError, match="line 3: the image '0.png' is that of line 1; set merge_images=True"):
        build(folder, rows, test_mode=True)
    assert len(build(folder, rows)) == 4
    dataset = build(folder, rows, test_mode=True, merge_images=True)
    samples = [data['data_samples'] for data in dataset]
    assert [s.texts for s in samples] == [['a', 'c'], ['b']]
    assert [int(s.gt_label) for s in samples] == [1, 0]
    with pytest.raises(DataError, match='line 5: another class for the image of line 2'):
        build(folder, [*rows, {'image': '1.png', 'class': 'y'}], merge_images=True)


def test_training_picks_a_caption(folder):
    dataset = build(folder, [{'image': '0.png', 'texts': ['a', 'b', 'c']}])
    np.random.seed(0)
    samples = [dataset[0]['data_samples'] for _ in range(300)]
    counts = [sum(s.text == text for s in samples) for text in 'abc']
    assert min(counts) > 70  # 100 expected, standard deviation 8
    assert all(s.label_key == text_label(s.text) for s in samples)
    assert 'texts' not in samples[0]


def test_indices_and_rows_fit_in_little_memory(folder):
    rows = [{'image': f'{i % 12}.png', 'text': f'caption {i}'} for i in range(1000)]
    dataset = build(folder, rows, indices=300)
    assert len(dataset) == 300
    assert dataset.data_bytes.nbytes < 300 * 100
    assert dataset.data_list == []
    assert dataset[-1]['data_samples'].text == 'caption 299'
    assert dataset.get_subset([5, 7])[1]['data_samples'].text == 'caption 7'
    with pytest.raises(IndexError, match='index 300 is outside the 300 rows'):
        dataset[300]


class Seeded(torch.utils.data.Dataset):
    """Seeds each sample as the training sampler does."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        seed_everything_for_sample(index.seed)
        return self.dataset[index]


def test_same_samples_under_any_number_of_workers(folder):
    cut = folder / '5.png'
    cut.write_bytes(cut.read_bytes()[:-10])
    rows = [{'image': f'{i}.png', 'texts': [f'{i}', f'no {i}', f'the {i}']} for i in range(12)]
    pipeline = [PACK[0], {'type': 'RandomAffineImage', 'fill': 99}, {'type': 'RandomPrompt'}, PACK[1]]

    def epoch(workers):
        dataset = build(folder, rows, pipeline=pipeline, skip_bad={'max': 1})
        indices = [SeededIndex(i, 100 + i) for i in reversed(range(12))]
        loader = DataLoader(Seeded(dataset), 4, sampler=indices, num_workers=workers, collate_fn=pseudo_collate)
        batches = list(loader)
        # the workers' count reaches this process
        assert dataset.num_skipped == 1
        return [
            (image, sample.text, sample.label_key, sample.sample_idx)
            for batch in batches
            for image, sample in zip(batch['inputs'], batch['data_samples'], strict=True)
        ]

    single = epoch(0)
    # row 6 takes the place of row 5
    assert [sample[3] for sample in single] == [11, 10, 9, 8, 7, 6, 6, 4, 3, 2, 1, 0]
    for workers in (1, 2):
        for one, other in zip(single, epoch(workers), strict=True):
            assert torch.equal(one[0], other[0])
            assert one[1:] == other[1:]


def test_spawned_workers_count_too(folder):
    (folder / '1.png').unlink()
    dataset = build(folder, [{'image': f'{i}.png', 'text': f'{i}'} for i in range(4)], skip_bad={'max': 1})
    context = multiprocessing.get_context('spawn')
    loader = DataLoader(dataset, 4, num_workers=1, collate_fn=pseudo_collate, multiprocessing_context=context)
    assert [sample.text for batch in loader for sample in batch['data_samples']] == ['0', '2', '2', '3']
    assert dataset.num_skipped == 1


def test_unreadable_images_are_named_or_counted(folder):
    (folder / '1.png').unlink()
    (folder / '3.png').write_bytes(b'')
    rows = [{'image': f'{i}.png', 'text': f'{i}'} for i in range(6)]
    dataset = build(folder, rows)
    with pytest.raises(DataError, match=r'm.jsonl, line 2: the image .*1.png cannot be read \(No such file'):
        dataset[1]
    with pytest.raises(DataError, match=r'line 4: the image .*3.png is an empty file'):
        dataset[3]
    # a worker's error reaches the main process with its sentence
    with pytest.raises(DataError, match='line 2: the image'):
        list(DataLoader(dataset, 2, num_workers=1, collate_fn=pseudo_collate))

    dataset = build(folder, rows, skip_bad={'max': 2})
    for _ in range(3):
        assert [data['data_samples'].sample_idx for data in map(dataset.__getitem__, range(6))] == [0, 2, 2, 4, 4, 5]
    assert dataset.num_skipped == 2
    dataset = build(folder, rows, skip_bad={'max': 1})
    dataset[1]
    with pytest.raises(DataError, match='2 rows are unusable, more than the 1 .* line 4'):
        dataset[3]


def test_all_images_unreadable_ends(folder):
    rows = [{'image': 'none.png', 'text': f'{i}'} for i in range(5)]
    with pytest.raises(DataError, match='no usable image'):
        build(folder, rows, skip_bad={'max': 10})[2]


def test_evaluation_reports_what_it_leaves_out(folder):
    (folder / '1.png').unlink()
    rows = [{'image': f'{i}.png', 'text': f'{i}'} for i in range(4)]
    with pytest.raises(DataError, match='line 2'):
        list(build(folder, rows, test_mode=True))
    dataset = build(folder, rows, test_mode=True, skip_bad={'max': 1})
    assert len(dataset) == 3
    assert dataset.metainfo['num_skipped'] == 1
    assert [data['data_samples'].text for data in dataset] == ['0', '2', '3']
    with pytest.raises(DataError, match='1 rows are unusable, more than the 0'):
        build(folder, rows, test_mode=True, skip_bad={'max': 0})
    with pytest.raises(ValueError, match='needs florence_mm.LoadImage'):
        build(folder, rows, test_mode=True, skip_bad={'max': 1}, pipeline=[])


def test_rows_with_a_template_can_be_left_out(tmp_path):
    rows = [
        {'image': 'a.png', 'text': 'a photo of a dog.', 'label': 'dog', 'augmented': True},
        {'image': 'b.png', 'text': 'a dog runs', 'augmented': False},
        {'image': 'c.png', 'class': 'cat'},
    ]
    write(tmp_path / 'm.jsonl', rows)
    everything = ImageTextManifest(str(tmp_path / 'm.jsonl'))
    original = ImageTextManifest(str(tmp_path / 'm.jsonl'), drop_augmented=True)
    assert len(everything) == 3 and len(original) == 2
    assert [Path(original.get_data_info(i)['img_path']).name for i in range(2)] == ['b.png', 'c.png']


def test_pictures_that_other_packages_load_are_skipped_too(folder):
    cut = folder / '1.png'
    cut.write_bytes(cut.read_bytes()[:-10])
    (folder / '2.png').write_bytes(b'')
    rows = [{'image': f'{i}.png', 'text': f'{i}'} for i in range(4)]
    pipeline = [{'type': 'mmcv.LoadImageFromFile'}, PACK[1]]
    for number, message in ((1, 'is cut off'), (2, 'is an empty file')):
        with pytest.raises(DataError, match=f'line {number + 1}: the image .*{number}.png {message}'):
            build(folder, rows, pipeline=pipeline)[number]
    dataset = build(folder, rows, pipeline=pipeline, skip_bad={'max': 2})
    assert [dataset[i]['data_samples'].text for i in range(4)] == ['0', '3', '3', '3']
    assert dataset.num_skipped == 2
    dataset = build(folder, rows, pipeline=pipeline, skip_bad={'max': 2}, test_mode=True)
    assert [data['data_samples'].text for data in dataset] == ['0', '3']


def test_one_image_in_two_spellings(folder):
    (folder / 'more').mkdir()
    rows = [{'image': '1.png', 'text': 'a'}, {'image': 'more/../1.png', 'text': 'b'}]
    with pytest.raises(DataError, match="line 2: the image 'more/../1.png' is that of line 1"):
        build(folder, rows, test_mode=True)
    rows.append({'image': str(folder / './1.png'), 'text': 'c'})
    assert build(folder, rows, test_mode=True, merge_images=True)[0]['data_samples'].texts == ['a', 'b', 'c']


def test_lists_under_another_name_and_columns_that_are_not_there(folder):
    rows = [{'image': '1.png', 'said': ['a', 'b']}]
    for name in ('m.csv', 'm.tsv', 'm.jsonl', 'm.parquet'):
        dataset = build(folder, rows, name, columns={'texts': 'said'}, test_mode=True)
        assert dataset[0]['data_samples'].texts == ['a', 'b']
        with pytest.raises(DataError, match=f"{name}: no row has 'kind', which `columns` names"):
            build(folder, rows, name, columns={'texts': 'said', 'class': 'kind'})
    # the column that another one's name was given to is not read a second time
    dataset = build(folder, [{'image': '1.png', 'class': 'a red dog'}], columns={'text': 'class'})
    assert 'gt_label' not in dataset[0]['data_samples'] and dataset[0]['data_samples'].text == 'a red dog'
    with pytest.raises(ValueError, match='columns.*must be the name of a column, another for each'):
        build(folder, rows, columns={'text': 'said', 'texts': 'said'})


def test_indices_that_are_not_there(folder):
    rows = [{'image': f'{i}.png', 'text': f'{i}'} for i in range(4)]
    assert build(folder, rows, indices=[-1, 0])[0]['data_samples'].text == '3'
    for indices, message in ((4, None), ([4], 'below the 4 samples'), ([], 'takes no sample'), (0, 'takes no sample')):
        if message is None:
            assert len(build(folder, rows, indices=indices)) == 4
            continue
        with pytest.raises(ValueError, match=message):
            build(folder, rows, indices=indices)
