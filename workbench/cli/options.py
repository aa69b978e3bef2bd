"""The flags that commands share: their types, their choices and what `--help` says of them."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from workbench.runs.config import DEFAULTS, POSITIONS


class Template(StrEnum):
    """How prompts read."""

    plain = "plain"
    chat = "chat"


class Split(StrEnum):
    """Which categories prompts are made of."""

    seen = "seen"
    unseen = "unseen"


class Where(StrEnum):
    """Where heads are patched."""

    decision = "decision"
    span = "span"
    both = "both"

    @property
    def positions(self) -> tuple[str, ...]:
        """As `RunConfig` has them."""
        return POSITIONS if self is Where.both else (self.value,)


class Form(StrEnum):
    """Other tools' forms of a head set."""

    eap_ig = "eap-ig"
    list = "list"
    qrhead = "qrhead"


class Dtype(StrEnum):
    """Dtypes to run a model in."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"
    float64 = "float64"


Model = Annotated[
    str | None, typer.Option(help="Model folder or hub id.", show_default="the bundled model")
]
Prompts = Annotated[Path | None, typer.Option(help="Prompt file (.jsonl).")]
Out = Annotated[Path, typer.Option(help="Run folder: new, empty, or of the same run.")]
Device = Annotated[
    str | None, typer.Option(help="Device.", show_default="an accelerator if there is one")
]
DtypeFlag = Annotated[Dtype, typer.Option("--dtype", help="Dtype of the weights.")]
Seed = Annotated[int, typer.Option(help="Seed of prompts, halves, resamples and controls.")]
Task = Annotated[
    str, typer.Option("--task", help="What prompts ask for: icd10cm, xmc:FOLDER or mimic4:FOLDER.")
]
NPrompts = Annotated[int, typer.Option("--n", help="Prompts to make.")]
TemplateFlag = Annotated[Template, typer.Option("--template", help="How prompts read.")]
SplitFlag = Annotated[
    Split,
    typer.Option(
        "--split",
        help="Categories the bundled model was trained on, or not; training or test documents.",
    ),
]
Resamples = Annotated[int, typer.Option("--n-resamples", help="Bootstrap resamples of prompts.")]
Permutations = Annotated[
    int, typer.Option("--n-permutations", help="Role permutations; at least 20 a head.")
]
Heads = Annotated[str, typer.Option(help="nominated, screen, all, or a list: 4-3,5-1.")]
Nominated = Annotated[int, typer.Option("--n-nominated", help="Heads that each score nominates.")]
Screened = Annotated[
    int, typer.Option("--n-screened", help="Heads that each run's estimates nominate.")
]
Controls = Annotated[int, typer.Option("--n-controls", help="Random heads patched beside them.")]
PositionsFlag = Annotated[Where, typer.Option("--positions", help="Where heads are patched.")]
Rate = Annotated[float, typer.Option(help="Largest q value of a pooled head.")]
RestoreLow = Annotated[float, typer.Option(help="A pooled head's interval lies above this.")]
ReadOut = Annotated[float, typer.Option(help="Share at the decision that makes a head read-out.")]
Draws = Annotated[int, typer.Option(help="Random control sets per pool.")]
Force = Annotated[bool, typer.Option(help="Replace the file if it exists.")]

F32, BOTH = Dtype.float32, Where.both
PLAIN, UNSEEN = Template(DEFAULTS.template), Split(DEFAULTS.split)
