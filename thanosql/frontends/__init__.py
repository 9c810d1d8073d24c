"""Where people meet thanosql beside the driver: shell, SQLAlchemy, pytest."""
