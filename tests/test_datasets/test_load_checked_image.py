"""Damaged images are noticed, whole ones cost nothing more."""
import io

import cv2
import numpy as np
import pytest
from PIL import Image

from mmmamba.datasets import LoadCheckedImage
from mmmamba.datasets.transforms.load_checked_image import UnreadableImageError, is_truncated


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


@pytest.fixture
def encode(picture):
    def encode(ending):
        return cv2.imencode(ending, picture)[1].tobytes()
    return encode


def load(path, content=None):
    if content is not None:
        path.write_bytes(content)
    return LoadCheckedImage()(dict(img_path=str(path)))


@pytest.mark.parametrize('ending', ['.jpg', '.png', '.bmp', '.webp'])
def test_whole_images_are_loaded_as_mmcv_does(tmp_path, encode, ending):
    results = load(tmp_path / f'a{ending}', encode(ending))
    np.testing.assert_array_equal(results['img'], cv2.imread(str(tmp_path / f'a{ending}')))
    assert results['img_shape'] == results['ori_shape'] == (48, 64)


def test_floats_where_asked_for(tmp_path, encode):
    (tmp_path / 'a.png').write_bytes(encode('.png'))
    assert LoadCheckedImage(to_float32=True)(dict(img_path=str(tmp_path / 'a.png')))['img'].dtype == np.float32


@pytest.mark.parametrize('ending', ['.jpg', '.png'])
@pytest.mark.parametrize('share', [0.2, 0.6, 0.99])
def test_truncated_images_are_named(tmp_path, encode, ending, share):
    content = encode(ending)
    with pytest.raises(UnreadableImageError, match=rf'a\{ending} is truncated'):
        load(tmp_path / f'a{ending}', content[:int(share * len(content))])


@pytest.mark.parametrize('ending', ['.jpg', '.png'])
def test_a_preallocated_rest_of_zeros_is_no_image(tmp_path, encode, ending):
    content = encode(ending)
    half = len(content) // 2
    with pytest.raises(UnreadableImageError):
        load(tmp_path / f'a{ending}', content[:half] + bytes(len(content) - half))


@pytest.mark.parametrize('ending', ['.jpg', '.png'])
def test_bytes_after_the_end_are_legal(tmp_path, encode, ending):
    results = load(tmp_path / f'a{ending}', encode(ending) + b'trailer of a camera')
    assert results['img'].shape == (48, 64, 3)


def test_a_thumbnail_does_not_hide_truncation(tmp_path, picture):
    thumbnail = io.BytesIO()
    Image.fromarray(picture[:8, :8]).save(thumbnail, 'JPEG')
    Image.fromarray(picture).save(tmp_path / 'whole.jpg', exif=b'Exif\x00\x00' + thumbnail.getvalue())
    content = (tmp_path / 'whole.jpg').read_bytes()
    assert content.count(b'\xff\xd9') == 2
    assert not is_truncated(content + b'trailer')
    assert is_truncated(content[:-200])
    assert is_truncated(content[:-200] + bytes(200))


@pytest.mark.parametrize('content', [b'', b'no image', b'version https://git-lfs.github.com/spec/v1\n', b'\xff\xd8',
                                     b'\xff\xd8\xff\xd9', b'\x89PNG\r\n\x1a\n'])
def test_other_files_are_named(tmp_path, content):
    with pytest.raises(UnreadableImageError, match=r'a\.jpg'):
        load(tmp_path / 'a.jpg', content)


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(UnreadableImageError, match=r'b\.jpg cannot be read'):
        load(tmp_path / 'b.jpg')
    with pytest.raises(UnreadableImageError, match='cannot be read'):
        load(tmp_path)
