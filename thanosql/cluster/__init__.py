"""Ray: recordings in, transcripts out, by workers on one machine or many.

This list is all that other packages may import from `cluster`. To import it imports
nothing of Ray.
"""

from thanosql.cluster.session import Session
from thanosql.cluster.transcription import transcribe

__all__ = ["Session", "transcribe"]
