"""Which Ray a statement uses, and when that ends."""

import subprocess
import sys

import pytest

import thanosql

_STARTED = """
import signal, sys
import thanosql

def ended(*_):
    pass

signal.signal(signal.SIGTERM, ended)
one, two, idle = (thanosql.connect(":memory:") for _ in range(3))
idle.cluster()
assert "ray" not in sys.modules
ray = one.cluster().ray()
two.cluster().ray()
print(signal.getsignal(signal.SIGTERM) is ended)
other = thanosql.connect(":memory:", ray_address="127.0.0.1:1")
try:
    other.cluster().ray()
except thanosql.ProgrammingError as error:
    print(error)
one.close()
print(ray.is_initialized())
two.close()
print(ray.is_initialized())
"""


@pytest.mark.thorough(seconds=6)
def test_a_local_ray_ends_with_the_last_connection_that_uses_it():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _STARTED], capture_output=True, text=True
    )
    assert done.stdout.splitlines() == [
        "True",
        "this process is connected to a Ray of this machine's own already, and cannot "
        "be to the Ray cluster at '127.0.0.1:1', too; close the connections that use "
        "it, or use another process",
        "True",
        "False",
    ], done.stderr
    assert done.stderr == ""


def test_the_programs_own_ray_is_used_and_left_alone(ray):
    with_address = thanosql.connect(":memory:", ray_address="ray://elsewhere:10001")
    assert with_address.cluster().ray() is ray
    with_address.close()
    assert ray.is_initialized()


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:1", "Connection refused"),
        ("ray://127.0.0.1:1", "Connection refused"),
        ("nonsense", "Invalid address format"),
    ],
)
def test_an_address_where_no_cluster_is_ends_the_statement(address, reason):
    # In another process: this one may be connected to a cluster already.
    script = (
        "import sys, thanosql; con = thanosql.connect(':memory:')\n"
        "try: con.cluster().ray()\n"
        "except thanosql.OperationalError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={"RAY_ADDRESS": address},
    )
    assert done.stdout.startswith(f"cannot connect to the Ray cluster at '{address}'")
    assert reason in done.stdout


def test_without_ray_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(thanosql.NotSupportedError, match=r"thanosql-local\[ray\]"):
        thanosql.connect(":memory:").cluster().ray()
