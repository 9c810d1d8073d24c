"""Long work: what BUILD, PREDICT and EVALUATE do with a model; the door to `speech`.

Rows and options in, a trained model, transcripts or scores out. Nothing here knows SQL.
"""

from thanosql.speech.dropped import warn_of_dropped
from thanosql.speech.fitting import (
    Material,
    checkpointed_epochs,
    checkup,
    estimated_seconds,
    prepare,
    train,
)
from thanosql.speech.listening import Scorer, transcribe
from thanosql.speech.loading import (
    StoredFiles,
    import_base,
    loaded,
    open_base,
    open_stored,
)
from thanosql.speech.sound.files import open_file
from thanosql.speech.sound.headers import inspect, inspect_folder

__all__ = [
    # a stored model, or a base, to a recognizer
    "StoredFiles",
    "open_stored",
    "loaded",
    "open_base",
    "import_base",
    # recordings to transcripts and scores
    "transcribe",
    "Scorer",
    "warn_of_dropped",
    # rows to a trained model
    "Material",
    "prepare",
    "checkup",
    "estimated_seconds",
    "train",
    "checkpointed_epochs",
    # paths to what recordings are
    "open_file",
    "inspect",
    "inspect_folder",
]
