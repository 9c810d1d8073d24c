"""Ray: recordings and workers in, transcripts out.

This list is all that other packages may import from `cluster`. To import it imports
nothing of Ray.
"""

from thanosql.cluster.session import Session

__all__ = ["Session"]
