"""Readers of published region annotations, on small files written by hand."""

import json
import pickle
import re

import numpy as np
import pytest
from pycocotools import mask as masks

from florence_mm.errors import DataError
from florence_mm.formats.coco_tasks import read_coco_captions, read_coco_objects, read_refcoco
from florence_mm.formats.flickr30k_entities import parse_marked_caption, read_flickr30k_entities
from florence_mm.formats.scene_text import read_scene_text
from florence_mm.formats.visual_genome import read_region_descriptions
from florence_mm.language.regions import Region

BOX = [10, 5, 20, 15]
OUTLINE = [10, 5, 30, 5, 30, 20]


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def coco(*annotations, **more):
    return {
        'images': [{'id': i, 'file_name': f'{i}.jpg', 'width': 40, 'height': 25} for i in (1, 2)],
        'annotations': [
            {'id': i, 'image_id': 1, 'category_id': 3, 'bbox': BOX, 'iscrowd': 0, **item}
            for i, item in enumerate(annotations, 1)
        ],
        'categories': [{'id': 3, 'name': 'dog'}],
        **more,
    }


def objects(tmp_path, *annotations):
    return list(read_coco_objects(write(tmp_path / 'instances.json', coco(*annotations))))


def only_error(found):
    errors = [item for item in found if isinstance(item, DataError)]
    assert len(errors) == 1 and '\n' not in str(errors[0])
    return str(errors[0])


def only_fault(found):
    (fault,) = [fault for picture in found for fault in picture.faults]
    return fault


def test_coco_objects_by_hand(tmp_path):
    first, second = objects(
        tmp_path,
        {'segmentation': [OUTLINE, [0, 0, 4, 0, 4, 5]]},
        {'bbox': [30, 20, 20, 20], 'segmentation': [[30, 20, 50, 20, 50, 40]]},
        {'iscrowd': 1},
    )
    assert (first.image, first.where) == ('1.jpg', f'{tmp_path}/instances.json, image 1')
    assert first.regions == (
        Region(
            'dog',
            boxes=((0.25, 0.2, 0.75, 0.8),),
            polygons=(((0.25, 0.2), (0.75, 0.2), (0.75, 0.8)), ((0.0, 0.0), (0.1, 0.0), (0.1, 0.2))),
        ),
        # both are clipped to the picture
        Region('dog', boxes=((0.75, 0.8, 1.0, 1.0),), polygons=(((0.75, 0.8), (1.0, 0.8), (1.0, 1.0)),)),
    )
    assert first.clipped == 2
    assert (second.image, second.regions, second.clipped) == ('2.jpg', (), 0)


def test_masks_in_run_lengths_become_outlines(tmp_path):
    mask = np.zeros((25, 40), dtype=np.uint8)
    mask[5:20, 10:30] = 1
    stored = masks.encode(np.asfortranarray(mask))
    runs = {'size': [25, 40], 'counts': stored['counts'].decode()}
    first, _ = objects(tmp_path, {'segmentation': runs})
    (polygon,) = first.regions[0].polygons
    corners = np.array(polygon) * (40, 25)
    np.testing.assert_allclose([*corners.min(0), *corners.max(0)], [10, 5, 30, 20], atol=0.1)
    other = {'size': [25, 30], 'counts': [750]}
    assert 'annotation 1 has a mask of 30x25 pixels, and its picture has 40x25; correct the one' in only_fault(
        objects(tmp_path, {'segmentation': other})
    )
    path = write(tmp_path / 'instances.json', coco({'segmentation': other}))
    first, _ = read_coco_objects(path, outlines=False)  # of boxes alone the mask does not matter
    assert not first.faults and first.regions == (Region('dog', boxes=((0.25, 0.2, 0.75, 0.8),)),)
    empty = {'size': [25, 40], 'counts': [1000]}
    assert 'annotation 1 has an empty mask' in only_fault(objects(tmp_path, {'segmentation': empty}))
    cut = {'size': [25, 40], 'counts': 'o'}
    assert 'annotation 1: the compressed counts of a mask are cut off' in only_fault(
        objects(tmp_path, {'segmentation': cut})
    )


@pytest.mark.parametrize(
    'item, message',
    [
        ({'bbox': [50, 5, 10, 10]}, r'the box \[50, 5, 10, 10\], which has no area inside the picture of 40x25 pixels'),
        ({'bbox': [5, 5, 0, 10]}, r'the box \[5, 5, 0, 10\], which has no area; correct or remove it'),
        ({'segmentation': [[1, 2, 3, 4]]}, 'a polygon of 4 numbers; expected x and y of at least three corners'),
        ({'segmentation': [[*OUTLINE, 9]]}, 'a polygon of 7 numbers'),
        ({'segmentation': [[50, 1, 60, 1, 60, 9]]}, 'a polygon that lies outside the picture of 40x25 pixels'),
        ({'segmentation': [[1, 2, 3, 4, 5, None]]}, 'expected finite numbers x, y, x, y'),
        ({'segmentation': 'none'}, "segmentation 'none'; expected polygons or a mask"),
    ],
)
def test_one_bad_object_is_a_fault_of_its_picture(tmp_path, item, message):
    first, second = objects(tmp_path, {}, item)
    (fault,) = first.faults
    assert fault.startswith('annotation 2 has ') and re.search(message, fault) and '\n' not in fault
    assert [region.boxes for region in first.regions] == [((0.25, 0.2, 0.75, 0.8),)]  # the other one
    assert second.image == '2.jpg' and not second.faults


def test_coco_captions(tmp_path):
    content = {
        'images': [{'id': 5, 'file_name': 'a.jpg'}, {'id': 6, 'file_name': 'b.jpg'}, {'id': 7, 'file_name': 'c.jpg'}],
        'annotations': [
            {'image_id': 6, 'caption': 'a dog'},
            {'image_id': 5, 'caption': 'a cat'},
            {'image_id': 6, 'caption': 'one dog'},
        ],
    }
    path = write(tmp_path / 'captions.json', content)
    first, second, third = read_coco_captions(path)
    assert (first.image, first.texts) == ('a.jpg', ('a cat',))
    assert (second.image, second.texts) == ('b.jpg', ('a dog', 'one dog'))
    assert str(third) == f'{path}, image 7: no caption; add one or remove the image'
    for part, entry, message in (
        ('images', {'id': 5, 'file_name': 'd.jpg'}, 'the image id 5 occurs twice'),
        ('images', {'file_name': 'd.jpg'}, r'images\[3\] has no id and file_name'),
        ('annotations', {'image_id': 9, 'caption': 'a'}, r'annotations\[3\] has image_id 9, which is none of the 3'),
        ('annotations', {'image_id': 5}, r'annotations\[3\] has no image_id and caption'),
    ):
        wrong = {**content, part: [*content[part], entry]}
        with pytest.raises(DataError, match=message):
            list(read_coco_captions(write(tmp_path / 'wrong.json', wrong)))
    content['annotations'][1]['caption'] = ' '
    assert "the caption ' ' is empty" in str(next(read_coco_captions(write(path, content))))


def reference(**more):
    sentences = [{'sent': 'the left dog', 'raw': 'The left dog', 'sent_id': 1}, {'sent': 'dog', 'sent_id': 2}]
    return {'ref_id': 8, 'ann_id': 1, 'image_id': 1, 'category_id': 3, 'split': 'val', 'sentences': sentences, **more}


def refcoco(tmp_path, *refs, split='val', protocol=2):
    ann_file = write(tmp_path / 'instances.json', coco({'segmentation': [OUTLINE]}, {'bbox': [0, 0, 0, 5]}))
    ref_file = tmp_path / 'refs(unc).p'
    ref_file.write_bytes(pickle.dumps(list(refs), protocol))
    return list(read_refcoco(ann_file, ref_file, split))


@pytest.mark.parametrize('protocol', (0, 2, pickle.HIGHEST_PROTOCOL))
def test_refcoco_as_published(tmp_path, protocol):
    (picture,) = refcoco(tmp_path, reference(), reference(split='train', ref_id=9), protocol=protocol)
    assert picture.image == '1.jpg' and picture.where == f'{tmp_path}/refs(unc).p, image 1'
    polygon = ((0.25, 0.2), (0.75, 0.2), (0.75, 0.8))
    expected = [Region(text, ((0.25, 0.2, 0.75, 0.8),), (polygon,)) for text in ('the left dog', 'dog')]
    assert picture.regions == tuple(expected)
    # each sentence is a phrase of its own, also where two are equal, as the published scores count them
    assert picture.phrases == (('the left dog', (expected[0],)), ('dog', (expected[1],)))
    again = write(tmp_path / 'refs.json', [reference()])
    assert [found.regions for found in read_refcoco(tmp_path / 'instances.json', again, 'val')] == [picture.regions]


def test_refcoco_that_is_unusable(tmp_path):
    for refs, message in (
        ([reference(ann_id=7)], 'the reference 8 is of annotation 7 of image 1, which is not in'),
        ([reference(image_id=2)], 'the reference 8 is of annotation 1 of image 2, which is not in'),
        ([reference(split='test')], "has no split 'val'; it has test; give one of these"),
        ([{'ref_id': 1}], r"reference number 0 \(from 0\) has no 'ann_id'"),
        ([reference(ann_id='1')], r"reference number 0 \(from 0\) has ann_id '1'; expected a whole number"),
        ([reference(split=1)], r'reference number 0 \(from 0\) has split 1; expected the name of a split'),
        ([], 'holds no list of references'),
        ([np.int64(3)], 'is not a pickle of plain references .it names numpy'),
    ):
        with pytest.raises(DataError, match=message):
            refcoco(tmp_path, *refs)
    assert 'annotation 2 has the box [0, 0, 0, 5], which has no area' in only_fault(
        refcoco(tmp_path, reference(ann_id=2))
    )
    assert 'the reference 8 has no sentences; add one or remove' in only_fault(
        refcoco(tmp_path, reference(sentences=[]))
    )
    found = refcoco(tmp_path, reference(sentences=[{}]), reference(ref_id=9))
    assert 'the reference 8: the sentence must be a string' in only_fault(found)
    assert [text for text, _ in found[0].phrases] == ['the left dog', 'dog']
    with pytest.raises(FileNotFoundError, match='there are no references .*; correct `ref_file`'):
        list(read_refcoco(tmp_path / 'instances.json', tmp_path / 'refs.p', 'val'))


def entities(tmp_path, sentences, boxes):
    for folder in ('Sentences', 'Annotations'):
        (tmp_path / folder).mkdir(exist_ok=True)
    write(tmp_path / 'Sentences/36.txt', sentences)
    write(tmp_path / 'Annotations/36.xml', boxes)
    ids = write(tmp_path / 'val.txt', '36\n')
    return list(read_flickr30k_entities(ids, tmp_path / 'Sentences', tmp_path / 'Annotations'))


def xml(*items, width='40'):
    return f'<annotation><size><width>{width}</width><height>20</height></size>{"".join(items)}</annotation>'


def entity(ids, *corners):
    names = ''.join(f'<name>{id_}</name>' for id_ in ids)
    keys = ('xmin', 'ymin', 'xmax', 'ymax')
    box = ''.join(f'<{key}>{value}</{key}>' for key, value in zip(keys, corners, strict=False))
    return f'<object>{names}{f"<bndbox>{box}</bndbox>" if corners else "<scene>1</scene>"}</object>'


def test_flickr30k_entities_by_hand(tmp_path):
    sentences = (
        '[/EN#1/people Two men] sit in [/EN#2/scene a park] .\n'
        '[/EN#1/people/other The men] rest on [/EN#3/other a bench] ; [/EN#0/notvisual it] is late .\n'
        'Nobody moves .\n'
    )
    # pixels are counted from 1; what the code beside the files makes of them begins at 0
    boxes = xml(entity(['1'], 1, 1, 11, 21), entity(['1', '3'], 11, 11, 21, 21), entity(['2']))
    (picture,) = entities(tmp_path, sentences, boxes)
    first, both = (0.0, 0.0, 0.25, 1.0), (0.25, 0.5, 0.5, 1.0)
    assert picture.image == '36.jpg'
    assert picture.phrases == (
        ('Two men sit in a park .', (Region('Two men', (first, both)),)),
        ('The men rest on a bench ; it is late .', (Region('The men', (first, both)), Region('a bench', (both,)))),
        ('Nobody moves .', ()),
    )
    assert picture.texts[2] == 'Nobody moves .' and not picture.clipped
    (captions,) = read_flickr30k_entities(tmp_path / 'val.txt', tmp_path / 'Sentences', None)
    assert captions.texts == picture.texts and not captions.phrases[0][1]


def test_flickr30k_entities_that_are_unusable(tmp_path):
    good, sentence = xml(entity(['1'], 0, 0, 10, 20)), '[/EN#1/people A man] sits .'
    for sentences, boxes, message in (
        ('[/EN#1/people A man sits .', good, "picture 36: a mark of an entity in '.*' is not of the form"),
        (sentence, good[:-5], '36.xml is not a whole XML file'),
        (sentence, xml(entity(['1'], 50, 0, 60, 20)), '36.xml: object 0 has the box .* no area inside the picture of'),
        (sentence, xml(entity(['1'], 0, 0, 10)), '36.xml: ymax is missing or no number'),
        (sentence, xml(width='wide'), '36.xml: width is missing or no number'),
        (sentence, xml(width='0'), '36.xml: width 0.0 and height 20.0; expected the size in pixels'),
        ('', good, 'Sentences/36.txt is empty; write a marked caption a line'),
    ):
        (error,) = entities(tmp_path, sentences, boxes)
        with pytest.raises(DataError, match=message):
            raise error
    (tmp_path / 'Annotations/36.xml').unlink()
    write(tmp_path / 'Sentences/36.txt', sentence)
    (error,) = read_flickr30k_entities(tmp_path / 'val.txt', tmp_path / 'Sentences', tmp_path / 'Annotations')
    assert 'there are no boxes' in str(error) and 'correct `box_folder`' in str(error)
    assert parse_marked_caption('[/EN#1/people A man]  in [/EN#2/clothing/other a [ ] .'.replace(' [ ]', ' hat]')).text


def visual_genome(tmp_path, regions, **image):
    image = {'image_id': 4, 'url': 'https://host/x/VG_100K_2/4.jpg', 'width': 40, 'height': 20, **image}
    images = write(tmp_path / 'image_data.json', [image])
    return list(read_region_descriptions(write(tmp_path / 'regions.json', [{'id': 4, 'regions': regions}]), images))


def test_visual_genome_by_hand(tmp_path):
    region = {'region_id': 1, 'x': 10, 'y': 5, 'width': 10, 'height': 10, 'phrase': 'a dog'}
    (picture,) = visual_genome(tmp_path, [region, {**region, 'x': 35, 'phrase': 'its tail'}])
    assert picture.image == 'VG_100K_2/4.jpg' and picture.clipped == 1
    assert picture.regions == (
        Region('a dog', ((0.25, 0.25, 0.5, 0.75),)),
        Region('its tail', ((0.875, 0.25, 1.0, 0.75),)),
    )
    for wrong, message in (
        ({**region, 'x': 90}, 'region 1 has the box .* no area inside the picture of 40x20'),
        ({**region, 'phrase': ''}, "the phrase of region 1 '' is empty"),
        ({'x': 1}, r"regions\[0\] has no 'y'"),
    ):
        (picture,) = visual_genome(tmp_path, [wrong, region])
        assert re.match(message, only_fault([picture])) and len(picture.regions) == 1
    (error,) = visual_genome(tmp_path, [region], image_id=5)
    assert 'image_data.json has no image_id 4; give the image_data.json beside it' in str(error)
    (error,) = visual_genome(tmp_path, [region], width=None)
    assert 'width None and height 20; expected the size in pixels' in str(error)
    with pytest.raises(DataError, match='entry 0 has no id and regions'):
        list(read_region_descriptions(write(tmp_path / 'r.json', [{'id': 4}]), tmp_path / 'image_data.json'))
    with pytest.raises(DataError, match='entry 0 has no image_id and url'):
        list(read_region_descriptions(tmp_path / 'r.json', write(tmp_path / 'i.json', [{'id': 4}])))


def scene_text(tmp_path, *words, split=None, **more):
    content = {
        'imgs': {
            '7': {'id': 7, 'file_name': 'a.jpg', 'width': 40, 'height': 20, 'set': 'train'},
            '8': {'id': 8, 'file_name': 'b.jpg', 'width': 40, 'height': 20, 'set': 'val'},
        },
        'anns': {str(i): {'id': i, 'image_id': 7, 'bbox': [10, 5, 20, 10], **word} for i, word in enumerate(words)},
        **more,
    }
    return list(read_scene_text(write(tmp_path / 'words.json', content), split))


def test_words_by_hand(tmp_path):
    first, second = scene_text(
        tmp_path,
        # of COCO-Text 1, the other way round
        {'utf8_string': 'STOP', 'legibility': 'legible', 'polygon': [10, 5, 10, 15, 30, 15, 30, 5]},
        # of COCO-Text 2
        {'utf8_string': 'go', 'legibility': 'legible', 'mask': [10, 10, 20, 5, 20, 10, 10, 15]},
        # of TextOCR, with more corners than four
        {'utf8_string': '42', 'points': [10, 5, 20, 5, 30, 5, 30, 15, 10, 15]},
        {'utf8_string': 'box'},
        {'utf8_string': '.', 'points': [10, 5, 30, 5, 30, 15, 10, 15]},
        {'utf8_string': 'blurred', 'legibility': 'illegible'},
        {'legibility': 'legible'},
        {'utf8_string': ''},
    )
    upright, box = ((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75)), ((0.25, 0.25, 0.75, 0.75),)
    assert [region.text for region in first.regions] == ['STOP', 'go', '42', 'box']
    assert first.regions[0] == Region('STOP', box, quad=upright)
    assert first.regions[1].quad == ((0.25, 0.5), (0.5, 0.25), (0.5, 0.5), (0.25, 0.75))
    np.testing.assert_allclose(first.regions[2].quad, upright, atol=1e-6)
    # whose sides cross
    crossed, _ = scene_text(tmp_path, {'utf8_string': 'X', 'points': [10, 5, 30, 15, 30, 5, 10, 15]})
    np.testing.assert_allclose(crossed.regions[0].quad, upright, atol=1e-6)
    assert first.regions[3] == Region('box', box, quad=upright)
    assert second.regions == ()
    assert [found.image for found in scene_text(tmp_path, split='val')] == ['b.jpg']


def test_words_that_are_unusable(tmp_path):
    word = {'utf8_string': 'STOP'}
    for wrong, message in (
        ({**word, 'bbox': [50, 5, 1, 1]}, 'annotation 0 has the box .* no area inside the picture'),
        ({**word, 'bbox': None}, 'annotation 0 has the box None'),
        ({**word, 'points': [1, 2, 3, 4]}, 'annotation 0 has a polygon of 4 numbers'),
        ({'utf8_string': 7}, 'the utf8_string of annotation 0 must be a string'),
    ):
        assert re.match(message, only_fault(scene_text(tmp_path, wrong)))
    with pytest.raises(DataError, match="annotation 0 has image_id '9', which is none of the 2 in imgs"):
        scene_text(tmp_path, {**word, 'image_id': 9})
    with pytest.raises(DataError, match="has no split 'test'; it has train, val"):
        scene_text(tmp_path, word, split='test')
    with pytest.raises(DataError, match="has no object 'anns'; expected a file of COCO-Text or TextOCR"):
        scene_text(tmp_path, anns=[])
    assert 'no file_name' in str(scene_text(tmp_path, imgs={'1': {}})[0])
