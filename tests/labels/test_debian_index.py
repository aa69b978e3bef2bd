import gzip
import lzma

import pyarrow as pa
import pytest

from workbench.errors import InputError
from workbench.labels.debian_index import find_index, read_packages, read_release, read_table

PACKAGES = b"""Package: cat
Source: animals (1.2)
Version: 2
Description: small
 animal
Description-md5: aa
Recommends: dog (>= 1) | wolf, mouse:any
Suggests: dog,
 cat-doc [amd64]
Enhances: ${unfilled}

Package: cat
Description: an older cat
Description-md5: aa

Package: dog
Description: barks
Description-md5: bb
"""
TRANSLATION = """Package: cat
Description-md5: aa
Description-en: small animal
 It purrs – and
 sleeps.
 .
  * on tables

Package: dog
Description-md5: other
Description-en: barks
 Not of this version.
""".encode()


def test_packages_with_their_texts_and_the_first_of_alternatives():
    cat, dog = read_packages(PACKAGES, TRANSLATION)
    assert (cat.name, cat.source, cat.short) == ("cat", "animals", "small")
    assert cat.long == "It purrs – and\nsleeps.\n\n * on tables"
    assert cat.related == ("dog", "mouse", "cat-doc")
    assert (dog.source, dog.long, dog.related) == ("dog", "", ())


@pytest.mark.parametrize(
    ("packages", "translation", "said"),
    [
        (b"", TRANSLATION, "names no package"),
        (PACKAGES, b"", "no long description fits"),
        (b"Package: a\nDescription: \xff\n", TRANSLATION, "Packages: line 2 is not UTF-8"),
    ],
)
def test_tables_that_are_none_are_refused(packages, translation, said):
    with pytest.raises(InputError, match=said):
        read_packages(packages, translation)


def test_a_table_is_the_same_however_it_is_packed(tmp_path):
    packed = {
        "plain": PACKAGES,
        "a.gz": gzip.compress(PACKAGES),
        "a.xz": lzma.compress(PACKAGES),
        "a.lz4": _arrow("lz4"),
        "a.zst": _arrow("zstd"),
    }
    for name, content in packed.items():
        (tmp_path / name).write_bytes(content)
    read = {read_table(tmp_path / name) for name in packed}
    assert len(read) == 1 and read.pop()[0] == PACKAGES
    for name, content in packed.items():
        if name != "plain":
            (tmp_path / name).write_bytes(content[:-9] if name == "a.gz" else b"no archive")
            with pytest.raises(InputError, match=f"{name}: broken or cut off"):
                read_table(tmp_path / name)


def _arrow(kind):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, kind) as stream:
        stream.write(PACKAGES)
    return sink.getvalue().to_pybytes()


def lists(folder, *names, origin="Debian"):
    for name in names:
        text = f"Hash: x\nOrigin: {origin}\nDate: d\n" if name.endswith("InRelease") else ""
        (folder / name).write_text(text)
    return folder


SITE = "deb.debian.org_debian_dists_bookworm"


def test_the_whole_suite_of_debian_is_found_among_apts_lists(tmp_path):
    parts = ("main_binary-amd64_Packages.lz4", "main_i18n_Translation-en.lz4", "InRelease")
    for suite in ("", "-updates", "-security"):
        lists(tmp_path, *(f"{SITE}{suite}_{part}" for part in parts))
    other = [f"deb.example.org_dists_cloud_{part}" for part in parts]
    lists(tmp_path, *other, origin="Example")
    found = find_index(tmp_path)
    assert found.packages.name == f"{SITE}_{parts[0]}"
    assert found.translation.name == f"{SITE}_{parts[1]}"
    assert found.release == tmp_path / f"{SITE}_InRelease"
    assert "-updates_" in find_index(tmp_path, suite="bookworm-updates").packages.name
    lists(tmp_path, f"{SITE}_main_binary-i386_Packages")
    with pytest.raises(InputError, match=r"several .* bookworm \(i386\).* --suite and --arch"):
        find_index(tmp_path)
    assert "i386" in find_index(tmp_path, arch="i386").packages.name
    (tmp_path / f"{SITE}_{parts[1]}").unlink()
    with pytest.raises(InputError, match="no long descriptions of bookworm; run apt-get -o"):
        find_index(tmp_path, arch="amd64")


def test_lists_without_an_index_are_refused(tmp_path):
    with pytest.raises(InputError, match="run apt-get update"):
        find_index(tmp_path)
    with pytest.raises(InputError, match="no such folder; give --packages"):
        find_index(tmp_path / "none")


def test_a_release_tells_its_date_and_the_hashes_of_its_tables(tmp_path):
    path = tmp_path / "InRelease"
    told = f"Codename: bookworm\nVersion: 12.15\nDate: Sat\nSHA256:\n {'0' * 64}  12 main/x\n"
    path.write_text(told)
    release = read_release(path)
    assert (release.suite, release.date) == ("bookworm 12.15", "Sat")
    assert release.sha256 == {"main/x": "0" * 64}
    path.write_text("nothing")
    with pytest.raises(InputError, match="no line 'Date"):
        read_release(path)
