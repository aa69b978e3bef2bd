"""Label spaces: labels with id, text and taxonomy clusters."""

from workbench.labels.icd10cm import load_icd10cm
from workbench.labels.space import Label, LabelSpace

__all__ = ["Label", "LabelSpace", "load_icd10cm"]
