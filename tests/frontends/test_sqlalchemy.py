"""The dialect `thanosql://`, through SQLAlchemy itself."""

import datetime
import threading

import pytest
import sqlalchemy
from sqlalchemy import JSON, LargeBinary, func, select, text
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import thanosql

PREDICT = "PREDICT USING tiny AS SELECT rowid AS id, audio, text FROM spoken"
BUILD = """BUILD MODEL again USING tiny OPTIONS (max_steps=1, validation=0)
           AS SELECT audio, text FROM spoken LIMIT 4"""


@pytest.fixture
def memory():
    engine = sqlalchemy.create_engine("thanosql://")
    yield engine
    engine.dispose()


def models(engine):
    with engine.connect() as connection:
        return (
            connection.exec_driver_sql("SELECT name FROM (LIST MODELS)").scalars().all()
        )


# Statements


def test_predict_yields_its_rows_through_a_connection(engine):
    with engine.connect() as connection:
        result = connection.exec_driver_sql(PREDICT + " WHERE rowid < ?", (4,))
        assert list(result.keys()) == ["id", "audio", "text", "predicted"]
        rows = result.all()
    assert [row.id for row in rows] == [1, 2, 3]
    assert [row.predicted for row in rows] == [row.text for row in rows]


def test_text_binds_names_in_options_and_query(engine):
    statement = text(
        """
        SELECT count(*), max(note) FROM (
          PREDICT USING tiny OPTIONS (batch_size=:size)
          AS SELECT audio, 'at 12:30, a\\:b' AS note FROM spoken WHERE rowid <= :last)
        """
    )
    with Session(engine) as session:
        row = session.execute(statement, {"size": 2, "last": 3}).one()
    assert tuple(row) == (3, "at 12:30, a:b")


def test_predict_feeds_orm_entities(engine):
    class Base(DeclarativeBase):
        pass

    class Transcript(Base):
        __tablename__ = "transcripts"
        id: Mapped[int] = mapped_column(primary_key=True)
        predicted: Mapped[str]

    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.execute(
            text(
                "INSERT INTO transcripts SELECT id, predicted FROM (PREDICT USING tiny "
                "AS SELECT rowid AS id, audio FROM spoken LIMIT 2)"
            )
        )
        session.commit()
        wanted = session.scalars(
            text("SELECT text FROM spoken ORDER BY rowid LIMIT 2")
        ).all()
        found = session.scalars(select(Transcript).order_by(Transcript.id)).all()
        assert [each.predicted for each in found] == wanted


def test_rows_of_predict_are_read_a_batch_at_a_time(engine, seen):
    with engine.connect() as connection:
        seen.add_to(connection.connection.dbapi_connection)
        result = connection.exec_driver_sql(
            "PREDICT USING tiny OPTIONS (batch_size=2) "
            "AS SELECT audio, seen(text) AS text FROM spoken"
        )
        assert len(result.fetchmany(2)) == 2
        assert seen.count < 20
        assert len(result.fetchall()) == 58
        assert seen.count == 60


def test_errors_are_sqlalchemys_around_ours(engine):
    with engine.connect() as connection:
        with pytest.raises(sqlalchemy.exc.ProgrammingError) as caught:
            connection.exec_driver_sql("PREDICT USING tini AS SELECT 1 AS audio")
        assert isinstance(caught.value.orig, thanosql.ModelNotFoundError)
        assert "did you mean 'tiny'?" in str(caught.value)
        connection.exec_driver_sql("CREATE TABLE once (a UNIQUE)")
        connection.exec_driver_sql("INSERT INTO once VALUES (1)")
        with pytest.raises(sqlalchemy.exc.IntegrityError, match="UNIQUE"):
            connection.exec_driver_sql("INSERT INTO once VALUES (1)")


# Transactions


def fail_after(engine, *statements):
    """Execute statements in a block that an exception ends."""
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
        raise ZeroDivisionError


def test_a_model_built_in_a_block_of_its_own_stays(engine):
    with pytest.raises(ZeroDivisionError):
        fail_after(engine, BUILD)
    assert models(engine) == ["again", "tiny"]


def test_a_model_built_after_a_write_goes_with_it(engine):
    with (
        pytest.raises(ZeroDivisionError),
        pytest.warns(thanosql.Warning, match="commit"),
    ):
        fail_after(engine, "DELETE FROM spoken WHERE rowid > 50", BUILD)
    assert models(engine) == ["tiny"]


def test_with_autocommit_false_a_block_is_a_transaction(engine):
    strict = sqlalchemy.create_engine(engine.url, connect_args={"autocommit": False})
    with pytest.raises(ZeroDivisionError):
        fail_after(strict, BUILD)
    assert models(engine) == ["tiny"]
    with strict.begin() as connection:
        connection.exec_driver_sql(BUILD)
    strict.dispose()
    assert models(engine) == ["again", "tiny"]


def test_isolation_levels_are_those_of_sqlite(memory):
    with memory.connect() as connection:
        assert connection.get_isolation_level() == "SERIALIZABLE"
    with memory.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("CREATE TABLE t (a)")
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")
        assert not connection.connection.dbapi_connection.in_transaction
    with memory.connect().execution_options(
        isolation_level="READ UNCOMMITTED"
    ) as connection:
        assert connection.exec_driver_sql("PRAGMA read_uncommitted").scalar() == 1


# Reflection


def test_reflection_hides_the_tables_of_models(engine):
    inspector = sqlalchemy.inspect(engine)
    assert inspector.get_table_names() == ["spoken"]
    assert inspector.get_table_names(schema="main") == ["spoken"]
    assert not inspector.has_table("thanosql_models")
    assert not inspector.has_table("THANOSQL_models")
    assert inspector.has_table("spoken")
    metadata = sqlalchemy.MetaData()
    metadata.reflect(engine)
    assert list(metadata.tables) == ["spoken"]


def test_reflection_shows_the_tables_of_models_if_the_url_asks(engine):
    url = engine.url.update_query_dict({"model_tables": "true"})
    shown = sqlalchemy.create_engine(url)
    inspector = sqlalchemy.inspect(shown)
    assert set(inspector.get_table_names()) > {"spoken", "thanosql_models"}
    assert inspector.has_table("thanosql_models")
    shown.dispose()


def test_a_hidden_table_can_be_named(engine):
    table = sqlalchemy.Table(
        "thanosql_models", sqlalchemy.MetaData(), autoload_with=engine
    )
    with engine.connect() as connection:
        assert connection.scalars(select(table.c.name)).all() == ["tiny"]


# URLs and pools


def test_a_url_gives_connect_its_arguments(thanosql_trained, thanosql_path, tmp_path):
    engine = sqlalchemy.create_engine(
        f"thanosql:///{thanosql_path}?timeout=0.25&isolation_level=IMMEDIATE"
        f"&cached_statements=5&audio_root={tmp_path}"
    )
    with engine.connect() as connection:
        ours = connection.connection.dbapi_connection
        assert (ours.isolation_level, ours.audio_root) == ("IMMEDIATE", str(tmp_path))
    engine.dispose()


def test_a_url_may_be_one_of_sqlites(thanosql_trained, thanosql_path):
    engine = sqlalchemy.create_engine(
        f"thanosql:///file:{thanosql_path}?mode=ro&uri=true"
    )
    with (
        engine.connect() as connection,
        pytest.raises(sqlalchemy.exc.OperationalError, match="readonly"),
    ):
        connection.exec_driver_sql("DELETE FROM spoken")
    engine.dispose()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("thanosql:///calls.db?time_out=3", "unknown in a thanosql URL: time_out"),
        ("thanosql://host/calls.db", "names a file, not a host"),
    ],
)
def test_a_url_that_cannot_be_is_refused(url, message):
    with pytest.raises(sqlalchemy.exc.ArgumentError, match=message):
        sqlalchemy.create_engine(url)


def test_pools_are_those_of_sqlalchemys_own_sqlite(engine, memory):
    assert isinstance(memory.pool, sqlalchemy.pool.SingletonThreadPool)
    assert isinstance(engine.pool, sqlalchemy.pool.QueuePool)


def test_threads_share_a_pool(engine, spoken):
    counts = []

    def work():
        with engine.connect() as connection:
            counts.append(connection.scalar(text("SELECT count(*) FROM spoken")))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [len(spoken)] * 8


def test_a_closed_connection_is_replaced(engine):
    with engine.connect() as connection:
        connection.connection.dbapi_connection.close()
        with pytest.raises(sqlalchemy.exc.ProgrammingError) as caught:
            connection.exec_driver_sql("SELECT 1")
        assert caught.value.connection_invalidated
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1


# What people use SQLAlchemy's own SQLite dialect for


def test_it_is_sqlites_dialect_by_name(memory):
    assert (memory.dialect.name, memory.dialect.driver) == ("sqlite", "thanosql")
    assert sqlalchemy.create_engine("sqlite+thanosql://").dialect.driver == "thanosql"


def test_values_come_back_as_they_were(memory):
    class Base(DeclarativeBase):
        pass

    class Call(Base):
        __tablename__ = "calls"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(unique=True)
        at: Mapped[datetime.datetime]
        day: Mapped[datetime.date]
        facts = mapped_column(JSON)
        audio = mapped_column(LargeBinary)

    Base.metadata.create_all(memory)
    values = {
        "name": "first",
        "at": datetime.datetime(2026, 11, 23, 8, 21, 48, 5),
        "day": datetime.date(2026, 11, 23),
        "facts": {"agents": ["a", None], "ok": True},
        "audio": b"\0RIFF",
    }
    with Session(memory) as session:
        session.add(Call(**values))
        session.commit()
        found = session.scalars(
            select(Call).where(
                Call.name.regexp_match("^f.*t$"), Call.facts["ok"].as_boolean()
            )
        ).one()
        assert {name: getattr(found, name) for name in values} == values
        upsert = insert(Call).values({**values, "audio": b"new"})
        upsert = upsert.on_conflict_do_update(
            index_elements=["name"], set_={"audio": upsert.excluded.audio}
        )
        assert session.execute(upsert.returning(Call.id, Call.audio)).one() == (
            found.id,
            b"new",
        )
        assert session.scalar(select(func.count()).select_from(Call)) == 1
