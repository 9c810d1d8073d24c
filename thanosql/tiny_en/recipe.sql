-- What the weights in model/ were trained by: thanosql models.db < recipe.sql, beside the
-- speech.db of make_speech.py and, in a folder `speech`, recordings of people with
-- manifests: audio, text, seconds, speaker, split.

ATTACH 'speech.db' AS s;
COPY clips FROM 'speech/librispeech/manifest.csv';
COPY clips_mp3 FROM 'speech/librispeech_mp3/manifest.csv';
CREATE TABLE s.real AS
SELECT 'speech/librispeech/' || audio AS audio, text, speaker, seconds, split,
       'librispeech' AS source FROM clips
UNION ALL
SELECT 'speech/librispeech_mp3/' || audio, text, speaker, seconds, split,
       'librispeech_mp3' FROM clips_mp3;

-- First short sentences without noise, until letters come right: 20 minutes of one core.
BUILD MODEL tiny_stage1 USING 'base'
OPTIONS (epochs=3, batch_size=10, learning_rate=1e-3, warmup=0.05, time_limit=1200,
         speed_perturbation=TRUE, feature_cache=0,
         validation='SELECT audio, text FROM s.real WHERE split = ''train''
                     AND source = ''librispeech'' AND rowid % 14 = 0')
AS SELECT audio, text FROM s.speech
WHERE NOT held_out AND seconds BETWEEN 0.4 AND 7 AND length(text) < 21 * seconds;

-- Then all of it, people three times as often: 40 minutes of one core.
FIT MODEL tiny_stage2 USING tiny_stage1
OPTIONS (epochs=20, batch_size=10, learning_rate=1e-3, warmup=0.03, time_limit=2400,
         speed_perturbation=TRUE, noise_perturbation=TRUE, spec_augment=TRUE,
         feature_cache=0,
         validation='SELECT audio, text FROM s.real WHERE split = ''train''
                     AND source = ''librispeech'' AND rowid % 14 = 0')
AS SELECT audio, text FROM s.speech
WHERE NOT held_out AND seconds BETWEEN 0.4 AND 11 AND length(text) < 21 * seconds
UNION ALL SELECT audio, text FROM s.speech
WHERE NOT held_out AND family = 'kokoro' AND seconds BETWEEN 0.4 AND 11
  AND length(text) < 21 * seconds
UNION ALL SELECT audio, text FROM s.real, (VALUES (1), (2), (3))
WHERE split = 'train' AND seconds < 17 AND length(text) < 21 * seconds
  AND NOT (source = 'librispeech' AND real.rowid % 14 = 0);

-- Once more the same on two cores: 25 minutes.
FIT MODEL tiny USING tiny_stage2
OPTIONS (epochs=20, batch_size=10, learning_rate=1e-3, warmup=0.03, time_limit=1450,
         speed_perturbation=TRUE, noise_perturbation=TRUE, spec_augment=TRUE,
         feature_cache=0,
         validation='SELECT audio, text FROM s.real WHERE split = ''train''
                     AND source = ''librispeech'' AND rowid % 14 = 0')
AS SELECT audio, text FROM s.speech
WHERE NOT held_out AND seconds BETWEEN 0.4 AND 11 AND length(text) < 21 * seconds
UNION ALL SELECT audio, text FROM s.speech
WHERE NOT held_out AND family = 'kokoro' AND seconds BETWEEN 0.4 AND 11
  AND length(text) < 21 * seconds
UNION ALL SELECT audio, text FROM s.real, (VALUES (1), (2), (3))
WHERE split = 'train' AND seconds < 17 AND length(text) < 21 * seconds
  AND NOT (source = 'librispeech' AND real.rowid % 14 = 0);

EXPORT MODEL tiny TO 'exported';
