"""What users hand in and get: settings and files refused in one line, and writing whole or not."""

from workbench.files.folders import LOCK, alone, alone_in, claim, differences
from workbench.files.reading import (
    file_sha256,
    parse_json,
    read_json,
    read_parquet,
    read_text,
    read_yaml,
)
from workbench.files.refusals import reading, writing
from workbench.files.settings import check_number, settings
from workbench.files.writing import check_writable, make_folder, replacing, write_table, write_text

__all__ = [
    "LOCK",
    "alone",
    "alone_in",
    "check_number",
    "check_writable",
    "claim",
    "differences",
    "file_sha256",
    "make_folder",
    "parse_json",
    "read_json",
    "read_parquet",
    "read_text",
    "read_yaml",
    "reading",
    "replacing",
    "settings",
    "write_table",
    "write_text",
    "writing",
]
