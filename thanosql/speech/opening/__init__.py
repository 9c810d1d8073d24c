"""Open models: a base or the files of a stored model in, a recognizer out."""

from thanosql.speech.libraries import require_libraries

require_libraries()
