import json
from pathlib import Path

import pytest
import torch
from fixtures.tiny_runs import save_model
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import BertConfig, BertForMaskedLM, LlamaForCausalLM, PreTrainedTokenizerFast

from workbench.errors import InputError
from workbench.models import folders, loading
from workbench.models.hooked import HookedModel


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_model("llama", tmp_path / "tiny")


def unreachable(*args, **kwargs):
    raise OSError("cannot reach the hub\nlong advice")


def load_error(source: str | Path, **kwargs) -> str:
    """The message, which must be one line."""
    with pytest.raises(InputError) as caught:
        HookedModel.load(source, device="cpu", **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_folder_without_tokenizer_loads_with_its_own_logits(folder):
    model = HookedModel.load(folder, device="cpu")
    plain = LlamaForCausalLM.from_pretrained(folder, attn_implementation="eager")
    sequence = [3, 1, 4, 1, 5]
    expected = plain(torch.tensor([sequence])).logits[0, -1]
    torch.testing.assert_close(model.run([sequence])[0].logits, expected)
    assert model.tokenizer is None
    assert (model.info.name, model.info.n_kv_heads, model.info.dtype) == ("tiny", 2, "float32")
    assert not model.info.compatibility_mode


def test_the_tokenizer_is_loaded_and_left_without_added_tokens(folder):
    words = {"[UNK]": 0, "fever": 1, "cough": 2}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    model = HookedModel.load(folder, device="cpu")
    assert model.tokenizer is not None
    assert model.tokenizer.encode("cough") == [2]
    assert len(model.tokenizer) == len(words)


def test_dtype_is_the_one_asked_for(folder):
    model = HookedModel.load(folder, device="cpu", dtype="bfloat16")
    assert model.dtype == torch.bfloat16
    assert model.info.dtype == "bfloat16"


def test_shards_load_like_one_file_and_a_missing_one_is_named(folder):
    whole = HookedModel.load(folder, device="cpu")
    weights = load_file(folder / folders.SINGLE_FILE)
    (folder / folders.SINGLE_FILE).unlink()
    names = sorted(weights)
    weight_map = {}
    for part, keys in enumerate((names[::2], names[1::2])):
        shard = f"model-{part}.safetensors"
        save_file({key: weights[key] for key in keys}, folder / shard, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(keys, shard)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / folders.SHARD_INDEX).write_text(json.dumps(index))
    sharded = HookedModel.load(folder, device="cpu")
    torch.testing.assert_close(sharded.run([[1, 2]])[0].logits, whole.run([[1, 2]])[0].logits)
    (folder / "model-1.safetensors").unlink()
    assert "lacks shard model-1.safetensors" in load_error(folder)


def test_a_shard_outside_the_folder_is_refused(folder):
    (folder / folders.SINGLE_FILE).unlink()
    index = {"weight_map": {"lm_head.weight": "../elsewhere.safetensors"}}
    (folder / folders.SHARD_INDEX).write_text(json.dumps(index))
    assert "outside the model folder" in load_error(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("weights.safetensors", " but neither model.safetensors nor"),
        ("pytorch_model.bin", ": pickle weights are refused; convert to safetensors"),
        ("model.pt", ": pickle weights are refused; convert to safetensors"),
        ("last.ckpt", ": pickle weights are refused; convert to safetensors"),
    ],
)
def test_weights_that_are_not_loaded_are_named(folder, name, message):
    (folder / folders.SINGLE_FILE).rename(folder / name)
    assert name + message in load_error(folder)


def test_damaged_weights(folder):
    path = folder / folders.SINGLE_FILE
    path.write_bytes(path.read_bytes()[:200])
    assert "cannot be loaded" in load_error(folder)


def test_incomplete_weights_are_not_filled_with_random_ones(folder):
    path = folder / folders.SINGLE_FILE
    weights = load_file(path)
    del weights["model.layers.1.self_attn.o_proj.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    assert "lack 1 parameters of the model, first model.layers.1" in load_error(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no config.json"),
        ("{", "is not readable JSON"),
        ('{"n": ' + "9" * 10_000 + "}", "is not readable JSON"),
        ("\ufeff" + '{"model_type": "llama"}', "config.json begins with a byte-order mark"),
        ("[1]", "must hold a JSON object, not a list"),
        ("{}", "has no 'model_type'"),
        ('{"model_type": "no-such-model"}', "model_type 'no-such-model' is none that"),
        ('{"model_type": ["llama"]}', "model_type a list of 1 is none that"),
        ('{"model_type": "llama", "num_attention_heads": "four"}', "config.json cannot be read"),
        ('{"model_type": "llama", "num_attention_heads": 0}', "config.json"),
        ('{"model_type": "vit"}', "cannot be loaded"),
    ],
)
def test_config_errors(folder, content, message):
    path = folder / "config.json"
    path.unlink() if content is None else path.write_text(content)
    assert message in load_error(folder)


def test_damaged_tokenizer(folder):
    (folder / "tokenizer.json").write_text("not a tokenizer")
    assert f"tokenizer in {folder.resolve()} cannot be read" in load_error(folder)
    (folder / "tokenizer.json").write_text("\ufeff{}")
    assert "tokenizer.json begins with a byte-order mark" in load_error(folder)


@pytest.mark.parametrize("source", ["./absent", "/absent/model", "~/absent", "a/b/c", Path("gone")])
def test_absent_folder(source):
    assert f"model folder {source} does not exist" in load_error(source)


@pytest.mark.parametrize("source", ["gone.gguf", "./a/gone.GGUF", Path("/gone.gguf")])
def test_absent_gguf_file(source):
    assert load_error(source) == f"GGUF file {source} does not exist"


def test_a_file_instead_of_its_folder(folder):
    assert "give the model folder that contains it" in load_error(folder / "config.json")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("https://huggingface.co/some/model", "is an address; give the hub id, ORG/NAME"),
        ("a" * 300, "cannot be read, File name too long"),
    ],
)
def test_what_is_no_source(source, message):
    assert message in load_error(source)


def test_a_name_that_is_not_known_says_which_are(monkeypatch):
    monkeypatch.setattr(loading, "snapshot_download", unreachable)
    said = load_error("smolm2")
    assert "no local folder, none of smollm2, " in said and said.endswith("did you mean smollm2?")


def test_hub_without_network_is_one_line(monkeypatch):
    monkeypatch.setattr(loading, "snapshot_download", unreachable)
    message = load_error("some/model")
    assert "'some/model' is no local folder and cannot be fetched from the hub" in message
    assert message.endswith("cannot reach the hub")


def test_a_hub_id_may_name_its_revision(monkeypatch, folder):
    asked = []

    def snapshot(*args, **kwargs):
        asked.append((*args, kwargs["revision"]))
        return str(folder)

    monkeypatch.setattr(loading, "snapshot_download", snapshot)
    info = HookedModel.load("some/model@refs/pr/1", device="cpu").info
    assert (info.name, info.revision) == ("some/model", "refs/pr/1")
    assert set(asked) == {("some/model", "refs/pr/1")}
    assert "names its revision, and 'v2' is given" in load_error("some/model@v1", revision="v2")


def test_a_hub_snapshot_brings_all_that_is_read(folder):
    """One of each kind, by its name on the hub."""
    wanted = ["model-00001-of-00002.safetensors", "model.safetensors.index.json", "config.json"]
    wanted += ["adapter_model.safetensors", "adapter_config.json", "chat_template.jinja"]
    left = ["pytorch_model.bin", "weights-Q4.gguf", "consolidated.safetensors"]
    kept = filter_repo_objects([*wanted, *left], allow_patterns=loading.HUB_PATTERNS)
    assert list(kept) == wanted


def test_hub_snapshot_goes_through_the_same_checks(monkeypatch, folder):
    monkeypatch.setattr(loading, "snapshot_download", lambda *args, **kwargs: str(folder))
    assert HookedModel.load("some/model", device="cpu", revision="v1").info.name == "some/model"
    (folder / folders.SINGLE_FILE).unlink()
    assert "has no weights" in load_error("some/model")


def test_bad_dtype_and_device(folder):
    assert "dtype 'int8' is not one of float32" in load_error(folder, dtype="int8")
    assert "dtype 'single-ish'" in load_error(folder, dtype="single-ish")
    with pytest.raises(InputError, match="device abacus cannot be used"):
        HookedModel.load(folder, device="abacus")
    with pytest.raises(InputError, match="device meta cannot be used: it holds shapes, no values"):
        HookedModel.load(folder, device="meta")
    assert "tiny is on this machine; revision 'v1' is of a hub id" in load_error(
        folder, revision="v1"
    )
    with pytest.raises(InputError, match="either a device or a device_map"):
        HookedModel.load(folder, device="cpu", device_map="auto")


def test_hashes_follow_the_weights(folder):
    before = HookedModel.load(folder, device="cpu").info.weights_sha256
    assert HookedModel.load(folder, device="cpu").info.weights_sha256 == before
    path = folder / folders.SINGLE_FILE
    weights = load_file(path)
    weights["lm_head.weight"][0, 0] += 1
    save_file(weights, path, metadata={"format": "pt"})
    assert HookedModel.load(folder, device="cpu").info.weights_sha256 != before

    first, second = torch.arange(6.0).reshape(2, 3), torch.tensor(2.0)
    hashed = loading.tensors_sha256({"a": first, "b": second})
    assert hashed == loading.tensors_sha256({"b": second, "a": first.clone()})
    assert hashed != loading.tensors_sha256({"a": first, "b": second + 1})


def test_a_library_that_a_model_needs_is_named(monkeypatch, folder):
    def needs(*args, **kwargs):
        raise ImportError("this model needs `somelib`\npip install somelib")

    monkeypatch.setattr(folders.AutoModelForCausalLM, "from_pretrained", needs)
    assert "cannot be loaded: this model needs `somelib`" in load_error(folder)


def test_a_device_map_changes_nothing_about_the_model(folder):
    whole = HookedModel.load(folder, device="cpu").run([[1, 2]])[0].logits
    for where in ({"device": "auto"}, {"device_map": {"": "cpu"}}, {"device_map": "cpu"}):
        spread = HookedModel.load(folder, **where)
        torch.testing.assert_close(spread.run([[1, 2]])[0].logits.cpu(), whole)


def test_a_known_name_stands_for_its_folder_unless_a_path_has_it(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(
        loading.catalogue, "folder_of", lambda name: folder if name == "smollm2" else None
    )
    (folder / "pretrained.json").write_text('{"quantisation": {"Q8_0": 3}}')
    info = HookedModel.load("smollm2", device="cpu").info
    assert (info.name, info.revision, info.quantisation) == ("smollm2", None, {"Q8_0": 3})
    monkeypatch.chdir(tmp_path)
    assert "revision 'v2' is of a hub id" in load_error("smollm2@v2")
    other = save_model("gpt2", tmp_path / "smollm2")
    assert loading.model_folder("smollm2") == other
    (tmp_path / "reasoner").mkdir()  # as a run's own folder would be
    assert f"{tmp_path}/reasoner holds no model, and as a path it comes" in load_error("reasoner")
    assert HookedModel.load(other, device="cpu").info.quantisation is None


def test_a_linked_folder_is_recorded_as_the_link(folder, monkeypatch):
    link = folder.parent / "teacher"
    link.symlink_to(folder)
    assert HookedModel.load(link, device="cpu").info.name == "teacher"
    monkeypatch.chdir(folder.parent)
    for source in ("teacher", "./teacher/", "teacher/../teacher", link):
        resolved = loading.model_folder(source)
        assert resolved == folder.resolve()
        assert loading.recorded_name(source, resolved) == ("teacher", None)


def test_a_folder_of_the_hubs_cache_is_recorded_as_the_hub_names_it(tmp_path, monkeypatch):
    snapshot = tmp_path / "models--org--my--model" / "snapshots" / "0123abc"
    save_model("llama", snapshot)
    info = HookedModel.load(snapshot, device="cpu").info
    assert (info.name, info.revision) == ("org/my--model", "0123abc")
    assert loading.recorded_name("org/my--model", snapshot) == ("org/my--model", "0123abc")
    assert loading.recorded_name("org/my--model", snapshot, "v1") == ("org/my--model", "v1")


ENCODER = {"is_decoder": False, "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48}


def test_an_encoder_in_a_folder_is_refused(tmp_path):
    shape = {"num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
    BertForMaskedLM(BertConfig(**ENCODER, **shape)).save_pretrained(tmp_path / "encoder")
    assert "is no causal language model" in load_error(tmp_path / "encoder")
