"""What prompts can be made of, by name: tasks, templates and splits."""

from workbench.errors import InputError

ICD10CM = "icd10cm"
CORPORA = ("xmc", "mimic4")
"""Formats of labelled documents; a task names one and a folder, as in `xmc:FOLDER`."""
TEMPLATES = ("plain", "chat")
SPLITS = ("seen", "unseen")


def check_task(task: str) -> None:
    """Refuse a task that has no such form.

    Raises:
        InputError: it is neither ICD-10-CM nor documents of a folder.
    """
    form, _, folder = task.partition(":")
    if task != ICD10CM and not (form in CORPORA and folder):
        known = ", ".join([ICD10CM, *(f"{form}:FOLDER" for form in CORPORA)])
        raise InputError(f"task {task!r} is not one of {known}")
