"""Where people meet thanosql beside the driver: the shell command."""
