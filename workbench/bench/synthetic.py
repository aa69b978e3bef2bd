"""Made-up folders of exactly the real shape, for tests and for measuring sizes.

    python -m workbench.bench.synthetic --kind xmc --out F --documents 48 --labels 64 --seed 0
    python -m workbench.bench.synthetic --kind mimic4 --out F --documents 48 --labels 48 --seed 0

XMC: titles are an entity in one of the patterns that encyclopedias have ("X", "History of X"), so
near misses share their entity; entities are made of words drawn by Zipf's law. A document quotes
the titles of its labels.
MIMIC-IV: real ICD codes, invented admissions. A note mentions its codes in the words that
`mention` gives them; nothing in it is taken from any note. Every third admission is coded in ICD-9.
"""

import argparse
import io
import json
import random
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from workbench.bench.made_folders import (
    MIMIC_FILES,
    TABLES,
    Row,
    admission,
    empty_place,
    note_row,
    write_mimic_tables,
    writing,
)
from workbench.bench.synthetic_titles import SENTENCE_WORDS, sentences, zipf, zipf_titles
from workbench.errors import InputError
from workbench.labels.icd10cm import load_icd10cm
from workbench.labels.space import Label
from workbench.prompts.shorthand import write_shorthand

Mention = Callable[[str, random.Random], str]
"""Words of a label and a random source → how a note mentions it."""

_LABELS_OF_A_DOCUMENT = (0.45, 0.25, 0.15, 0.1, 0.05)  # one to five


def write_xmc(
    folder: str | Path,
    *,
    documents: int = 48,
    labels: int = 64,
    seed: int = 0,
    words: int = 48,
    test_share: float = 0.25,
) -> Path:
    """An XMC folder: lbl, trn and tst as `.json.gz`, and both filter files.

    A document's content has `words` words in whole sentences of 12, besides the quoted titles; the
    test file has `test_share` as many documents as the training file.

    Raises:
        InputError: a count below 1, or one of the files exists.
    """
    folder = empty_place(folder, ["lbl.json.gz", "trn.json.gz", "tst.json.gz"], documents, labels)
    titles = zipf_titles(labels, seed=seed)
    with writing(folder / "lbl.json.gz") as out:
        for number, title in enumerate(titles):
            out.write(json.dumps({"uid": _uid(number), "title": title}) + "\n")
    sizes = {"train": documents, "test": max(1, round(documents * test_share))}
    first = labels
    for split, stem in (("train", "trn"), ("test", "tst")):
        rng = np.random.default_rng([seed, first])
        filters = folder / f"filter_labels_{split}.txt"
        with writing(folder / f"{stem}.json.gz") as out, writing(filters) as pairs:
            _write_documents(out, pairs, sizes[split], first, titles, words, rng)
        first += sizes[split]
    return folder


def _write_documents(
    out: io.TextIOWrapper,
    pairs: io.TextIOWrapper,
    n: int,
    first: int,
    titles: Sequence[str],
    words: int,
    rng: np.random.Generator,
) -> None:
    pool = sentences(4096, rng)
    own_titles = zipf_titles(n, seed=int(rng.integers(2**31)))
    counts = rng.choice(len(_LABELS_OF_A_DOCUMENT), size=n, p=_LABELS_OF_A_DOCUMENT) + 1
    drawn = zipf(n * int(counts.max()), len(titles), rng).reshape(n, -1)
    texts = rng.integers(len(pool), size=(n, max(1, words // SENTENCE_WORDS)))
    is_label = rng.random(n) < 0.05
    for document in range(n):
        targets = list(dict.fromkeys(drawn[document, : counts[document]].tolist()))
        uid, title = _uid(first + document), own_titles[document]
        parts = [pool[sentence] for sentence in texts[document].tolist()]
        for place, target in enumerate(targets):
            parts.insert(2 * place + 1, f"It is often read beside {titles[target]}.")
        if is_label[document]:  # the article itself is a label: the pair is to be filtered out
            title = titles[targets[0]]
            pairs.write(f"{document} {targets[0]}\n")
        row = {"uid": uid, "title": title, "content": " ".join(parts)}
        row |= {"target_ind": targets, "target_rel": [1.0] * len(targets)}
        out.write(json.dumps(row) + "\n")


def _uid(number: int) -> str:
    return str(1_000_000 + number)


_ICD10_PROCEDURES = (
    ("02HV33Z", "Insertion of Infusion Device into Superior Vena Cava, Percutaneous Approach"),
    (
        "02HW33Z",
        "Insertion of Infusion Device into Thoracic Aorta, Descending, Percutaneous Approach",
    ),
    ("0DTJ4ZZ", "Resection of Appendix, Percutaneous Endoscopic Approach"),
    ("0DTJ0ZZ", "Resection of Appendix, Open Approach"),
    ("5A1945Z", "Respiratory Ventilation, 24-96 Consecutive Hours"),
    ("5A1955Z", "Respiratory Ventilation, Greater than 96 Consecutive Hours"),
    ("B2111ZZ", "Fluoroscopy of Multiple Coronary Arteries using Low Osmolar Contrast"),
)
_ICD9_DIAGNOSES = (
    ("0030", "Salmonella gastroenteritis"),
    ("042", "Human immunodeficiency virus [HIV] disease"),
    (
        "25000",
        "Diabetes mellitus without mention of complication, type II or unspecified type, "
        "not stated as uncontrolled",
    ),
    (
        "25002",
        "Diabetes mellitus without mention of complication, type II or unspecified type, "
        "uncontrolled",
    ),
    ("4019", "Unspecified essential hypertension"),
    ("4280", "Congestive heart failure, unspecified"),
    ("E8801", "Accidental fall on or from sidewalk curb"),
    ("E8809", "Accidental fall on or from other stairs or steps"),
    ("V5867", "Long-term (current) use of insulin"),
)
_ICD9_PROCEDURES = (
    ("0066", "Percutaneous transluminal coronary angioplasty [PTCA]"),
    ("0331", "Spinal tap"),
    ("3893", "Venous catheterization, not elsewhere classified"),
    ("966", "Enteral infusion of concentrated nutritional substances"),
)
_SAME_LETTERS = "E88.01"  # undotted it is also an ICD-9 code, a fall from a curb
_NOTE = """ \nName:  ___                   Unit No:   ___
 \nAdmission Date:  ___              Discharge Date:   ___
 \nService: MEDICINE
 \nAllergies: \nNo Known Allergies / Adverse Drug Reactions
 \nAttending: ___.
 \nChief Complaint:
"feels unwell"
 \nHistory of Present Illness:
{stay}
 \nDischarge Condition:
{condition}, alert and oriented.
 \nFollowup Instructions:
___
"""
_LEADS = (
    "Pt with {}.",
    "Noted: {}.",
    "Also {}, stable on the ward.",
    "Treated for {}.",
    "{}, s/p {days} days.",
)


def plain_mention(text: str, rng: random.Random) -> str:
    """The label's own words in lower case."""
    return text.lower()


def write_mimic4(
    folder: str | Path,
    *,
    documents: int = 48,
    labels: int = 48,
    seed: int = 0,
    mention: Mention = plain_mention,
) -> Path:
    """A MIMIC-IV folder: `hosp/` and `note/` as `.csv.gz`, and `splits.csv` (`_id`, `split`).

    Documents are discharge notes, one an admission. `labels` counts the described ICD-10-CM codes,
    in groups of siblings; a few ICD-9 and procedure codes come on top.

    Raises:
        InputError: a count below 1, or one of the files exists.
    """
    folder = empty_place(folder, MIMIC_FILES, documents, labels)
    rng = random.Random(seed)
    diagnoses = _icd10_codes(labels, rng)
    by_version = {
        10: ([(label.id.replace(".", ""), label.text) for label in diagnoses], _ICD10_PROCEDURES),
        9: (_ICD9_DIAGNOSES, _ICD9_PROCEDURES),
    }
    rows: dict[str, list[Row]] = {name: [] for name in TABLES}
    for version in (9, 10):
        for table, codes in zip(TABLES, by_version[version], strict=False):
            rows[table] += [(code, version, text) for code, text in codes]
    notes, splits = [], []
    for number in range(documents):
        subject, hadm = admission(number)
        version = 9 if number % 3 == 2 else 10
        chosen = [
            rng.sample(list(codes), min(len(codes), rng.randint(low, 3)))
            for low, codes in zip((1, 0), by_version[version], strict=True)
        ]
        for seq, (code, _) in enumerate(chosen[0], start=1):
            rows["diagnoses_icd"].append((subject, hadm, seq, code, version))
        for seq, (code, _) in enumerate(chosen[1], start=1):
            date = f"2180-05-{1 + number % 28:02}"
            rows["procedures_icd"].append((subject, hadm, seq, date, code, version))
        text = _note([text for codes in chosen for _, text in codes], mention, rng)
        notes.append(note_row(number, text))
        splits.append((hadm, ("train", "train", "val", "test")[number % 4]))
    write_mimic_tables(folder, rows, notes, splits)
    return folder


def _icd10_codes(n: int, rng: random.Random) -> list[Label]:
    """Codes in groups of up to four siblings, and one whose letters ICD-9 uses too."""
    space = load_icd10cm()
    groups = sorted({label.ancestors[0] for label in space})
    rng.shuffle(groups)
    chosen = {_SAME_LETTERS: space[_SAME_LETTERS]} if _SAME_LETTERS in space else {}
    for group in groups:
        members = space.members(group)
        for code in members[:4] if len(members) >= 4 else ():
            chosen[code] = space[code]
        if len(chosen) >= n:
            break
    return sorted(list(chosen.values())[:n], key=lambda label: label.id)


def _note(texts: Iterable[str], mention: Mention, rng: random.Random) -> str:
    lines = [
        rng.choice(_LEADS).format(mention(text, rng), days=rng.randint(1, 9)) for text in texts
    ]
    return _NOTE.format(stay="\n".join(lines), condition=rng.choice(("Stable", "Improved")))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m workbench.bench.synthetic", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--kind", choices=("xmc", "mimic4"), required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder that gets the files")
    parser.add_argument("--documents", type=int, default=48, help="training documents, or notes")
    parser.add_argument("--labels", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--words", type=int, default=48, help="xmc: words of a document")
    given = parser.parse_args(arguments)
    sizes = {"documents": given.documents, "labels": given.labels, "seed": given.seed}
    try:
        if given.kind == "xmc":
            write_xmc(given.out, **sizes, words=given.words)
        else:
            write_mimic4(given.out, **sizes, mention=write_shorthand)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
