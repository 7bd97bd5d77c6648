"""Documents of pictures and texts: the three forms, jsonl and tars, what is refused, and prompts of examples."""

import io
import json
import math
import tarfile

import cv2
import numpy as np
import pytest
import torch

from florence_mm.datasets import DocumentDataset, FewShotDataset, ImageTextManifest, VQADataset
from florence_mm.errors import DataError, UsageError
from florence_mm.formats.documents import Document, parse_document, read_documents
from florence_mm.formats.shards import write_shard
from florence_mm.registry import TRANSFORMS

STEPS = [{'type': 'LoadImage'}]
PACK = {'type': 'PackDocument', 'max_pictures': 3}
OURS = {'document': [{'text': 'first'}, {'image': '0.png'}, {'text': 'a cat'}, {'image': '1.png'}, {'text': 'two'}]}
PARTS = ['first', None, 'a cat', None, 'two']


def colour(number):
    return np.full((4, 6, 3), 10 * number + 5, dtype=np.uint8)


def png(number):
    return cv2.imencode('.png', colour(number))[1].tobytes()


@pytest.fixture()
def folder(tmp_path):
    for number in range(6):
        (tmp_path / f'{number}.png').write_bytes(png(number))
    return tmp_path


def jsonl(folder, *rows, name='documents.jsonl'):
    (folder / name).write_text(''.join(json.dumps(row) + '\n' for row in rows))
    return str(folder / name)


# --- formats ----------------------------------------------------------------------------------------------------------


def test_three_forms_say_the_same():
    assert parse_document(OURS) == (PARTS, ['0.png', '1.png'])
    obelics = {
        'texts': ['first', None, 'a cat', None, None, 'two'],
        'images': [None, '0.png', None, None, '1.png', None],
    }
    assert parse_document(obelics) == (PARTS, ['0.png', '1.png'])
    mmc4 = {
        'text_list': ['first', 'a cat', 'two'],
        'image_info': [
            {'image_name': '1.png', 'matched_text_index': 2, 'matched_sim': 0.3},
            {'image_name': '0.png', 'matched_text_index': 1, 'matched_sim': 0.2},
        ],
        'similarity_matrix': [],
    }
    assert parse_document(mmc4) == (PARTS, ['0.png', '1.png'])
    assert parse_document(mmc4, least_similarity=0.25) == (['first', 'a cat', None, 'two'], ['1.png'])


MATCHED = {'image_name': 'b', 'matched_text_index': 0}


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        ({}, 'give an object with `document`, with `images` and `texts`, or with `text_list`'),
        ({'document': [{'text': 'a', 'image': 'b'}]}, 'give each one of `text` and `image`'),
        ({'document': 'a'}, '`document` must be a list'),
        ({'texts': ['a'], 'images': []}, '`images` has 0 and `texts` 1 entries'),
        ({'texts': ['a'], 'images': ['b']}, 'give each one of `text` and `image`'),
        ({'text_list': ['a'], 'image_info': [{'image_name': 'b', 'matched_text_index': 1}]}, 'from 0 to 0'),
        ({'document': [{'text': ' '}]}, 'is empty'),
        ({'document': [{'text': 'a'}], 'texts': ['a'], 'images': [None]}, '`document` and `texts`, of two forms'),
        *(
            ({'text_list': ['a'], 'image_info': [{**MATCHED, 'matched_sim': value}]}, '`matched_sim` of a picture is')
            for value in (math.nan, math.inf, True, '0.5')
        ),
    ],
)
def test_other_forms_are_refused(content, reason):
    with pytest.raises(ValueError, match=reason):
        parse_document(content)


def test_tars_have_the_pictures_beside_the_texts(folder):
    urls = {'texts': [None, 'a cat'], 'images': ['https://host/x.jpg', None]}
    names = {'document': [{'image': 'a.png'}, {'text': 'two'}]}
    lacking = {'document': [{'image': 'b.png'}, {'text': 'two'}]}
    tar = folder / 'documents.tar'
    members = [
        ('00', {'json': json.dumps(urls).encode(), '0.png': png(0)}),
        ('01', {'json': json.dumps(names).encode(), 'a.png': png(1)}),
        ('02', {'json': json.dumps(lacking).encode()}),
    ]
    write_shard(tar, members)
    first, second, third = read_documents(tar)
    assert isinstance(first, Document) and first.parts == [None, 'a cat'] and second.parts == [None, 'two']
    assert [len(one.images) for one in (first, second)] == [1, 1]
    assert isinstance(third, DataError) and "no picture 'b.png'" in str(third)
    dataset = DocumentDataset(str(folder / '*.tar'), pipeline=[*STEPS, PACK], max_pictures=3, skip_bad={'max': 1})
    assert len(dataset) == 2 and dataset.num_skipped == 1
    assert dataset[1]['inputs'][0, 0, 0, 0] == 15 and dataset[0]['inputs'][0, 0, 0, 0] == 5


def test_two_documents_of_one_name_are_an_error_and_none_takes_the_others_place(folder):
    tar = folder / 'twice.tar'
    with tarfile.open(tar, 'w') as file:
        for text in ('a cat', 'two dogs'):
            for name, data in (('0.json', document(text)), ('0.0.png', png(1))):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                file.addfile(member, io.BytesIO(data))
    found = list(read_documents(tar))
    assert [str(one) for one in found[:2]] == [
        f"{tar} has two members '{name}'; write it again with one of each name" for name in ('0.json', '0.0.png')
    ]
    assert found[2].parts == [None, 'a cat'] and len(found) == 3


def document(text):
    return json.dumps({'texts': [None, text], 'images': ['https://host/x.jpg', None]}).encode()


# --- the data set -----------------------------------------------------------------------------------------------------


def test_a_document_is_packed_with_its_pictures_in_order(folder):
    dataset = DocumentDataset(jsonl(folder, OURS), pipeline=[*STEPS, {**PACK, 'data_source': 'web'}], max_pictures=3)
    packed = dataset[0]
    sample = packed['data_samples']
    assert sample.document == ('first<|endofchunk|><image>a cat<|endofchunk|><image>two<|endofchunk|>')
    assert (sample.num_pictures, sample.data_source) == (2, 'web')
    assert packed['inputs'].shape == (3, 3, 4, 6) and packed['inputs'].dtype == torch.uint8
    assert packed['inputs'][0, :, 0, 0].tolist() == [5, 15, 0]
    first = DocumentDataset(jsonl(folder, OURS), pipeline=[*STEPS, PACK], max_pictures=1)[0]
    assert first['data_samples'].document == 'first<|endofchunk|><image>a cat<|endofchunk|>'


def test_documents_that_teach_nothing_are_named_or_counted(folder):
    none = {'document': [{'text': 'a'}, {'image': '0.png'}]}
    alone = {'document': [{'text': 'a'}]}
    file = jsonl(folder, OURS, none, alone)
    with pytest.raises(DataError, match='line 2: no text stands behind a picture, so there is nothing to learn'):
        DocumentDataset(file, pipeline=[*STEPS, PACK], max_pictures=3)
    dataset = DocumentDataset(file, pipeline=[*STEPS, PACK], max_pictures=3, skip_bad={'max': 2})
    assert len(dataset) == 1 and dataset.num_skipped == 2
    with pytest.raises(DataError, match='2 rows are unusable, more than the 1'):
        DocumentDataset(file, pipeline=[*STEPS, PACK], max_pictures=3, skip_bad={'max': 1})
    missing = {'document': [{'image': 'no.png'}, {'text': 'a'}]}
    dataset = DocumentDataset(jsonl(folder, missing), pipeline=[*STEPS, PACK], max_pictures=3)
    with pytest.raises(DataError, match=r'line 1, picture 1.*no\.png'):
        dataset[0]
    marked = {'document': [{'image': '0.png'}, {'text': 'an <image>'}]}
    with pytest.raises(DataError, match="line 1: a text of the document has '<image>'"):
        DocumentDataset(jsonl(folder, marked), pipeline=[*STEPS, PACK], max_pictures=3)[0]


def test_settings_that_do_not_fit_are_refused(folder):
    file = jsonl(folder, OURS)
    with pytest.raises(UsageError, match='must end with florence_mm.PackDocument'):
        DocumentDataset(file, pipeline=STEPS)
    with pytest.raises(UsageError, match='max_pictures of DocumentDataset is 5 and that of PackDocument 3'):
        DocumentDataset(file, pipeline=[*STEPS, PACK])
    with pytest.raises(FileNotFoundError, match='no file is named like'):
        DocumentDataset(str(folder / 'x*.tar'), pipeline=[*STEPS, PACK], max_pictures=3)
    with pytest.raises(DataError, match='must end in .jsonl or .tar'):
        DocumentDataset(str(folder / '0.png'), pipeline=[*STEPS, PACK], max_pictures=3)
    pack = TRANSFORMS.build(PACK)
    with pytest.raises(DataError, match='2 pictures of the shapes'):
        pack({'parts': [None, None, 'a'], 'imgs': [colour(0), colour(0)[1:]]})


def test_pairs_and_texts_alone_are_documents_too():
    pack = TRANSFORMS.build(PACK)
    pair = pack({'img': colour(1), 'text': 'a cat', 'texts': ['a cat']})
    assert pair['data_samples'].document == '<image>a cat<|endofchunk|>' and pair['data_samples'].num_pictures == 1
    assert pair['inputs'][0, :, 0, 0].tolist() == [15, 0, 0]
    alone = pack({'img': np.zeros((0, 0, 3), np.uint8), 'text': 'a cat', 'pictured': False})
    assert alone['data_samples'].document == 'a cat<|endofchunk|>' and alone['inputs'].numel() == 0


# --- examples ---------------------------------------------------------------------------------------------------------


def captions(folder, name, rows):
    file = jsonl(folder, *rows, name=name)
    return ImageTextManifest(file, test_mode=True, pipeline=[*STEPS, {'type': 'PackImageText'}])


def test_captions_stand_behind_examples_of_a_fixed_seed(folder):
    support = captions(folder, 'train.jsonl', [{'image': f'{n}.png', 'texts': [f'cat {n}', 'x']} for n in range(4)])
    tested = captions(folder, 'test.jsonl', [{'image': f'{n}.png', 'texts': [f'dog {n}']} for n in (4, 5)])
    few = FewShotDataset(tested, support, shots=2, template='{answer}')
    packed = few[1]
    first, second = few.chosen(1)
    assert packed['data_samples'].document == (
        f'<image>cat {first}<|endofchunk|><image>cat {second}<|endofchunk|><image>'
    )
    assert packed['inputs'][0, :, 0, 0].tolist() == [10 * first + 5, 10 * second + 5, 55]
    assert packed['data_samples'].num_pictures == 3 and packed['data_samples'].texts == ['dog 5']
    more = FewShotDataset(tested, support, shots=4)
    assert more.chosen(1)[:2] == [first, second] and sorted(more.chosen(0)) == [0, 1, 2, 3]
    assert more[1]['data_samples'].document.endswith('<|endofchunk|><image>Output:')
    none = FewShotDataset(tested, support, shots=0, template='{answer}')[1]
    assert none['data_samples'].document == f'cat {first}<|endofchunk|>cat {second}<|endofchunk|><image>'
    assert none['inputs'].shape[1] == none['data_samples'].num_pictures == 1
    bare = FewShotDataset(tested, support, shots=0, text_examples=0, template='{answer}')[1]
    assert bare['data_samples'].document == '<image>'
    others = {tuple(FewShotDataset(tested, support, shots=2, seed=seed).chosen(0)) for seed in range(8)}
    assert len(others) > 2


def test_no_example_is_of_the_tested_picture(folder):
    rows = [{'image': f'{n}.png', 'texts': [f'cat {n}']} for n in range(4)]
    tested, support = captions(folder, 'test.jsonl', rows), captions(folder, 'same.jsonl', rows)
    support.data_prefix = {'img_path': f'{folder}/../{folder.name}'}  # the same files by another path
    for shots, seed in ((1, 0), (2, 1), (2, 2)):
        few = FewShotDataset(tested, support, shots=shots, seed=seed)
        for row in range(4):
            chosen = few.chosen(row)
            assert len(set(chosen)) == shots and row not in chosen
    assert set(FewShotDataset(tested, tested, shots=3).chosen(0)) == {1, 2, 3}
    with pytest.raises(DataError, match=r'has 3 rows of other pictures than .*1\.png, and 4 are shown; give more'):
        FewShotDataset(tested, tested, shots=4)[1]


def test_a_question_that_names_a_place_of_the_template_stays_as_it_is(folder):
    rows = [{'image': f'{n}.png', 'texts': ['x']} for n in range(2)]
    few = FewShotDataset(captions(folder, 'a.jsonl', rows), captions(folder, 'b.jsonl', rows), shots=1)
    few.template = 'Question:{question} Short answer:{answer}'
    assert few._filled('what is {answer}?', '{question}') == 'Question:what is {answer}? Short answer:{question}'


def test_questions_stand_behind_questions_with_their_answers(folder):
    questions = [{'image_id': n, 'question_id': n, 'question': f'what is {n}?'} for n in range(3)]
    annotations = [
        {
            **{'image_id': n, 'question_id': n, 'question_type': 'what', 'answer_type': 'other'},
            **{'multiple_choice_answer': 'a cat', 'answers': [{'answer': a} for a in ('cat', f'a{n}', f'a{n}')]},
        }
        for n in range(3)
    ]
    (folder / 'questions.json').write_text(json.dumps({'questions': questions}))
    (folder / 'annotations.json').write_text(json.dumps({'annotations': annotations}))
    dataset = VQADataset(
        str(folder / 'questions.json'),
        str(folder / 'annotations.json'),
        data_prefix=str(folder),
        img_pattern='{}.png',
        test_mode=True,
        pipeline=[*STEPS, {'type': 'PackVQA'}],
    )
    few = FewShotDataset(dataset, dataset, shots=1, task='answer')
    (shot,) = few.chosen(2)
    sample = few[2]['data_samples']
    assert sample.document == (
        f'<image>Question:what is {shot}? Short answer:a{shot}<|endofchunk|><image>Question:what is 2? Short answer:'
    )
    assert sample.asked == 'what is 2?' and sample.question_id == 2


def test_examples_that_do_not_fit_are_refused(folder):
    tested = captions(folder, 'test.jsonl', [{'image': '4.png', 'texts': ['a <image>']}])
    training = ImageTextManifest(tested.ann_file, pipeline=[*STEPS, {'type': 'PackImageText'}])
    with pytest.raises(ValueError, match="support='ImageTextManifest' must be a data set in test mode"):
        FewShotDataset(tested, training)
    with pytest.raises(ValueError, match='ends with {answer}'):
        FewShotDataset(tested, tested, template='{answer}.')
    with pytest.raises(ValueError, match='1 rows and 4 are shown'):
        FewShotDataset(tested, tested).full_init()
    other = captions(folder, 'other.jsonl', [{'image': '3.png', 'texts': ['a <image>']}])
    with pytest.raises(DataError, match="has '<image>', which stands for what is no text"):
        FewShotDataset(tested, other, shots=1)[0]
