"""SQLAlchemy's tests for dialects that others write; `compare.py` runs them."""

from sqlalchemy.testing.suite import *  # noqa: F403
