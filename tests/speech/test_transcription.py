from __future__ import annotations

import io
import threading
from contextlib import closing

import numpy as np
import pytest
import soundfile
import torch
from tones import spoken
from toys import transcriptions, wav2vec2

from thanosql.errors import AudioError, OptionError
from thanosql.speech.sound.audio import load


def transcribe(recognizer, audio, **options):
    """Yield the texts alone."""
    batches = transcriptions(recognizer, audio, **options)
    with closing(batches):
        for batch in batches:
            yield from (each.text for each in batch)


@pytest.fixture
def recognizer(tmp_path):
    """Return a model of random weights that is never at a loss for a letter."""
    torch.manual_seed(0)
    recognizer = wav2vec2(tmp_path, feat_extract_norm="group", num_hidden_layers=1)
    with torch.no_grad():
        recognizer.model.lm_head.weight.mul_(30)
        recognizer.model.lm_head.bias[:3] = -30
    return recognizer


AUDIO = [audio for audio, _ in spoken(11)]


def test_batched_transcription_equals_one_by_one(recognizer):
    one_by_one = [*transcribe(recognizer, AUDIO, batch_size=1)]
    assert len({*one_by_one}) > 5
    for batch_size in (2, 5, 16):
        assert [*transcribe(recognizer, AUDIO, batch_size=batch_size)] == one_by_one
    backwards = [*transcribe(recognizer, AUDIO[::-1], batch_size=4)]
    assert backwards[::-1] == one_by_one


def test_input_is_read_two_batches_ahead_at_most(recognizer):
    taken = []

    def audio():
        for i, blob in enumerate(AUDIO):
            taken.append(i)
            yield blob

    texts = transcribe(recognizer, audio(), batch_size=2)
    next(texts)
    assert len(taken) == 4
    next(texts)
    assert len(taken) == 4
    texts.close()
    assert not any(t.name.startswith("thanosql") for t in threading.enumerate())


def test_rows_are_read_in_the_calling_thread(recognizer):
    readers = set()

    def audio():
        for blob in AUDIO:
            readers.add(threading.get_ident())
            yield blob

    assert len([*transcribe(recognizer, audio(), batch_size=3)]) == len(AUDIO)
    assert readers == {threading.get_ident()}


def test_a_bad_row_is_named_when_its_batch_is_reached(recognizer, tmp_path):
    (tmp_path / "good.wav").write_bytes(AUDIO[0])
    audio = ["good.wav", AUDIO[1], AUDIO[2], "missing.wav", AUDIO[3]]
    texts = transcribe(recognizer, audio, batch_size=2, root=tmp_path)
    assert len([next(texts), next(texts)]) == 2
    with pytest.raises(AudioError, match=r"^row 4: .*missing\.wav"):
        next(texts)
    with pytest.raises(AudioError, match=r"^row 1: .*NULL"):
        [*transcribe(recognizer, [None], batch_size=2)]


def test_a_recording_too_short_for_a_frame_is_empty_text(recognizer):
    file = io.BytesIO()
    soundfile.write(file, np.zeros(28), 16_000, format="WAV")
    short = file.getvalue()
    audio = [AUDIO[0], short, AUDIO[1]]
    texts = [*transcribe(recognizer, audio, batch_size=3)]
    assert texts[1] == ""
    assert texts[::2] == [*transcribe(recognizer, AUDIO[:2], batch_size=2)]


def test_a_transcription_tells_how_long_its_recording_is(recognizer):
    ((one, two),) = transcriptions(recognizer, AUDIO[:2], batch_size=2)
    assert one.seconds == len(load(AUDIO[0], None)) / 16_000
    assert two.seconds == len(load(AUDIO[1], None)) / 16_000


def test_nothing_in_is_nothing_out(recognizer):
    assert [*transcribe(recognizer, [], batch_size=4)] == []


def test_the_model_is_put_into_evaluation_mode(recognizer):
    recognizer.model.train()
    first = [*transcribe(recognizer, AUDIO, batch_size=4)]
    assert not recognizer.model.training
    assert [*transcribe(recognizer, AUDIO, batch_size=4)] == first


def test_inference_mode_does_not_leak_to_the_caller(recognizer):
    texts = transcribe(recognizer, AUDIO, batch_size=2)
    next(texts)
    assert not torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()
    texts.close()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precisions_transcribe(recognizer, precision):
    texts = transcribe(recognizer, AUDIO, batch_size=4, precision=precision)
    assert len([*texts]) == len(AUDIO)


def test_an_impossible_precision_is_an_option_error(recognizer):
    with pytest.raises(OptionError, match="precision"):
        next(transcribe(recognizer, AUDIO, batch_size=4, precision="fp64"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_in_fp32_transcribes_as_a_cpu(recognizer):
    on_cpu = [*transcribe(recognizer, AUDIO, batch_size=4, device="cpu")]
    on_gpu = transcribe(
        recognizer, AUDIO, batch_size=4, device="cuda", precision="fp32"
    )
    assert [*on_gpu] == on_cpu
