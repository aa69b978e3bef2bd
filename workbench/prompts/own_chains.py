"""Documents with chains and labels of one's own: one a line, as a JSON object.

    {"id": "c0",
     "document": {"text": "Note: EF 35 %, dyspnoea. Candidates: …"},
     "chain": {"text": "The EF is low. Systolic heart failure or …"},
     "labels": [{"label": "I50.2", "text": "Systolic heart failure", "role": "gold"},
                {"label": "I50.3", "text": "Diastolic heart failure", "role": "near",
                 "aliases": ["HFpEF"]},
                {"label": "J18.9", "text": "Pneumonia", "role": "far"}],
     "evidence": ["EF 35 %", "dyspnoea"]}

`document` is all that stands before the chain, as the model is to read it; like `chain` it may be
`{"input_ids": [..]}`. Without `chain` the model writes one. A label's `family` (any word) says
which labels are near misses of one another; with one gold label it may be left out. `evidence` are
phrases of the document; without them the gold labels' texts are looked for.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from workbench.errors import InputError, explain
from workbench.files import parse_json, read_text


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class OwnText(_Strict):
    """Text or token ids."""

    text: str | None = None
    input_ids: list[int] | None = None

    @model_validator(mode="after")
    def _one(self) -> "OwnText":
        if (self.text is None) == (self.input_ids is None):
            raise InputError("give either text or input_ids")
        if not (self.text or self.input_ids):
            raise InputError("a document or chain is empty")
        return self

    @property
    def given(self) -> str | list[int]:
        """The text, or the token ids."""
        return self.input_ids if self.text is None else self.text  # type: ignore[return-value]


class OwnLabel(_Strict):
    """A label with its role."""

    label: str = Field(min_length=1)
    text: str = Field(min_length=1)
    role: Literal["gold", "near", "far"]
    family: str | None = None
    aliases: list[str] = []


class OwnChain(_Strict):
    """One line of the file."""

    id: str = Field(min_length=1)
    document: OwnText
    labels: list[OwnLabel] = Field(min_length=2)
    chain: OwnText | None = None
    evidence: list[str] = []

    @model_validator(mode="after")
    def _roles(self) -> "OwnChain":
        golds = [label for label in self.labels if label.role == "gold"]
        if not golds or all(label.role != "near" for label in self.labels):
            raise InputError("labels: needs a gold label and a near one at least")
        bare = any(label.family is None for label in self.labels if label.role != "far")
        if len(golds) > 1 and bare:
            raise InputError("labels: with several gold labels, gold and near ones need a family")
        names = [label.label for label in self.labels]
        if len(set(names)) < len(names):
            raise InputError("labels: a label is given twice")
        families = {label.family for label in golds}
        lost = [x for x in self.labels if x.role == "near" and x.family not in families]
        if lost and not (len(golds) == 1 and lost[0].family is None):
            raise InputError("labels: a near label is of a family without a gold one")
        return self


def read_own_chains(path: str | Path) -> list[OwnChain]:
    """Read a file of own chains; blank lines are skipped.

    Raises:
        InputError: one line, `FILE:LINE: reason`, about the first line that is not right; no word
            of a document is shown.
    """
    path = Path(path)
    found: list[OwnChain] = []
    line_of: dict[str, int] = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            made = OwnChain.model_validate(parse_json(line))
        except ValidationError as error:
            raise InputError(f"{path}:{number}: {explain(error, private=True)}") from None
        except InputError as error:
            raise InputError(f"{path}:{number}: {error}") from None
        earlier = line_of.setdefault(made.id, number)
        if earlier != number:
            raise InputError(f"{path}:{number}: the same id is on line {earlier}")
        found.append(made)
    if not found:
        raise InputError(f"{path}: holds no chains; needs one JSON object a line")
    return found
