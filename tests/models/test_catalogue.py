import pytest

from workbench.errors import InputError
from workbench.models import catalogue
from workbench.models.catalogue import PRETRAINED, RECORD, folder_of


def test_a_known_name_is_its_fetched_folder_or_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "user_cache", lambda: tmp_path)
    assert folder_of("org/model") is None
    with pytest.raises(InputError, match=r"run `workbench fetch-model smollm2` first"):
        folder_of("smollm2")
    folder = tmp_path / "pretrained" / "smollm2"
    folder.mkdir(parents=True)
    with pytest.raises(InputError):  # what an unfinished copy left
        folder_of("smollm2")
    (folder / RECORD).write_text("{}")
    assert folder_of("smollm2") == folder


def test_every_wheel_is_pinned_once():
    pins = [wheel for source in PRETRAINED.values() for wheel in source.wheels]
    assert len({wheel.sha256 for wheel in pins}) == len(pins) == 29
    assert all(len(wheel.sha256) == 64 for wheel in pins)
    for source in PRETRAINED.values():
        assert sum(wheel.n_bytes for wheel in source.wheels) < 1.01 * source.gguf_bytes


def test_a_user_without_a_home_is_told_to_name_a_folder(monkeypatch):
    monkeypatch.setattr(catalogue, "user_cache", lambda: None)
    with pytest.raises(InputError, match="--to FOLDER"):
        folder_of("smollm2")
