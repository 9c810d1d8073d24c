"""Rows and a recognizer in, a trained recognizer out."""

from thanosql.speech.libraries import require_libraries

require_libraries()
