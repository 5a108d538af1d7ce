"""Names, sharing, removal and crashes of the image store."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runtime.images.faults import ImageInUse, NoSuchImage
from runtime.images.format import ImageFault
from runtime.images.store import ImageStore
from runtime.storage.overlay2 import Overlay2
from tests.corpus import tar
from tests.runtime.root.images.conftest import tree

pytestmark = pytest.mark.root

BASE = tar.layer(tar.folder("etc"), tar.entry("etc/base", b"base" * 100))
ONE = tar.layer(tar.entry("one", b"1"))
TWO = tar.layer(tar.entry("two", b"2"))


def load(store: ImageStore, layers: list[bytes], *tags: str) -> str:
    (result,) = store.load(io.BytesIO(tar.docker_archive(layers, tags=list(tags))))
    return result.image.id


def folders(state: Path) -> set[str]:
    return {path.name for path in (state / "engine/store/l").iterdir()} - {"empty"}


def test_images_share_the_layers_they_have_in_common(store: ImageStore, state: Path) -> None:
    load(store, [BASE, ONE], "one:v1")
    load(store, [BASE, TWO], "two:v1")
    assert len(folders(state)) == 3
    store.remove("one:v1")
    assert len(folders(state)) == 2
    store.remove("two:v1")
    assert folders(state) == set()


def test_loading_the_same_archive_again_changes_nothing(store: ImageStore, state: Path) -> None:
    load(store, [BASE, ONE], "app:v1")
    before = set(tree(state))
    load(store, [BASE, ONE], "app:v1")
    assert set(tree(state)) == before


def test_an_image_is_found_by_name_digest_and_start_of_its_id(store: ImageStore) -> None:
    image_id = load(store, [ONE], "app")
    names = ("app", "app:latest", "docker.io/library/app", image_id, image_id[7:], image_id[7:19], image_id[:20])
    assert {store.resolve(name).id for name in names} == {image_id}
    for name in ("app:v2", "other", "sha256:" + "0" * 64, "NoName!", "", "0"):
        if not image_id[7:].startswith(name or "!"):
            with pytest.raises(NoSuchImage):
                store.resolve(name)


def test_a_start_that_fits_several_images_is_refused(store: ImageStore) -> None:
    ids = [load(store, [tar.layer(tar.entry("n", b"%d" % number))], f"n{number}") for number in range(17)]
    digits = next(d for d in "0123456789abcdef" if sum(i[7] == d for i in ids) > 1)
    with pytest.raises(NoSuchImage, match="images have an id that begins with"):
        store.resolve(digits)


def test_a_tag_moves_to_the_newer_image(store: ImageStore) -> None:
    old = load(store, [ONE], "app:v1")
    new = load(store, [TWO], "app:v1")
    assert store.resolve("app:v1").id == new
    assert store.resolve(old).repo_tags == ()
    store.tag(old, "app:old")
    assert store.resolve("app:old").repo_tags == ("app:old",)


def test_removing_a_name_keeps_the_image_while_it_has_another(store: ImageStore) -> None:
    image_id = load(store, [ONE], "app:v1", "app:v2")
    assert store.remove("app:v1").deleted == ()
    with pytest.raises(NoSuchImage):
        store.resolve("app:v1")
    assert store.remove("app:v2").deleted[0] == image_id
    assert store.list() == []


def test_an_image_with_several_names_is_removed_by_id_only_by_force(store: ImageStore) -> None:
    image_id = load(store, [ONE], "app:v1", "other:v1")
    with pytest.raises(ImageInUse, match="2 names"):
        store.remove(image_id)
    assert store.remove(image_id, force=True).untagged == ("app:v1", "other:v1")


def test_an_image_a_container_needs_stays(store: ImageStore) -> None:
    image_id = load(store, [ONE], "app:v1")
    with pytest.raises(ImageInUse, match="used by a container"):
        store.remove("app:v1", in_use=[image_id])
    assert store.resolve("app:v1").id == image_id


def test_layers_outlive_their_image_while_a_container_is_made_of_them(
    store: ImageStore, driver: Overlay2, state: Path
) -> None:
    load(store, [BASE, ONE], "app:v1")
    driver.prepare("c1", store.resolve("app:v1").chain_ids)
    store.remove("app:v1", force=True)
    assert len(folders(state)) == 2
    driver.remove("c1")
    ImageStore(state / "engine" / "images", driver)
    assert folders(state) == set()


def test_everything_is_there_again_after_a_restart(store: ImageStore, state: Path) -> None:
    load(store, [BASE, ONE], "one:v1")
    load(store, [TWO], "two:v1")
    again = ImageStore(state / "engine" / "images", Overlay2(state / "engine" / "store"))
    assert again.list() == store.list()


def test_an_image_whose_layer_is_lost_is_forgotten_with_its_names(store: ImageStore, state: Path) -> None:
    load(store, [BASE, ONE], "one:v1")
    kept = load(store, [TWO], "two:v1")
    chain = store.resolve("one:v1").chain_ids[-1]
    (state / "engine/store/layers" / f"{chain[7:]}.json").unlink()
    again = ImageStore(state / "engine" / "images", Overlay2(state / "engine" / "store"))
    assert [image.id for image in again.list()] == [kept]
    with pytest.raises(NoSuchImage):
        again.resolve("one:v1")
    assert len(folders(state)) == 1


@pytest.mark.parametrize("step", ["add", "name", "commit_layer"])
def test_a_crash_at_any_step_of_a_load_leaves_a_store_that_works(
    store: ImageStore, driver: Overlay2, state: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    load(store, [TWO], "two:v1")
    before = set(tree(state / "engine/store"))

    def die(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(driver if step == "commit_layer" else store._catalog, step, die)
    monkeypatch.setattr(driver, "prune_layers", lambda keep: [])  # a crash cleans nothing up
    with pytest.raises(KeyboardInterrupt):
        load(store, [BASE, ONE], "one:v1")
    again = ImageStore(state / "engine" / "images", Overlay2(state / "engine" / "store"))
    assert "two:v1" in again.resolve("two:v1").repo_tags
    if step == "name":  # the image had arrived, only its name had not
        again.remove(next(image.id for image in again.list() if not image.repo_tags))
    assert set(tree(state / "engine/store")) == before
    assert again.resolve(load(again, [BASE, ONE], "one:v1")).size_bytes == 401


def test_loads_at_the_same_time_do_not_disturb_each_other(store: ImageStore, state: Path) -> None:
    start = threading.Barrier(4)

    def work(number: int) -> str:
        start.wait()
        own = tar.layer(tar.entry("own", b"%d" % number))
        for _ in range(3):
            image_id = load(store, [BASE, own], f"app{number}:v1")
            store.remove(f"app{number}:v1")
        return image_id

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert store.list() == [] and folders(state) == set()


def test_a_load_that_fails_at_its_second_image_keeps_neither(store: ImageStore, unchanged: Callable[[], None]) -> None:
    good, bad = tar.config([tar.digest(ONE)]), tar.config([tar.digest(b"another")])
    manifest = [
        {"Config": "1.json", "RepoTags": ["one:v1"], "Layers": ["a.tar"]},
        {"Config": "2.json", "RepoTags": ["two:v1"], "Layers": ["b.tar"]},
    ]
    members = {
        "1.json": good,
        "2.json": bad,
        "a.tar": ONE,
        "b.tar": TWO,
        "manifest.json": json.dumps(manifest).encode(),
    }
    archive = b"".join(tar.entry(name, data) for name, data in members.items()) + tar.END
    with pytest.raises(ImageFault, match="config says"):
        store.load(io.BytesIO(archive))
    unchanged()
