"""Where people meet thanosql beside the driver: shell, notebook, SQLAlchemy, pytest."""
