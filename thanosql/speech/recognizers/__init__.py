"""Model families: one recognizer for each."""

from thanosql.speech.libraries import require_libraries

require_libraries()
