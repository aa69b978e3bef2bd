"""What lies where in the folder of a study of students."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.errors import InputError
from workbench.studies.students.jobs import Job

STUDY = "study.json"
JOBS = "jobs.json"
SAMPLES = "samples.safetensors"
RESULTS = "results"
CLAIMS = "claims"
ERRORS = "errors"
MODELS = "models"
LOGS = "logs"


def result_path(out: Path, job: Job) -> Path:
    """Where the results of a student are."""
    return out / RESULTS / f"{job.name}.json"


def read_results(out: Path) -> list[dict[str, Any]]:
    """Results so far, also of students that are not finished, in order of their names.

    Raises:
        InputError: a file that is none.
    """
    found = []
    for path in sorted((out / RESULTS).glob("*.json")):
        try:
            result = json.loads(path.read_text())
            whole = isinstance(result, Mapping) and {"job", "finished", "curve"} <= result.keys()
        except ValueError:
            whole = False
        if not whole:
            raise InputError(f"{path}: holds no results of a student; delete it")
        found.append(result)
    return found
