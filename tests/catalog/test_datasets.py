"""GET DATASET and GET MODEL, from a server that stands in for the public homes."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import soundfile

import thanosql
from thanosql.catalog.datasets import DATASETS


def sound(seconds=0.5, kind="FLAC"):
    file = io.BytesIO()
    soundfile.write(file, np.zeros(int(seconds * 8000)), 8000, format=kind)
    return file.getvalue()


def packed(files):
    """Return a tar.gz of {path: content}."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def librispeech(part, speaker):
    chapter = f"LibriSpeech/{part}/{speaker}/7"
    names = [f"{speaker}-7-000{i}" for i in range(3)]
    return packed(
        {
            f"{chapter}/{speaker}-7.trans.txt": "".join(
                f"{name} HE SAID {i}\n" for i, name in enumerate(names)
            ).encode(),
            **{f"{chapter}/{name}.flac": sound(i + 1) for i, name in enumerate(names)},
        }
    )


def digits():
    recordings = "free-spoken-digit-dataset-1.0.9/recordings"
    return packed(
        {
            f"{recordings}/{digit}_{speaker}_{take}.wav": sound(kind="WAV")
            for digit in (0, 9)
            for speaker in ("theo", "jackson")
            for take in (0, 4, 5, 31)
        }
    )


class Home(ThreadingHTTPServer):
    """A server of files, which may break off after some bytes."""

    def __init__(self, files):
        self.files = files
        self.asked = []
        self.breaks_after = None
        self.knows_ranges = True
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        content = self.server.files.get(self.path[1:])
        wanted = self.headers.get("Range")
        self.server.asked.append((self.path, wanted))
        if content is None:
            self.send_error(404)
            return
        start = 0
        if wanted and self.server.knows_ranges:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = self.server.breaks_after
        self.wfile.write(content[start : end or len(content)])

    def log_message(self, *_):
        pass


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Return a home of two datasets; the cache is a folder of the test's own."""
    files = {
        "train-clean-5.tar.gz": librispeech("train-clean-5", 19),
        "dev-clean-2.tar.gz": librispeech("dev-clean-2", 84),
        "v1.0.9.tar.gz": digits(),
    }
    monkeypatch.setenv("THANOSQL_CACHE", str(tmp_path / "cache"))
    home = Home(files)
    for name in ("librispeech_data", "fsdd"):
        dataset = DATASETS[name]
        parts = {
            part: replace(
                archive,
                home=home.url,
                digest=f"sha256:{hashlib.sha256(files[archive.file]).hexdigest()}",
            )
            for part, archive in (("train", dataset.train), ("test", dataset.test))
        }
        monkeypatch.setitem(DATASETS, name, replace(dataset, **parts))
    thread = threading.Thread(target=home.serve_forever, args=(0.01,))
    thread.start()
    yield home
    home.shutdown()
    home.server_close()
    thread.join()


def tables(connection):
    return [row[0] for row in connection.execute("LIST TABLES")]


def test_librispeech_becomes_a_table_to_train_on_and_one_to_test_with(
    connection, home, tmp_path
):
    cursor = connection.execute("GET THANOSQL DATASET librispeech_data")
    assert cursor.fetchall() == [
        ("librispeech_data", "librispeech_train", 3, "librispeech_test", 3)
    ]
    rows = connection.execute("SELECT * FROM librispeech_train").fetchall()
    cache = tmp_path / "cache" / "datasets"
    chapter = cache / "librispeech-train-clean-5/LibriSpeech/train-clean-5/19/7"
    assert rows == [
        (str(chapter / f"19-7-000{i}.flac"), f"he said {i}", "19", i + 1.0)
        for i in range(3)
    ]
    (speaker,) = connection.execute("SELECT speaker FROM librispeech_test").fetchone()
    assert speaker == "84"
    assert sorted(path.name for path in cache.iterdir()) == [
        "librispeech-dev-clean-2",
        "librispeech-train-clean-5",
    ]
    # Again, from the cache: nothing is asked of the home.
    del home.asked[:]
    connection.execute("GET DATASET librispeech_data OPTIONS (overwrite=True)")
    assert home.asked == []
    assert not connection.in_transaction


def test_the_digits_are_parted_as_their_authors_say(connection, home):
    connection.execute("GET DATASET FSDD")
    for part, takes in (("train", ("5", "31")), ("test", ("0", "4"))):
        rows = connection.execute(f"SELECT * FROM fsdd_{part}").fetchall()
        assert len(rows) == 8
        assert {row[1] for row in rows} == {"zero", "nine"}
        assert {row[2] for row in rows} == {"theo", "jackson"}
        assert {row[0].rpartition("_")[2][:-4] for row in rows} == set(takes)
    assert [path for path, _ in home.asked] == ["/v1.0.9.tar.gz"]


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_download_goes_on_where_it_broke_off(connection, home, knows_ranges):
    home.breaks_after = 100
    home.knows_ranges = knows_ranges
    with pytest.raises(
        thanosql.OperationalError, match="connection ended after 100 of"
    ):
        connection.execute("GET DATASET fsdd")
    assert tables(connection) == []
    home.breaks_after = None
    connection.execute("GET DATASET fsdd")
    assert [wanted for _, wanted in home.asked] == [None, "bytes=100-"]
    assert tables(connection) == ["fsdd_test", "fsdd_train"]


def test_a_download_that_was_whole_already_is_only_checked(connection, home, tmp_path):
    part = tmp_path / "cache/datasets/free-spoken-digit-dataset-1.0.9.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(home.files["v1.0.9.tar.gz"])
    connection.execute("GET DATASET fsdd")
    assert not part.exists()
    assert tables(connection) == ["fsdd_test", "fsdd_train"]


def test_a_wrong_checksum_leaves_nothing_behind(connection, home, tmp_path):
    right = home.files["dev-clean-2.tar.gz"]
    home.files["dev-clean-2.tar.gz"] = right[:-1] + b"?"
    with pytest.raises(
        thanosql.DataError, match=r"checksum of dev-clean-2\.tar\.gz is wr"
    ):
        connection.execute("GET DATASET librispeech_data")
    assert tables(connection) == []
    cache = tmp_path / "cache" / "datasets"
    assert [path.name for path in cache.iterdir()] == ["librispeech-train-clean-5"]
    home.files["dev-clean-2.tar.gz"] = right
    connection.execute("GET DATASET librispeech_data")
    assert len(tables(connection)) == 2


@pytest.mark.parametrize(
    "name", ["../outside.txt", "/tmp/thanosql-outside.txt", "a/../../outside.txt"]
)
def test_an_archive_that_reaches_outside_is_refused(
    connection, home, tmp_path, monkeypatch, name
):
    content = packed({name: b"x"})
    home.files["v1.0.9.tar.gz"] = content
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    dataset = DATASETS["fsdd"]
    archive = replace(dataset.train, digest=digest)
    monkeypatch.setitem(DATASETS, "fsdd", replace(dataset, train=archive, test=archive))
    before = set(tmp_path.rglob("*"))
    # An absolute name is taken as one below the folder, which then has no recordings.
    with pytest.raises(
        thanosql.DataError, match=r"cannot be unpacked|laid out otherwise"
    ):
        connection.execute("GET DATASET fsdd")
    assert not [p for p in tmp_path.rglob("outside.txt") if p not in before]
    assert tables(connection) == []


def test_a_dataset_may_come_from_a_mirror_or_a_folder(connection, home, tmp_path):
    for name, content in home.files.items():
        (tmp_path / name).write_bytes(content)
    home.files = {f"mirror/{name}": content for name, content in home.files.items()}
    connection.execute("GET DATASET fsdd OPTIONS (mirror=?)", (f"{home.url}/mirror/",))
    connection.execute(
        "GET DATASET librispeech_data OPTIONS (mirror=?)", (str(tmp_path),)
    )
    assert len(tables(connection)) == 4
    assert (tmp_path / "dev-clean-2.tar.gz").exists()


@pytest.mark.parametrize(
    ("statement", "error", "message"),
    [
        (
            "GET DATASET librispech_data",
            thanosql.ProgrammingError,
            "no dataset named 'librispech_data'; did you mean 'librispeech_data'",
        ),
        (
            "GET DATASET x",
            thanosql.ProgrammingError,
            "known are readings, sample, fsdd",
        ),
        (
            "GET DATASET fsdd OPTIONS (mirror='http://127.0.0.1:9')",
            thanosql.OperationalError,
            r"cannot fetch http://127.0.0.1:9/v1.0.9.tar.gz: .*refused.* set mirror",
        ),
        (
            "GET DATASET fsdd OPTIONS (mirror='no/such')",
            thanosql.OperationalError,
            "the folder 'no/such' has no file 'v1.0.9.tar.gz'",
        ),
        ("GET DATASET sample", thanosql.ProgrammingError, "set overwrite=True"),
        (
            "GET DATASET fsdd OPTIONS (over_write=True)",
            thanosql.OptionError,
            "did you mean 'overwrite'",
        ),
        (
            "GET MODEL Wav2Vec2Em",
            thanosql.ModelNotFoundError,
            "did you mean 'Wav2Vec2En'",
        ),
    ],
)
def test_bad_input_changes_nothing(connection, home, statement, error, message):
    connection.execute("CREATE TABLE commands_test (a)")
    with pytest.raises(error, match=message):
        connection.execute(statement)
    assert tables(connection) == ["commands_test"]
    assert not connection.in_transaction


def test_a_home_without_the_file_says_so(connection, home):
    home.files.clear()
    with pytest.raises(thanosql.OperationalError, match="404 Not Found"):
        connection.execute("GET DATASET fsdd")


def test_the_sample_comes_with_the_package(connection):
    assert connection.execute("GET DATASET sample").fetchall() == [
        ("sample", "commands_train", 216, "commands_test", 56)
    ]
    connection.execute("DELETE FROM commands_test")
    connection.commit()
    connection.execute("GET DATASET sample OPTIONS (overwrite=True)")
    assert connection.execute("SELECT count(*) FROM commands_test").fetchone() == (56,)
    connection.execute("BEGIN")
    connection.execute("GET DATASET sample OPTIONS (overwrite=True)")
    connection.execute("DROP TABLE commands_test")
    connection.rollback()
    assert tables(connection) == ["commands_test", "commands_train"]


def test_the_readings_come_with_the_package_in_three_tables(connection):
    assert connection.execute("GET DATASET readings").fetchall() == [
        ("readings", "readings_train", 96, "readings_test", 20)
    ]
    assert tables(connection) == ["readings_people", "readings_test", "readings_train"]
    connection.execute("DROP TABLE readings_train")
    connection.execute("DROP TABLE readings_test")
    connection.execute("UPDATE readings_people SET text = 'mine'")
    connection.commit()
    with pytest.raises(thanosql.ProgrammingError, match="'readings_people' exists"):
        connection.execute("GET DATASET readings")
    assert tables(connection) == ["readings_people"]
    connection.execute("GET DATASET readings OPTIONS (overwrite=True)")
    assert connection.execute(
        "SELECT count(*) FROM readings_people WHERE text <> 'mine'"
    ).fetchone() == (5,)


def test_mini_librispeech_is_found_by_the_plain_name_too(connection, home):
    assert connection.execute("GET DATASET LibriSpeech").fetchall() == [
        ("librispeech_data", "librispeech_train", 3, "librispeech_test", 3)
    ]
    told = dict(connection.execute("DESCRIBE DATASET librispeech").fetchall())
    assert told["name"] == "librispeech_data"


def test_every_archive_has_a_digest_of_its_algorithms_length():
    for dataset in DATASETS.values():
        for archive in dataset.archives:
            algorithm, _, digest = archive.digest.partition(":")
            assert len(bytes.fromhex(digest)) == hashlib.new(algorithm).digest_size
    names = [archive.directory for d in DATASETS.values() for archive in d.archives]
    homes = {f"{a.home}/{a.file}" for d in DATASETS.values() for a in d.archives}
    assert len(set(names)) == len(homes)


def test_get_model_stores_a_base_as_it_is(connection, base):
    (row,) = connection.execute(f"GET MODEL '{base}' OPTIONS (model_name=m)").fetchall()
    assert row[:3] == ("m", str(base), "Wav2Vec2ForCTC")
    with pytest.raises(thanosql.ModelExistsError):
        connection.execute(f"GET THANOSQL MODEL '{base}' OPTIONS (model_name=m)")
    connection.execute(
        f"GET MODEL '{base}' OPTIONS (model_name='Wav2Vec2En', overwrite=TRUE)"
    )
    # The name of the base is then a stored model's: nothing is fetched.
    facts = dict(connection.execute("DESCRIBE BASE wav2vec2en").fetchall())
    assert facts["stored_as"] == "Wav2Vec2En"
    connection.execute(f"GET MODEL '{base}' OPTIONS (model_name=n)")
    names = {row[0] for row in connection.execute("LIST MODELS")}
    assert names == {"Wav2Vec2En", "m", "n"}


def test_a_base_that_cannot_transcribe_is_no_model_yet(connection):
    with pytest.raises(thanosql.NotSupportedError, match="has no vocabulary"):
        connection.execute("GET MODEL ParakeetTiny")
