"""A model's files as rows of `thanosql_files`."""

import torch
from safetensors.torch import load_file
from toys import fine_tuned

from thanosql import speech
from thanosql.store import files, models


def test_a_model_of_many_chunks_is_read_whole(connection, tmp_path):
    path = fine_tuned(tmp_path, intermediate_size=70_000) / "model.safetensors"
    connection.execute("IMPORT MODEL m FROM ?", (str(tmp_path),))
    sizes = connection.execute(
        "SELECT length(data) FROM thanosql_files WHERE path = ? ORDER BY chunk",
        (path.name,),
    ).fetchall()
    assert sizes[:-1] == [(files.CHUNK,)] * 2
    stored = models.ModelStore(connection.apsw)
    model = stored.get("m")
    opened = speech.open_stored(
        speech.StoredFiles(
            model.sha256,
            lambda: stored.read_settings(model),
            lambda: stored.read(model),
        )
    )
    expected, found = load_file(path), opened.model.state_dict()
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor)
