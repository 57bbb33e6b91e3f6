"""Every kind of bad input gets its line before training starts."""
import gzip
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mmdet.registry import DATASETS
from PIL import Image

from mmmamba.datasets.transforms.load_checked_image import UnreadableImageError, load_annotated_image
from mmmamba.engine import UnreadableImagesHook
from mmmamba.errors import InputError

CLASSES = ('square', 'wide', 'tall')
LOAD = [dict(type='LoadCheckedImage'), dict(type='LoadAnnotations', with_bbox=True), dict(type='PackDetInputs')]
pytestmark = pytest.mark.usefixtures('mmdet_scope')


@pytest.fixture
def warnings_logged(monkeypatch):
    lines = []
    monkeypatch.setattr('mmmamba.datasets.checked_coco_dataset.print_log', lambda line, **_: lines.append(line))
    return lines


def build(root, **arguments):
    return DATASETS.build({**dict(
        type='CheckedCocoDataset', data_root=str(root), ann_file='annotations/train.json',
        data_prefix=dict(img='train'), metainfo=dict(classes=CLASSES), pipeline=LOAD), **arguments})


@pytest.mark.parametrize('palette, classes', [
    ({'palette': [(1, 2, 3), (4, 5, 6)]}, CLASSES), ({}, tuple(map(str, range(81))))], ids=['inherited', "COCO's"])
def test_every_class_has_a_colour(coco_folder, palette, classes):
    root, own = coco_folder(), [(1, 2, 3)] * 3
    dataset = build(root, metainfo=dict(classes=classes, **palette), lazy_init=True)
    drawn = dataset.metainfo['palette']
    assert len(set(drawn)) == len(classes) and json.loads(json.dumps(drawn)) == [list(colour) for colour in drawn]
    assert build(root, metainfo=dict(classes=CLASSES, palette=own), lazy_init=True).metainfo['palette'] == own


def edit(root, change):
    path = root / 'annotations' / 'train.json'
    content = json.loads(path.read_text())
    content = change(content) or content
    path.write_text(json.dumps(content))


def assert_refused(root, *phrases, **arguments):
    with pytest.raises(InputError) as error:
        build(root, **arguments)
    message = str(error.value)
    assert '\n' not in message
    for phrase in phrases:
        assert phrase in message
    return message


def setter(where, index, **values):
    return lambda content: content[where][index].update(values)


def test_a_good_file_gives_what_mmdet_gives(coco_folder):
    root = coco_folder()
    ours, theirs = build(root), build(root, type='CocoDataset')
    assert len(ours) == len(theirs) == 8
    for index in range(8):
        assert ours.get_data_info(index) == theirs.get_data_info(index)
    assert ours.cat_ids == theirs.cat_ids
    assert ours.get_subset(3)[1]['data_samples'].img_id == ours[1]['data_samples'].img_id


def test_images_without_objects_are_kept_unless_filtered(coco_folder):
    root = coco_folder()
    empty = [index for index in range(8) if not build(root).get_data_info(index)['instances']]
    assert len(empty) == 2
    assert len(build(root)[empty[0]]['data_samples'].gt_instances) == 0
    assert len(build(root, filter_cfg=dict(filter_empty_gt=True))) == 6


def test_missing_annotation_file(coco_folder):
    assert_refused(coco_folder(), 'no such annotation file', 'other.json', ann_file='annotations/other.json')


@pytest.mark.parametrize(('text', 'phrase'), [
    ('{"images": [1, 2', 'not valid JSON: line 1, column 17'), ('{\n"images" 3}', 'not valid JSON: line 2, column 10'),
    ('', 'not valid JSON: line 1, column 1'), ('[]', 'holds a list'), ('{"images": []}', 'has no list of categories'),
    ('{"images": {}, "categories": []}', 'has no list of images'), ('\ufeff{"images": []}', 'Unexpected UTF-8 BOM'),
    ('[' * 100_000, 'cannot be read'), ('[' + '1' * 5000 + ']', 'cannot be read'),
    ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "square"}]}', 'has no images'),
], ids=lambda value: value[:20])
def test_malformed_annotation_file(coco_folder, text, phrase):
    root = coco_folder()
    (root / 'annotations' / 'train.json').write_text(text)
    assert_refused(root, 'train.json', phrase)


@pytest.mark.parametrize('encode', [gzip.compress, lambda text: text.decode().encode('utf-16')],
                         ids=['gzip', 'UTF-16'])
def test_bytes_that_are_no_text(coco_folder, encode):
    root = coco_folder()
    path = root / 'annotations' / 'train.json'
    path.write_bytes(encode(path.read_bytes()))
    assert_refused(root, 'train.json', 'is not text in UTF-8')


def test_no_annotations_are_an_error_in_training_only(coco_folder):
    root = coco_folder()
    edit(root, lambda content: content.pop('annotations') and None)
    assert_refused(root, 'train.json', 'has no list of annotations')
    assert len(build(root, test_mode=True)) == 8  # COCO's test-dev has none
    edit(root, lambda content: content.update(annotations=[]))
    assert_refused(root, 'train.json has no annotations')
    assert len(build(root, test_mode=True)) == 8


@pytest.mark.parametrize(('change', 'phrases'), [
    (setter('annotations', 0, image_id=999), ['annotation 1 has image_id 999, which the file does not list']),
    (setter('annotations', 1, category_id=7), ['annotation 2 has category_id 7']),
    (setter('annotations', 0, bbox=[1, 2, float('nan'), 3]), ['annotation 1 has bbox [1, 2, nan, 3]']),
    (setter('annotations', 0, bbox=[1, 2, '3', 3]), ['annotation 1 has bbox']),
    (setter('annotations', 0, bbox=[1, 2, 3]), ['annotation 1 has bbox [1, 2, 3], not four']),
    (setter('annotations', 0, bbox=None), ['annotation 1 has bbox None']),
    (setter('annotations', 0, area='big'), ["annotation 1 has area 'big'"]),
    (setter('annotations', 1, id=1), ['two entries of kind annotation have id 1']),
    (setter('images', 1, id=1), ['two entries of kind image have id 1']),
    (setter('images', 0, width=0), ['image 1 has width 0']),
    (setter('images', 0, height=-5), ['image 1 has height -5']),
    (setter('images', 0, height=10**9), ['image 1 has height 1000000000']),
    (setter('images', 0, width=float('inf')), ['image 1 has width inf']),
    (setter('images', 0, width='64'), ["image 1 has width '64'"]),
    (lambda content: content['annotations'][0].pop('area') and None, ['annotation 1 has no area']),
    (lambda content: content['images'][2].pop('file_name') and None, ['image 3 has no file_name']),
    (lambda content: content['images'][2].pop('id') and None, ['kind image has no id']),
    (lambda content: content['categories'].clear(), ['train.json has no categories']),
    (lambda content: content['images'].append('text'), ["kind image has no id: 'text'"]),
    (setter('images', 0, file_name='../train/000001.jpg'), ["'../train/000001.jpg' of image 1 leads out"]),
    (setter('images', 0, file_name='/etc/hostname'), ["'/etc/hostname' of image 1 leads out"]),
    (setter('images', 0, file_name='a/../../b.jpg'), ['leads out of the image folder']),
    (setter('images', 0, file_name='C:\\b.jpg'), ['leads out of the image folder']),
    (setter('images', 0, file_name='..\\b.jpg'), ['leads out of the image folder']),
    (setter('images', 0, file_name=''), ["image 1 has file_name ''"]),
    (setter('images', 0, file_name=3), ['image 1 has file_name 3']),
    (setter('images', 1, file_name='./000001.jpg'), ['images 1 and 2 have the same file_name']),
    (setter('images', 0, width=63.5), ['image 1 has width 63.5, not a whole number']),
    (setter('annotations', 0, id=1.5), ['kind annotation has id 1.5: ids are whole numbers']),
    (setter('annotations', 0, id=2**53 + 1), ['kind annotation has id 9007199254740993']),
    (setter('annotations', 0, image_id='1'), ["annotation 1 has image_id '1', which the file does not list"]),
    (setter('annotations', 0, image_id=True), ['annotation 1 has image_id True']),
    (setter('annotations', 0, category_id=[1]), ['annotation 1 has category_id [1]']),
    (setter('annotations', 0, iscrowd='0'), ["annotation 1 has iscrowd '0', which must be 0 or 1"]),
    (setter('annotations', 0, ignore=None), ['annotation 1 has ignore None']),
    (setter('annotations', 0, bbox=[0, 0, 1e308, 3]), ['annotation 1 has bbox [0, 0, 1e+308, 3]']),
    (setter('categories', 1, name='square'), ["categories 1 and 2 have the same name 'square'"]),
    (setter('categories', 1, name=None), ['category 2 has the name None']),
    (setter('images', 3, file_name='gone.jpg'), ['1 of 8 images of', "train: 'gone.jpg'"]),
    (setter('images', 3, file_name='sub/000004.jpg'), ['1 of 8 images of', "train: 'sub/000004.jpg'"]),
], ids=lambda value: value[0] if isinstance(value, list) else 'entry')
def test_bad_entries_are_named(coco_folder, change, phrases):
    root = coco_folder()
    edit(root, change)
    assert_refused(root, 'train.json', *phrases)


def test_missing_images_are_counted_and_the_first_named(coco_folder):
    root = coco_folder()
    for path in sorted((root / 'train').iterdir())[:5]:
        path.unlink()
    assert_refused(root, '5 of 8 images', "'000001.jpg', '000002.jpg', '000003.jpg', …")
    assert_refused(root, 'no such image folder', data_prefix=dict(img='elsewhere'))


def test_images_in_subfolders_are_found(coco_folder):
    root = coco_folder()
    (root / 'train' / 'sub').mkdir()
    (root / 'train' / '000002.jpg').rename(root / 'train' / 'sub' / '000002.jpg')
    edit(root, setter('images', 1, file_name='sub/000002.jpg'))
    assert len(build(root)) == 8


@pytest.mark.parametrize('classes', [('square', 'wide', 'round'), ('cat',), ('square', 'wide', 'tall', 'extra')])
def test_classes_that_the_file_lacks(coco_folder, classes):
    assert_refused(coco_folder(), repr(classes[-1]), "'square', 'wide', 'tall'", 'configured classes',
                   metainfo=dict(classes=classes))


def test_classes_in_another_order_would_be_mislabelled(coco_folder):
    assert_refused(coco_folder(), "file 'square', 'wide', 'tall', configured 'wide', 'square', 'tall'",
                   metainfo=dict(classes=('wide', 'square', 'tall')))


def test_a_choice_of_the_classes_is_allowed_and_noted(coco_folder, warnings_logged):
    dataset = build(coco_folder(), metainfo=dict(classes=('square', 'tall')))
    labels = {instance['bbox_label'] for index in range(8) for instance in dataset.get_data_info(index)['instances']}
    assert labels == {0, 1}
    assert len(warnings_logged) == 1 and "of the unconfigured category 'wide' (annotation" in warnings_logged[0]


def test_unusable_boxes_are_left_out_and_counted(coco_folder, warnings_logged):
    root = coco_folder()

    def spoil(content):
        content['annotations'][0]['bbox'] = [5, 5, 0, 10]
        content['annotations'][1]['bbox'] = [100, 5, 10, 10]
        content['annotations'][2]['bbox'] = [-20, 5, 10, 10]
        content['annotations'][3]['area'] = 0
    before = sum(len(build(root).get_data_info(index)['instances']) for index in range(8))
    edit(root, spoil)
    dataset = build(root)
    assert sum(len(dataset.get_data_info(index)['instances']) for index in range(8)) == before - 4
    assert len(warnings_logged) == 1
    for phrase in ('1 thinner than a pixel (annotation 1)', '2 outside the image (annotation 2, 3)',
                   '1 of zero area (annotation 4)'):
        assert phrase in warnings_logged[0]


def test_objects_that_no_detection_can_match_are_kept_and_told(coco_folder, warnings_logged):
    root = coco_folder()
    edit(root, setter('annotations', 0, bbox=[5, 5, 0, 9]))
    edit(root, setter('annotations', 1, bbox=[90, 5, 9, 9]))
    build(root, test_mode=True)
    assert len(warnings_logged) == 1
    for phrase in ('1 of zero width or height (annotation 1)', '1 outside the image (annotation 2)',
                   "count as missed in COCO's evaluation"):
        assert phrase in warnings_logged[0]
    edit(root, lambda content: [item.update(bbox=[5, 5, 0, 9]) for item in content['annotations']] and None)
    assert_refused(root, 'nothing to detect', 'of zero width or height', test_mode=True)


def test_no_usable_box_at_all(coco_folder):
    root = coco_folder()
    edit(root, lambda content: [item.update(bbox=[0, 0, 0, 0]) for item in content['annotations']] and None)
    assert_refused(root, 'nothing to learn', 'thinner than a pixel (annotation 1, 2, 3, …)')


def test_no_report_where_nothing_is_wrong(coco_folder):
    dataset = DATASETS.build(dict(type='SeededDataset', dataset=build(coco_folder())))
    lines = []
    runner = SimpleNamespace(train_dataloader=SimpleNamespace(dataset=dataset), epoch=0,
                             logger=SimpleNamespace(warning=lines.append))
    UnreadableImagesHook().after_train_epoch(runner)
    assert lines == []


def test_mostly_unreadable_images_stop_training(coco_folder):
    root = coco_folder()
    for path in (root / 'train').iterdir():
        path.write_text('version https://git-lfs.github.com/spec/v1')
    np.random.seed(0)
    with pytest.raises(InputError, match='5 of 8 images are unreadable; the last: image'):
        DATASETS.build(dict(type='SeededDataset', dataset=build(root)))[0]


def test_evaluation_needs_numbered_categories(coco_folder):
    root = coco_folder()

    def name(content):
        content['categories'][0]['id'] = 'c'
        for annotation in content['annotations']:
            if annotation['category_id'] == 1:
                annotation['category_id'] = 'c'

    edit(root, name)
    assert_refused(root, "ids of kind category are numbers and some are text: 2, 'c'")


@pytest.mark.parametrize(('change', 'phrases'), [
    (setter('annotations', 0, id=0), ['annotation 0:', 'number them from 1']),
    (setter('annotations', 0, id=-1), ['annotation -1:', 'number them from 1']),
    (lambda content: [item.update(id=f'a{item["id"]}') for item in content['annotations']] and None,
     ["annotation 'a1':", 'number them from 1']),
    (lambda content: content['annotations'][0].pop('iscrowd') and None, ['annotation 1 has no iscrowd']),
    (lambda content: content['categories'].reverse(), ['lists category 2 after 3', 'sort the categories']),
    (setter('categories', 1, name=7), ['category 2 has the name 7, which is no text']),
    (setter('annotations', 0, area=-4), ['annotation 1 has the negative area -4']),
    (lambda content: [item.update(iscrowd=1) for item in content['annotations']] and None,
     ['nothing to detect', 'crowds']),
], ids=lambda value: value[0] if isinstance(value, list) else 'entry')
def test_what_cocos_evaluation_goes_wrong_with_is_refused_in_testing(coco_folder, change, phrases):
    root = coco_folder()
    edit(root, change)
    assert_refused(root, 'train.json', *phrases, test_mode=True)


@pytest.mark.parametrize('values', [
    [dict(iscrowd=1)], [dict(ignore=1)], [dict(ignore=True), dict(iscrowd=True)],
    [dict(iscrowd=1), dict(bbox=[5, 5, 0, 9]), dict(bbox=[90, 5, 9, 9]), dict(area=0), dict(category_id=2)],
], ids=['crowds', 'ignored', 'both', 'all kinds'])
def test_nothing_to_learn(coco_folder, values):
    root = coco_folder()
    edit(root, lambda content: [item.update(values[number % len(values)], category_id=values[number % len(values)].get(
        'category_id', 1)) for number, item in enumerate(content['annotations'])] and None)
    assert_refused(root, 'train.json has nothing to learn: its annotations are:',
                   metainfo=dict(classes=('square', 'tall')))
    edit(root, setter('annotations', 0, iscrowd=0, ignore=0, category_id=1))
    assert len(build(root, metainfo=dict(classes=('square', 'tall')))) == 8


def test_a_filter_may_not_leave_nothing(coco_folder):
    assert_refused(coco_folder(), 'train.json', "filter_cfg={'min_size': 100} leaves nothing to learn",
                   filter_cfg=dict(min_size=100))


@pytest.mark.parametrize('form', [float, lambda key: key], ids=['1.0', '1'])
def test_harmless_forms_mean_the_same(coco_folder, form):
    root = coco_folder()
    good = build(root)

    def rewrite(content):
        for item in content['annotations']:
            item.update(image_id=form(item['image_id']), category_id=form(item['category_id']), iscrowd=False,
                        ignore=0.0)
        for image in content['images']:
            image.update(width=64.0)
    edit(root, rewrite)
    other = build(root)
    assert [other.get_data_info(index) for index in range(8)] == [good.get_data_info(index) for index in range(8)]


@pytest.mark.parametrize('name', [7, 7.0, '7'])
def test_categories_named_by_numbers_are_text_in_training(coco_folder, name):
    root = coco_folder()
    edit(root, setter('categories', 1, name=name))
    dataset = build(root, metainfo=dict(classes=('square', '7', 'tall')))
    labels = {instance['bbox_label'] for index in range(8) for instance in dataset.get_data_info(index)['instances']}
    assert labels == {0, 1, 2}


def test_classes_as_one_text(coco_folder):
    assert_refused(coco_folder(), "classes='square', a text: write classes=('square', )",
                   metainfo=dict(classes='square'))


@pytest.mark.parametrize('entry', [dict(width=48, height=64), dict(width=640, height=480), dict(width=65)],
                         ids=['swapped', 'scaled', 'one more'])
def test_an_image_of_another_size_than_its_annotations(coco_folder, entry):
    root = coco_folder()
    edit(root, setter('images', 1, **entry))
    swapped = entry['width'] == 48
    tested = build(root, test_mode=True)
    assert tested[0]['data_samples'].img_id == 1
    with pytest.raises(UnreadableImageError, match='000002.jpg has 64 x 48 pixels, but .*train.json') as caught:
        tested[1]
    assert '\n' not in str(caught.value) and ('EXIF' in str(caught.value)) == swapped
    learnt = build(root)
    for dataset in (learnt, DATASETS.build(dict(type='SeededDataset', dataset=learnt))):
        assert dataset[1]['data_samples'].img_id != 2
        assert learnt.left_out.indices() == [1]


def test_an_image_turned_by_exif_is_learnt_as_it_was_annotated(coco_folder):
    root = coco_folder()
    path = root / 'train' / '000001.jpg'
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(path, exif=exif.tobytes())
    with pytest.raises(UnreadableImageError, match='color_ignore_orientation'):
        build(root, test_mode=True)[0]
    stored = build(root, pipeline=[dict(type='LoadCheckedImage', color_type='color_ignore_orientation')])[0]
    assert stored['img'].shape == (48, 64, 3)
    entry = dict(file_name='000001.jpg', width=64, height=48)
    assert load_annotated_image(entry, root / 'train').shape == (48, 64, 3)
    assert load_annotated_image(dict(entry, width=48, height=64), root / 'train').shape == (64, 48, 3)
    with pytest.raises(UnreadableImageError):
        load_annotated_image(dict(entry, width=65), root / 'train')


def test_samples_may_be_in_the_order_of_their_names(coco_folder):
    root = coco_folder()
    path = root / 'annotations' / 'train.json'
    content = json.loads(path.read_text())
    for image, name in zip(content['images'], ('a-10.jpg', 'a-9.jpg', 'a-1.jpg')):
        (root / 'train' / image['file_name']).rename(root / 'train' / name)
        image['file_name'] = name
    path.write_text(json.dumps(content))
    settings = dict(type='CheckedCocoDataset', ann_file=str(path), data_prefix=dict(img=str(root / 'train')),
                    metainfo=dict(classes=('square', 'wide', 'tall')), pipeline=[])
    for by_name, expected in ((False, ['a-10.jpg', 'a-9.jpg', 'a-1.jpg', '000004.jpg']),
                              (True, ['000004.jpg', '000005.jpg', '000006.jpg', '000007.jpg', '000008.jpg', 'a-1.jpg',
                                      'a-9.jpg', 'a-10.jpg'])):
        dataset = DATASETS.build(dict(settings, by_name=by_name))
        names = [Path(dataset.get_data_info(index)['img_path']).name for index in range(len(dataset))]
        assert names[:len(expected)] == expected
