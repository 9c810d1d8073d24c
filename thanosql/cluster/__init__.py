"""Ray: recordings in, transcripts or a trained model out, by one machine or many.

This list is all that other packages may import from `cluster`. To import it imports
nothing of Ray.
"""

from thanosql.cluster.session import Session
from thanosql.cluster.training import train, training_device
from thanosql.cluster.transcription import transcribe

__all__ = ["Session", "train", "training_device", "transcribe"]
