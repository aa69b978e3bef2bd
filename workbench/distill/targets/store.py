"""A folder of targets: what it holds and of whom (`targets.json`), and blocks of examples.

A block is one safetensors file: `keys` name its examples, and of each request there are its parts,
entries of all examples one after the other, and `<request>/at`, where each example's begin. Blocks
are written whole, each by itself, so several processes can make them and a stopped one goes on.
Beside them are the teacher's configuration and tokenizer, without weights.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM

from workbench.distill.config import LossConfig
from workbench.distill.given import KEPT_TEACHER, MANIFEST
from workbench.distill.losses.term import TERMS
from workbench.distill.matching.head_map import HeadMap, Pools, describe, from_listed, listed
from workbench.distill.reading.capture import Reading
from workbench.distill.reading.positions import Marks
from workbench.distill.reading.wanted import Looks
from workbench.distill.targets.packing import Packing
from workbench.distill.targets.requests import Answers, Arguments, Request
from workbench.errors import InputError, first_line
from workbench.files import claim, make_folder, read_json, replacing
from workbench.heads import ModelShape

SCHEMA = "workbench.targets/2"
LOST = "lost"
"""Part that holds the share which was cut off, by batch."""
PREFIX = "teacher/"
"""Of the keys of a batch that hold targets."""
NOT_OF_THE_TEACHER = ("weights",)
"""Keys of a sample that change nothing of what the teacher does."""
_SAME = (
    "make targets with the same --prompts and --template, or the same --traces, mix, seed, steps, "
    "batch size and processes"
)
_PLAIN = ("teacher", "pools", "heads", "pairing", "loss", "examples", "block", "terms")
"""What a manifest holds that is in its file as it is."""


@dataclass(frozen=True)
class Manifest:
    """What a folder of targets holds.

    Attributes:
        teacher: hash of its weights.
        pools: its pooled heads as given, listed.
        heads: which of its heads teach: those, or others (`DistillationConfig.heads`).
        pairing: what else decides which heads are paired (`pair.paired_by`).
        loss: the settings of the terms that they are for.
        examples: how many there are, and the hash of which they are.
        block: examples of a block.
        packing: how answers are kept.
        looks: whose attention rows are read.
        keys: of a batch, that say where the teacher was read.
        requests: what is kept.
        terms: which requests each term asks, by their number.
        headmap: matched heads, where a term needs them.
        circuit: (teacher head, student head) paired by ablation effect, where a term needs them.
    """

    teacher: str
    pools: list[Any]
    heads: str
    pairing: Mapping[str, Any]
    loss: Mapping[str, Any]
    examples: Mapping[str, Any]
    block: int
    packing: Packing
    looks: tuple[Looks, ...]
    keys: tuple[str, ...]
    requests: tuple[Request, ...]
    terms: Mapping[str, Sequence[int]]
    headmap: HeadMap | None
    circuit: tuple[Any, ...]

    @property
    def asked(self) -> dict[str, Any]:
        """All that decides what is in the folder, as JSON holds it."""
        names = (*_PLAIN, "looks", "keys")
        return {
            "schema": SCHEMA,
            **json.loads(json.dumps({name: getattr(self, name) for name in names})),
            "packing": asdict(self.packing),
            "requests": json.loads(json.dumps([request.plain for request in self.requests])),
            "headmap": None if self.headmap is None else self.headmap.model_dump(mode="json"),
            "circuit": json.loads(json.dumps(self.circuit)),
        }

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """That of a folder.

        Raises:
            InputError: there is none, or it is damaged.
        """
        path = folder / MANIFEST
        found = read_json(path)
        try:
            if found["schema"] != SCHEMA:
                raise InputError(f"{path}: schema is {found['schema']!r}, must be {SCHEMA!r}")
            headmap = found["headmap"]
            if headmap is not None:
                headmap = HeadMap.model_validate_json(json.dumps(headmap))
            circuit = [[tuple(head) for head in pair] for pair in found["circuit"]]
            return cls(
                **{name: found[name] for name in _PLAIN},
                packing=Packing(**found["packing"]),
                looks=tuple(found["looks"]),
                keys=tuple(found["keys"]),
                requests=tuple(map(Request.of, found["requests"])),
                headmap=headmap,
                circuit=tuple(map(tuple, circuit)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{path}: is damaged ({type(error).__name__}); make the targets again"
            ) from None

    def write(self, folder: Path) -> None:
        """Into a folder, or compare it with what is there; several processes may do so at once.

        Raises:
            InputError: the folder holds targets of other settings; names them.
        """
        make_folder(folder)
        with FileLock(folder / ".lock"):
            claim(folder, folder / MANIFEST, self.asked, "targets")

    @property
    def n_blocks(self) -> int:
        """Files of a whole folder."""
        return -(-self.examples["n"] // self.block)

    @property
    def sha256(self) -> str:
        """Hash of all that decides what is in the folder."""
        return sha256(json.dumps(self.asked, sort_keys=True).encode()).hexdigest()


def block_path(folder: Path, number: int) -> Path:
    """File of a block."""
    return folder / f"block-{number:05d}.safetensors"


def sample_key(sample: Mapping[str, Any]) -> bytes:
    """What names an example: a hash of all that the teacher sees of it, and of its places."""
    seen = {name: value for name, value in sample.items() if name not in NOT_OF_THE_TEACHER}
    text = json.dumps(seen, sort_keys=True, default=lambda value: value.tolist())
    return blake2b(text.encode(), digest_size=16).digest()


def write_block(
    path: Path, keys: Sequence[bytes], parts: Mapping[str, Tensor], counts: Mapping[int, Tensor]
) -> None:
    """Write the entries of some examples, `<request>/<part>` by name, and how many each has."""
    at = {f"{i}/at": functional.pad(each.cumsum(dim=0), (1, 0)) for i, each in counts.items()}
    named = torch.frombuffer(bytearray(b"".join(keys)), dtype=torch.uint8).view(len(keys), -1)
    whole = {name: part.contiguous() for name, part in {**parts, **at, "keys": named}.items()}
    with replacing(path) as beside:
        save_file(whole, beside)


class Targets:
    """What a teacher did on examples, read from a folder instead of running the teacher.

    Args:
        folder: that `make.make_targets` filled.

    Raises:
        InputError: no such folder, or it is not finished or damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest = Manifest.read(self.folder)
        self._by_key = {request.key: i for i, request in enumerate(self.manifest.requests)}
        self._asked: tuple[int, ...] = ()
        self._files: dict[tuple[int, int], Any] = {}
        self._at: dict[bytes, tuple[int, int]] = {}
        for number in range(self.manifest.n_blocks):
            path = block_path(self.folder, number)
            if not path.is_file():
                raise InputError(
                    f"{self.folder}: block {number} of {self.manifest.n_blocks} is missing; give "
                    "the command that makes these targets again, it goes on"
                )
            keys = self._tensor(number, "keys")
            for row, key in enumerate(keys.numpy()):
                self._at[key.tobytes()] = number, row

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_files": {}}

    def teacher(self) -> Any:
        """The teacher's modules, without weights.

        Raises:
            InputError: its configuration is missing or damaged.
        """
        try:
            config = AutoConfig.from_pretrained(self.folder / KEPT_TEACHER, trust_remote_code=False)
            with torch.device("meta"):
                return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            why = first_line(error)
            raise InputError(
                f"{self.folder / KEPT_TEACHER}: holds no configuration of the teacher ({why})"
            ) from None

    def check_student(self, shape: ModelShape) -> None:
        """Refuse a student of other layers or heads than those that were matched.

        Raises:
            InputError: says both shapes.
        """
        headmap = self.manifest.headmap
        if headmap is not None and headmap.student != shape:
            raise InputError(
                f"{self.folder}: targets are for a student of {describe(headmap.student)}, this "
                f"one has {describe(shape)}; make them with the flags of this student"
            )

    def check_pairing(self, pairing: Mapping[str, Any]) -> None:
        """Refuse a student whose heads would be paired otherwise than those of the targets were.

        Args:
            pairing: what decides that for the terms of this student.

        Raises:
            InputError: names what differs.
        """
        made = self.manifest.pairing
        different = [name for name, value in pairing.items() if made.get(name) != value]
        if different:
            raise InputError(
                f"{self.folder}: heads of the targets were paired for another "
                f"{' and '.join(different)}; make them with the flags of this student"
            )

    def use(self, config: LossConfig, n_tokens: int) -> None:
        """Take these terms from here.

        Raises:
            InputError: targets were made for other terms, or with settings under which the teacher
                is asked for something else.
        """
        made = self.manifest
        wanted = [name for name in config.on if TERMS[name].runs_teacher(config)]
        for name in wanted:
            if name not in made.terms:
                raise InputError(
                    f"{self.folder}: holds targets for {', '.join(made.terms)}, none for {name}"
                )
        settings: dict[str, Any] = {"rows": config.rows}
        if "logit" in wanted and not made.packing.exact:
            settings["logit_temperature"] = config.logit_temperature
        for name, value in settings.items():
            if made.loss[name] != value:
                raise InputError(
                    f"{self.folder}: targets were made with {name} {made.loss[name]}, not {value}"
                )
        if made.packing.n_tokens != n_tokens:
            raise InputError(
                f"{self.folder}: targets were made for {made.packing.n_tokens:,} token ids that "
                f"teacher and student share, not for {n_tokens:,}"
            )
        self._asked = tuple(sorted({i for name in wanted for i in made.terms[name]}))

    def pools(self, given: Pools | None, heads: str = "pools") -> Pools | None:
        """The teacher's pooled heads that targets were made for.

        Raises:
            InputError: others are given, or another kind of heads is asked for.
        """
        made = self.manifest
        if made.heads != heads:
            raise InputError(f"{self.folder}: targets are of {made.heads} heads, not of {heads}")
        if given is not None and json.loads(json.dumps(listed(given))) != made.pools:
            raise InputError(f"{self.folder}: targets are of another head set; leave it out")
        return from_listed(made.pools)

    def has(self, sample: Mapping[str, Any]) -> bool:
        """Whether there are targets for an example."""
        return sample_key(sample) in self._at

    def check_examples(self, samples: Sequence[Mapping[str, Any]]) -> None:
        """Refuse examples without targets before training; processes that make batches would later,
        with a traceback.

        Raises:
            InputError: says how many have none.
        """
        missing = sum(not self.has(sample) for sample in samples)
        if missing:
            raise InputError(
                f"{self.folder}: holds no targets for {missing:,} of {len(samples):,} examples; "
                f"{_SAME}"
            )

    def collated(
        self, batch: Mapping[str, Tensor], samples: Sequence[Mapping[str, Any]]
    ) -> dict[str, Tensor]:
        """A batch with the targets of its examples.

        Raises:
            InputError: there are none for one of them.
        """
        places = []
        for sample in samples:
            key = sample_key(sample)
            if key not in self._at:
                raise InputError(
                    f"{self.folder}: holds no targets for one of the examples; {_SAME}"
                )
            places.append(self._at[key])
        marks = Marks.of(batch, self.manifest.loss["rows"])
        found = dict(batch)
        for i in self._asked:
            request = self.manifest.requests[i]
            parts = self._entries(i, places)
            try:
                padded = self.manifest.packing.padded(request, parts, marks)
            except (RuntimeError, IndexError):
                raise InputError(
                    f"{self.folder}: targets of {request.name} are for other places in the examples"
                ) from None
            found |= {f"{PREFIX}{i}/{name}": part for name, part in padded.items()}
        return found

    def reading(self, batch: Mapping[str, Tensor], marks: Marks) -> Reading:
        """The teacher's reading of a collated batch."""
        answered: dict[int, Any] = {}

        def answer(name: str, arguments: Arguments) -> Any:
            i = self._by_key.get((name, arguments))
            if i is None or i not in self._asked:
                raise InputError(
                    f"{self.folder}: holds no {name} of the heads that a loss term asks for; make "
                    "targets with the same terms, settings and student"
                )
            if i not in answered:
                start = f"{PREFIX}{i}/"
                parts = {
                    key.removeprefix(start): part
                    for key, part in batch.items()
                    if key.startswith(start)
                }
                answered[i] = self.manifest.packing.unpacked(
                    self.manifest.requests[i], parts, marks
                )
            return answered[i]

        return Answers(answer)

    def _entries(self, i: int, places: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
        found: dict[str, list[Tensor]] = {}
        for number, row in places:
            file = self._file(number)
            begin, end = file.get_slice(f"{i}/at")[row : row + 2].tolist()
            for name in self._parts(file, i):
                entries = file.get_slice(f"{i}/{name}")[begin:end]
                found.setdefault(name, []).append(entries)
        return {name: torch.cat(each) for name, each in found.items()}

    def _parts(self, file: Any, i: int) -> list[str]:
        start, names = f"{i}/", file.keys()
        found = [name.removeprefix(start) for name in names if name.startswith(start)]
        return [name for name in found if name not in ("at", LOST)]

    def _tensor(self, number: int, name: str) -> Tensor:
        return self._file(number).get_tensor(name)

    def _file(self, number: int) -> Any:
        at = os.getpid(), number
        if at not in self._files:
            path = block_path(self.folder, number)
            try:
                self._files[at] = safe_open(path, framework="pt")
            except (OSError, SafetensorError) as error:
                raise InputError(
                    f"{path}: is damaged ({first_line(error)}); delete it, and make targets again"
                ) from None
        return self._files[at]
