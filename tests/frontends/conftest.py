"""What the tests of other packages' ways in share."""

import pytest
from sqlalchemy import create_engine
from sqlalchemy.dialects import registry

# Where thanosql is installed, its entry points have done it.
for _name in ("thanosql", "sqlite.thanosql"):
    registry.register(_name, "thanosql.frontends.sqlalchemy", "ThanosqlDialect")


@pytest.fixture
def engine(thanosql_trained, thanosql_path):
    """Return an engine on a file with table spoken (60 rows) and model tiny."""
    engine = create_engine(f"thanosql:///{thanosql_path}")
    yield engine
    engine.dispose()


@pytest.fixture
def spoken(thanosql_trained):
    return thanosql_trained.execute("SELECT text FROM spoken").fetchall()


class Counter:
    """An SQL function seen(x) that returns x, and counts how often it was called."""

    def __init__(self):
        self.count = 0

    def add_to(self, connection):
        connection.apsw.create_scalar_function("seen", self, 1)

    def __call__(self, value):
        self.count += 1
        return value


@pytest.fixture
def seen():
    return Counter()
