import pytest

from workbench.bench.synthetic import write_mimic4, write_xmc
from workbench.errors import InputError
from workbench.labels.folders import open_corpus


@pytest.fixture
def notes(tmp_path, space, monkeypatch):
    monkeypatch.setattr("workbench.bench.synthetic.load_icd10cm", lambda: space)
    return write_mimic4(tmp_path / "a,b=c", documents=12)


def refused(name: str) -> str:
    with pytest.raises(InputError) as caught:
        open_corpus(name)
    return str(caught.value)


def test_options_behind_a_folder(tmp_path, notes):
    folder = write_xmc(tmp_path / "x")
    assert next(open_corpus(f"xmc:{folder}").documents("train")).text
    assert not next(open_corpus(f"xmc:{folder},titles=yes").documents("train")).text
    kinds = {i.partition(":")[0] for i in open_corpus(f"mimic4:{notes}").label_ids}
    assert kinds == {"icd10cm", "icd10pcs"}
    corpus = open_corpus(f"mimic4:{notes},kinds=procedure,icd=9")
    assert {i.partition(":")[0] for i in corpus.label_ids} == {"icd9pcs"}
    assert corpus.name == "mimic4-icd9-procedure" and corpus.splits == ("train", "val", "test")
    listed = tmp_path / "codes.csv"
    listed.write_text("03.31\n")
    corpus = open_corpus(f"mimic4:{notes},icd=9,codes={listed},splits=splits.csv")
    assert corpus.label_ids == ["icd9pcs:03.31"]


def test_refused_options(tmp_path, notes):
    assert (
        refused(f"xmc:{tmp_path},size=3") == "option 'size=3' behind a folder: titles=… are known"
    )
    assert "option 'icd' behind a folder occurs twice" in refused(f"mimic4:{notes},icd=9,icd=9")
    assert "icd=11: 9 or 10 is needed" in refused(f"mimic4:{notes},icd=11")
    assert "kinds=all: diagnosis or procedure is needed" in refused(f"mimic4:{notes},kinds=all")
    assert "nowhere: no such folder" in refused(f"xmc:{tmp_path / 'nowhere'}")
    assert "no form of documents; xmc, mimic4 are known" in refused("csv:folder")
    (tmp_path / "codes.csv").write_text("X999\n")
    message = refused(f"mimic4:{notes},codes={tmp_path / 'codes.csv'}")
    assert message.endswith("no code of the list of codes is one of ICD-10; none is a label")
