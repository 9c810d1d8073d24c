"""Known datasets: a name in, what it is and where it is downloaded from out.

The checksums of OpenSLR's resource 12 are torchaudio's, those of resource 31 OpenSLR's
own, that of the digits what TensorFlow Datasets has for the same release. Hours and
sizes are rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from thanosql import errors
from thanosql.catalog.datasets.layouts import Utterance, digits, librispeech

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

__all__ = ["DATASETS", "Archive", "Dataset", "Utterance", "find"]


@dataclass(frozen=True, slots=True)
class Archive:
    """A tar file at its public home."""

    home: str
    "The URL of the folder it lies in."
    file: str
    "Its name there, and on a mirror."
    directory: str
    "Name of the folder in the cache that it is unpacked to."
    digest: str
    "md5:... or sha256:..., of the whole file."
    megabytes: int


@dataclass(frozen=True, slots=True)
class Dataset:
    """Recordings with transcripts, as a table to train on and one to test with."""

    about: str
    language: str
    license: str
    hours: float
    "Of all tables."
    train_table: str
    test_table: str
    train: Archive | None = None
    "None for what comes with the package: the sample's database of the same name."
    test: Archive | None = None
    "The same archive as `train` if that holds both."
    read: Callable[[Path, str], Iterator[Utterance]] = librispeech
    "Yields the utterances of `train` or `test` below a folder."
    people_table: str | None = None
    "Read by people, where synthesizers read what is to train on and to test with."

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of all its tables."""
        people = () if self.people_table is None else (self.people_table,)
        return (self.train_table, self.test_table, *people)

    @property
    def archives(self) -> tuple[Archive, ...]:
        """What is to be downloaded, each once."""
        return tuple(dict.fromkeys(a for a in (self.train, self.test) if a is not None))


def _slr(resource: int, name: str, digest: str, megabytes: int) -> Archive:
    return Archive(
        f"https://www.openslr.org/resources/{resource}",
        f"{name}.tar.gz",
        f"librispeech-{name}",
        digest,
        megabytes,
    )


_DEV_CLEAN = _slr(
    12,
    "dev-clean",
    "sha256:76f87d090650617fca0cac8f88b9416e0ebf80350acb97b343a85fa903728ab3",
    337,
)
_DEV_OTHER = _slr(
    12,
    "dev-other",
    "sha256:12661c48e8c3fe1de2c1caa4c3e135193bfb1811584f11f569dd12645aa84365",
    314,
)
_TEST_CLEAN = _slr(
    12,
    "test-clean",
    "sha256:39fde525e59672dc6d1551919b1478f724438a95aa55f874b576be21967e6c23",
    346,
)
_TEST_OTHER = _slr(
    12,
    "test-other",
    "sha256:d09c181bba5cf717b3dee7d4d592af11a3ee3a09e08ae025c5506f6ebe961c29",
    328,
)
_TRAIN_CLEAN_100 = _slr(
    12,
    "train-clean-100",
    "sha256:d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2",
    6_300,
)
_TRAIN_CLEAN_360 = _slr(
    12,
    "train-clean-360",
    "sha256:146a56496217e96c14334a160df97fffedd6e0a04e66b9c5af0d40be3c792ecf",
    23_000,
)
_TRAIN_OTHER_500 = _slr(
    12,
    "train-other-500",
    "sha256:ddb22f27f96ec163645d53215559df6aa36515f26e01dd70798188350adcb6d2",
    30_000,
)
_TRAIN_CLEAN_5 = _slr(31, "train-clean-5", "md5:5df7d4e78065366204ca6845bb08f490", 333)
_DEV_CLEAN_2 = _slr(31, "dev-clean-2", "md5:6d7ab67ac6a1d2c993d050e16d61080d", 126)
_DIGITS = Archive(
    "https://github.com/Jakobovski/free-spoken-digit-dataset/archive",
    "v1.0.9.tar.gz",
    "free-spoken-digit-dataset-1.0.9",
    "sha256:8bc44cde129d505cbbb6b365c09f80c663f2aa77578afc634e6141a2f87100c0",
    12,
)


def _librispeech(
    name: str, hours: float, train: Archive, test: Archive, about: str = ""
) -> Dataset:
    what = about or "LibriSpeech"
    what += f": {train.file.removesuffix('.tar.gz')} and "
    what += test.file.removesuffix(".tar.gz")
    return Dataset(
        what, "en", "CC-BY-4.0", hours, f"{name}_train", f"{name}_test", train, test
    )


DATASETS: Mapping[str, Dataset] = {
    "readings": Dataset(
        "sentences of novels, read by synthesizers, and some by a person; "
        "comes with the package",
        "en",
        "Apache-2.0, public domain",
        0.1,
        "readings_train",
        "readings_test",
        people_table="readings_people",
    ),
    "sample": Dataset(
        "everyday commands, spoken by synthesizers; comes with the package",
        "en",
        "Apache-2.0",
        0.2,
        "commands_train",
        "commands_test",
    ),
    "fsdd": Dataset(
        "Free Spoken Digit Dataset: zero to nine, five speakers, 8 kHz",
        "en",
        "CC-BY-SA-4.0",
        0.3,
        "fsdd_train",
        "fsdd_test",
        _DIGITS,
        _DIGITS,
        digits,
    ),
    "librispeech_data": _librispeech(
        "librispeech", 7, _TRAIN_CLEAN_5, _DEV_CLEAN_2, "Mini LibriSpeech"
    ),
    "librispeech_dev_clean": _librispeech(
        "librispeech_dev_clean", 11, _DEV_CLEAN, _TEST_CLEAN
    ),
    "librispeech_dev_other": _librispeech(
        "librispeech_dev_other", 10, _DEV_OTHER, _TEST_OTHER
    ),
    "librispeech_clean_100": _librispeech(
        "librispeech_clean_100", 106, _TRAIN_CLEAN_100, _TEST_CLEAN
    ),
    "librispeech_clean_360": _librispeech(
        "librispeech_clean_360", 369, _TRAIN_CLEAN_360, _TEST_CLEAN
    ),
    "librispeech_other_500": _librispeech(
        "librispeech_other_500", 502, _TRAIN_OTHER_500, _TEST_OTHER
    ),
}


ALIASES: Mapping[str, str] = {"librispeech": "librispeech_data"}
"Other names that datasets are found by."


def find(name: str) -> tuple[str, Dataset]:
    """Return the name as written here, and the dataset that has it, in any case."""
    wanted = name.casefold()
    wanted = ALIASES.get(wanted, wanted)
    for known, dataset in DATASETS.items():
        if known.casefold() == wanted:
            return known, dataset
    hint = errors.nearest(name, DATASETS) or f"; known are {', '.join(DATASETS)}"
    message = f"no dataset named {name!r}{hint}"
    raise errors.ProgrammingError(message)
