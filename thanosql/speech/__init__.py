"""Speech: rows and options in, a trained model, transcripts or scores out.

This list is all that other packages may import from `speech`. Nothing in it knows SQL.
"""

from thanosql.speech.aligning import align
from thanosql.speech.dropped import warn_of_dropped
from thanosql.speech.fitting import (
    Material,
    checkpointed_epochs,
    checkup,
    chosen,
    estimated_seconds,
    parameter_counts,
    prepare,
    train,
)
from thanosql.speech.language_models import (
    build_language_model,
    export_arpa,
    import_arpa,
    language_model_facts,
    open_language_model,
)
from thanosql.speech.listening import Scorer, copied, transcribe
from thanosql.speech.loading import (
    StoredFiles,
    check_adapter,
    import_adapter,
    import_base,
    loaded,
    modelling_files,
    open_base,
    open_encoder,
    open_stored,
    package_files,
    save_adapter,
    set_threads,
)
from thanosql.speech.peers import PeerLostError, Seat
from thanosql.speech.recording import FileCopy, Recording
from thanosql.speech.sharing import (
    Plan,
    checkpoints,
    load_parcel,
    packed,
    plan,
    save_parcel,
    take_weights,
    train_share,
)
from thanosql.speech.sound.files import open_file
from thanosql.speech.sound.headers import inspect, inspect_folder

__all__ = [
    # open a stored model or a base as a recognizer
    "StoredFiles",
    "open_stored",
    "open_encoder",
    "loaded",
    "open_base",
    "import_base",
    "modelling_files",
    "set_threads",
    "package_files",
    # adapters, which are stored without the weights of their base
    "import_adapter",
    "check_adapter",
    "save_adapter",
    # make and open language models
    "build_language_model",
    "open_language_model",
    "language_model_facts",
    "import_arpa",
    "export_arpa",
    # turn recordings into transcripts, and transcripts into scores
    "Recording",
    "FileCopy",
    "copied",
    "transcribe",
    "Scorer",
    "warn_of_dropped",
    # find when the words of a known text were said
    "align",
    # turn rows into a trained model
    "Material",
    "prepare",
    "chosen",
    "checkup",
    "parameter_counts",
    "estimated_seconds",
    "train",
    "checkpointed_epochs",
    # share a training among processes
    "Plan",
    "plan",
    "packed",
    "Seat",
    "train_share",
    "PeerLostError",
    "checkpoints",
    "load_parcel",
    "save_parcel",
    "take_weights",
    # open audio files and read their headers
    "open_file",
    "inspect",
    "inspect_folder",
]
