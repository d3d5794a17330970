import json
import random
from collections import Counter

import pytest

from imagen_jax.errors import InputError
from imagen_jax.evaluation.prompts import coco as module
from imagen_jax.evaluation.prompts.coco import read_coco


def coco(num_images=20, per_image=5):
    """Of the real file's form."""
    images = [
        {"license": 5, "file_name": f"COCO_val2014_{17 * i:012}.jpg", "height": 4, "width": 6, "id": 17 * i}
        for i in range(num_images)
    ]
    annotations = [
        {"image_id": image["id"], "id": 1000 * k + image["id"], "caption": f"Caption {k} of {image['id']}.\n"}
        for image in images
        for k in range(per_image)
    ]
    return {"info": {"year": 2014}, "licenses": [], "images": images, "annotations": annotations}


def write(path, content):
    path.write_text(json.dumps(content), "utf-8")
    return path


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "captions_val2014.json", coco())


def test_ids_are_those_of_the_captions(file):
    texts = {str(entry["id"]): entry["caption"].strip() for entry in coco()["annotations"]}
    for reading in ("captions", "images"):
        prompts = read_coco(file, reading=reading, count=20, seed=0)
        assert [texts[key] for key in prompts.ids] == list(prompts.prompts)
        assert prompts.name == f"coco20-{reading}"


def test_captions_are_drawn_without_replacement_and_images_once_each(file):
    image_of = {str(entry["id"]): entry["image_id"] for entry in coco()["annotations"]}
    every = read_coco(file, reading="captions", count=100, seed=0)
    assert set(every.ids) == set(image_of)
    some = read_coco(file, reading="captions", count=20, seed=0)
    assert max(Counter(image_of[key] for key in some.ids).values()) > 1
    one_each = read_coco(file, reading="images", count=20, seed=0)
    assert Counter(image_of[key] for key in one_each.ids) == dict.fromkeys(image_of.values(), 1)


def test_which_caption_of_an_image_is_drawn_too(file):
    drawn = [key for seed in range(20) for key in read_coco(file, reading="images", count=20, seed=seed).ids]
    counts = Counter(int(key) // 1000 for key in drawn)
    assert set(counts) == set(range(5))
    assert min(counts.values()) > 40  # of 400 / 5


@pytest.mark.parametrize("reading", ["captions", "images"])
def test_the_seed_decides_and_the_order_of_the_file_does_not(file, tmp_path, reading):
    content = coco()
    random.Random(0).shuffle(content["images"])
    random.Random(1).shuffle(content["annotations"])
    shuffled = write(tmp_path / "shuffled.json", content)
    prompts = read_coco(file, reading=reading, count=15, seed=3)
    assert prompts == read_coco(shuffled, reading=reading, count=15, seed=3)
    assert prompts.sha256 != read_coco(file, reading=reading, count=15, seed=4).sha256


@pytest.mark.parametrize("reading", ["captions", "images"])
def test_fewer_are_the_first_of_more(file, reading):
    more, fewer = (read_coco(file, reading=reading, count=count, seed=0) for count in (18, 7))
    assert more.ids[:7] == fewer.ids


def test_an_image_may_have_no_caption_and_that_is_said(tmp_path, caplog):
    caplog.set_level("INFO")
    content = coco()
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] != 34]
    file = write(tmp_path / "a.json", content)
    assert len(read_coco(file, reading="images", count=19, seed=0)) == 19
    assert "1 of 20 images have no caption" in caplog.text


def broken(**change):
    content = coco()
    content["annotations"][7] |= change
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": [], "annotations": []}, 'no list "images"'),
        ({"images": coco()["images"]}, 'no list "annotations"'),
        (["a"], "no JSON object"),
        (broken(caption=" \n"), "caption 2017 is empty"),
        (broken(caption=None), r'annotations\[7\] has no "caption"'),
        (broken(image_id=5), 'of image 5, which isn\'t among "images"'),
        (broken(id=1017), "caption 1017 is there twice"),
        (broken(id=True), r'annotations\[7\] has no "id"'),
        (broken(id=2**80), r'annotations\[7\] has no "id"'),
        (broken(id=-1), r'annotations\[7\] has no "id"'),
        (broken(caption="\ud800"), r'annotations\[7\] has no "caption"'),
        ({"images": [{"id": {"id": 1}}], "annotations": [{}]}, r'images\[0\] has no "id"'),
        ({"images": [{"file_name": "a.jpg"}], "annotations": [{}]}, r'images\[0\] has no "id"'),
        ({"images": ["x"], "annotations": [{}]}, r'images\[0\] has no "(id|file_name)"'),
    ],
)
def test_a_file_that_is_something_else_is_one_clear_error(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        read_coco(write(tmp_path / "a.json", content), reading="captions", count=1, seed=0)


def test_files_that_are_no_json(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(InputError, match=r"missing; expected COCO's captions"):
        read_coco(path, reading="captions", seed=0)
    for data in (b"", b"a,b", b'{"images": "\xe9"}'):
        path.write_bytes(data)
        with pytest.raises(InputError, match="damaged"):
            read_coco(path, reading="captions", seed=0)


def test_a_file_larger_than_any_of_cocos_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MAX_BYTES", 100)
    with pytest.raises(InputError, match="more than the 100 that are read"):
        read_coco(write(tmp_path / "a.json", coco()), reading="captions", count=1, seed=0)


def test_no_more_than_there_are_can_be_drawn(file):
    for reading, there in (("captions", 100), ("images", 20)):
        for count in (there + 1, 0):
            said = rf"{count} {reading} asked of .* expected 1 to {there}" if count else "count is 0; expected a whole"
            with pytest.raises(InputError, match=said):
                read_coco(file, reading=reading, count=count, seed=0)
    with pytest.raises(InputError, match='unknown reading "both"'):
        read_coco(file, reading="both", count=1, seed=0)
