"""The `thanosql` command: SQL and speech statements in, their rows printed.

    thanosql calls.db                     a prompt, where input is a terminal
    thanosql calls.db "LIST MODELS"       statements, as arguments
    thanosql calls.db < script.sql        or as input
    thanosql demo                         use, train and score a recognizer

It is APSW's shell (dot commands, output modes, history), in which every statement runs
through this package's cursor. docs/shell.md is its manual.
"""

from __future__ import annotations

import argparse
import ctypes
import inspect
import os
import sys
from contextlib import closing, nullcontext
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import apsw.ext
import apsw.shell

from thanosql import errors, statements
from thanosql.frontends import completion, interactive, package, words

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from thanosql.driver.connection import Connection
    from thanosql.driver.cursor import Cursor

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # <malloc.h>
_INTRODUCTION = """\
thanosql {version} (SQLite {sqlite})
A statement ends with a semicolon. Enter ".speech" for the speech statements,
".help" for the commands, ".quit" to leave.
"""
_INTERRUPTED, _BROKEN_PIPE = 130, 141  # exit statuses: 128 + the signal's number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    _keep_freed_memory()
    if arguments[:1] == ["demo"]:
        from thanosql.frontends import demo

        return demo.main(arguments[1:])
    chosen = _parser().parse_intermixed_args(arguments)
    try:
        with interactive.short_warnings(sys.stderr.write):
            _run(chosen)
            sys.stdout.flush()
    except KeyboardInterrupt as stop:
        print(f"thanosql: {stop or 'interrupted'}", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # Nobody reads on. Without this, Python would report an error when it flushes
        # stdout at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except (errors.Error, apsw.Error, apsw.shell.Shell.Error, OSError) as error:
        if not getattr(error, "_handle_exception_saw_this", False):
            print(f"thanosql: {error}", file=sys.stderr)
        return 1
    return 0


def _keep_freed_memory() -> None:
    """Have glibc keep up to 1 GiB of freed memory, for the next step of a training.

    Otherwise it gives large tensors back to the system, which must clear their pages
    for each step (docs/experiments.md says what that costs). Only the command does
    this; a program that embeds the package decides for itself.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 1 << 30)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="thanosql",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit status: 0 if all went well, 1 after an error (a script stops at "
        "its first), 2 for wrong arguments, 130 after an interrupt.",
    )
    parser.add_argument("--version", action="version", version=package().__version__)
    parser.add_argument(
        "-c",
        dest="commands",
        metavar="STATEMENT",
        action="append",
        default=[],
        help="run a statement or dot command; may be given several times",
    )
    modes = sorted(name[7:] for name in dir(Shell) if name.startswith("output_"))
    parser.add_argument(
        "--mode",
        metavar="MODE",
        choices=modes,
        help=f"how rows are printed: {', '.join(modes)}; box on a terminal, else list",
    )
    parser.add_argument(
        "--header", action="store_true", help="print the columns' names in any mode"
    )
    parser.add_argument(
        "--audio-root",
        metavar="DIR",
        help="where relative audio paths start, and what no path may lead out of",
    )
    parser.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="the Ray cluster for statements with the option workers",
    )
    parser.add_argument(
        "database", nargs="?", default="", help="a SQLite file; none: in memory"
    )
    parser.add_argument(
        "statements", nargs="*", help="statements or dot commands to run"
    )
    return parser


def _run(chosen: argparse.Namespace) -> None:
    places = chosen.audio_root, chosen.ray_address
    connection = interactive.connect(chosen.database or ":memory:", *places)
    shell = Shell(db=connection.apsw)
    shell.audio_root, shell.ray_address = places
    with closing(connection):
        commands = [*chosen.commands, *chosen.statements]
        if commands:
            shell.interactive = False
        # A script ends at its first error; a person tries again.
        shell.bail = not shell.interactive
        if chosen.mode:
            shell.command_mode([chosen.mode])
        shell.header = shell.header or chosen.header
        for command in commands:
            shell.process_complete_line(command)
        if not commands:
            shell.cmdloop(
                _INTRODUCTION.format(
                    version=package().__version__, sqlite=apsw.sqlite_lib_version()
                )
            )


class Shell(apsw.shell.Shell):  # type: ignore[misc, unused-ignore]
    """APSW's shell, whose statements run through a cursor of this package."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.history_file = "~/.thanosql_history"
        self.prompt = "thanosql> "
        self.moreprompt = "     ...> "
        if os.environ.get("NO_COLOR"):
            self.command_colour(["off"])
        self.audio_root: str | None = None
        self.ray_address: str | None = None
        self._connection: Connection | None = None
        self._lines: list[str] = []  # of the statement that is being entered

    @property
    def connection(self) -> Connection:
        """The connection over APSW's own one, which dot commands may change."""
        if self._connection is None or self._connection.apsw is not self.db:
            self._connection = interactive.connect(
                self.db, self.audio_root, self.ray_address
            )
        return self._connection

    # Statements

    def process_sql(
        self,
        sql: str,
        bindings: Mapping[str, Any] | None = None,
        internal: bool = False,
        summary: tuple[str, str] | None = None,
    ) -> None:
        """Run statements and print their rows; those of dot commands, APSW runs."""
        if internal:
            super().process_sql(sql, bindings, internal, summary)
            return
        before = self.db.total_changes()
        for statement in interactive.split(sql):
            if self.echo:
                self.write_error(f"{statement.strip()}\n")
            with (
                self._timed(),
                closing(self.connection.cursor()) as cursor,
                interactive.explaining(self.connection, statement),
            ):
                self._print(cursor.execute(statement, bindings or self.bindings))
        changes = self.db.total_changes() - before
        if self.changes and changes:
            total = self.db.total_changes()
            self.write(self.stdout, f"changes: {changes}\ttotal changes: {total}\n")

    def _print(self, cursor: Cursor) -> None:
        """Print a cursor's rows in the mode that is set, one by one if the mode can."""
        if cursor.description is None:
            return
        names = tuple(column[0] for column in cursor.description)
        if getattr(self.output, "all_at_once", False):
            rows = words.readable(names, cursor.fetchall())
            if rows:
                self.output(names, rows)
            return
        # As APSW does: some modes want to know which row is the last.
        parameter = list(inspect.signature(self.output).parameters.values())[1]
        takes_place = parameter.annotation == "Shell.Row"
        for row in self.PositionRow(_Described(cursor, names)):
            if row.is_first:
                self.output(True, names)
            self.output(False, row if takes_place else row.row)

    def _timed(self) -> Any:
        if not self.timer:
            return nullcontext()
        return apsw.ext.ShowResourceUsage(self.stderr, db=self.db, scope="thread")

    # The prompt

    def get_line(self, prompt: str = "") -> str | None:
        """Read a line; the end of a script also ends its last statement."""
        if self._completion_first:
            self._lines = []
        line: str | None = super().get_line(prompt)
        if (
            line is None
            and self._lines[-1:] not in ([], [";"])
            and not self.interactive
        ):
            line = ";"
        if line is not None:
            self._lines.append(line)
        return line

    def complete_sql(self, line: str, token: str, beg: int, end: int) -> list[str]:
        """Return what may stand at the end of what was typed."""
        before = "\n".join((*self._lines, line[:end]))
        found = completion.in_context(self.connection, before)
        if found is None:
            found = completion.beginnings(before)
            found += super().complete_sql(line, token, beg, end)
        return found

    def handle_interrupt(self) -> None:
        """Go back to the prompt; in a script, raise again."""
        if self.bail or not self.interactive:
            raise  # what APSW is handling where it calls this
        self.write(self.stderr, f"{sys.exc_info()[1]}\n")

    def handle_exception(self) -> None:
        """Print the error; if nobody reads the output, raise again."""
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            raise  # what APSW is handling where it calls this
        super().handle_exception()

    # Dot commands, whose help is their docstring

    def command_speech(self, cmd: Sequence[str]) -> None:
        """speech ?STATEMENT?: Shows the speech statements, or the options of one

        The statement is given by its first words: .speech build model
        """
        wanted = " ".join(cmd).upper()
        if not wanted:
            for node in statements.Node.__subclasses__():
                self.write(self.stdout, f"{inspect.getdoc(node)}\n")
            return
        known = completion.OPTIONS
        found = [each for each in known if each.startswith(wanted)]
        if not found:
            message = f"no statement {wanted} has options; {', '.join(known)} have"
            raise self.Error(message)
        for statement in found:
            self.write(self.stdout, f"{statement}\n")
            for field in fields(known[statement]):
                about = field.metadata
                default = "" if field.default is None else f" [{field.default}]"
                self.write(
                    self.stdout,
                    f"  {field.name:<24}{about['doc']}: {about['accepts']}{default}\n",
                )


class _Described:
    """A cursor with the methods that APSW's shell calls on one."""

    def __init__(self, cursor: Cursor, names: Sequence[str]) -> None:
        self._cursor = cursor
        self._names = names

    def get_description(self) -> list[tuple[str, None]]:
        return [(name, None) for name in self._names]

    def __next__(self) -> Any:
        return next(self._cursor)
