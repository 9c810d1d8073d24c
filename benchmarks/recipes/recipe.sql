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

CREATE VIEW s.learned AS
SELECT audio, text, family, number, seconds FROM speech
WHERE NOT held_out AND seconds BETWEEN 0.4 AND 11 AND length(text) < 21 * seconds
UNION ALL
SELECT audio, text, 'people', rowid, seconds FROM real
WHERE split = 'train' AND length(text) < 21 * seconds
  AND NOT (source = 'librispeech' AND rowid % 14 = 0);
CREATE VIEW s.validation AS
SELECT audio, text FROM real
WHERE split = 'train' AND source = 'librispeech' AND rowid % 14 = 0;

-- Short sentences without noise, until letters come right: 20 minutes of one core.
BUILD MODEL tiny_1 USING 'base'
OPTIONS (epochs=3, batch_size=10, learning_rate=1e-3, warmup=0.05, time_limit=1200,
         speed_perturbation=TRUE, feature_cache=0,
         validation='SELECT audio, text FROM s.validation')
AS SELECT audio, text FROM s.learned WHERE family <> 'people' AND seconds < 7;

-- All of it, people three times as often, with noises and masks: 40 minutes of one core,
-- then 25 of two.
CREATE VIEW s.mixed AS
SELECT audio, text FROM learned, (VALUES (1), (2), (3)) AS again
WHERE again.column1 <= CASE family WHEN 'people' THEN 3 WHEN 'kokoro' THEN 2 ELSE 1 END
  AND (family <> 'people' OR seconds < 17);
FIT MODEL tiny_2 USING tiny_1
OPTIONS (epochs=20, batch_size=10, learning_rate=1e-3, warmup=0.03, time_limit=2400,
         speed_perturbation=TRUE, noise_perturbation=TRUE, spec_augment=TRUE,
         feature_cache=0, validation='SELECT audio, text FROM s.validation')
AS SELECT audio, text FROM s.mixed;
FIT MODEL tiny_3 USING tiny_2
OPTIONS (epochs=20, batch_size=10, learning_rate=1e-3, warmup=0.03, time_limit=1450,
         speed_perturbation=TRUE, noise_perturbation=TRUE, spec_augment=TRUE,
         feature_cache=0, validation='SELECT audio, text FROM s.validation')
AS SELECT audio, text FROM s.mixed;

-- Masks taught less than they hid: the same without, on one core, 17 and 14 minutes.
FIT MODEL tiny_4 USING tiny_3
OPTIONS (epochs=20, batch_size=10, learning_rate=1e-3, warmup=0.03, time_limit=1000,
         speed_perturbation=TRUE, noise_perturbation=TRUE,
         feature_cache=0, validation='SELECT audio, text FROM s.validation')
AS SELECT audio, text FROM s.mixed;
FIT MODEL tiny_5 USING tiny_4
OPTIONS (epochs=20, batch_size=10, learning_rate=1e-3, warmup=0.03, time_limit=840,
         speed_perturbation=TRUE, noise_perturbation=TRUE,
         feature_cache=0, validation='SELECT audio, text FROM s.validation')
AS SELECT audio, text FROM s.mixed;

-- The voices of hibari were learned, people were not: fewer of those, more of these:
-- 54 minutes of two cores.
FIT MODEL tiny_6 USING tiny_5
OPTIONS (epochs=20, batch_size=10, learning_rate=1e-3, warmup=0.03, time_limit=3240,
         speed_perturbation=TRUE, noise_perturbation=TRUE,
         feature_cache=0, validation='SELECT audio, text FROM s.validation')
AS SELECT audio, text FROM s.learned, (VALUES (1), (2), (3), (4), (5), (6)) AS again
WHERE again.column1 <= CASE family WHEN 'people' THEN 6 WHEN 'kokoro' THEN 4 ELSE 1 END
  AND (family <> 'hibari' OR number % 3 = 0);

-- By now sentences are known by heart (of people learned from CER 0.065, of other sentences
-- of theirs 0.24): masks, 45 minutes of one core.
FIT MODEL tiny_7 USING tiny_6
OPTIONS (epochs=20, batch_size=10, learning_rate=1e-3, warmup=0.03, time_limit=2700,
         speed_perturbation=TRUE, noise_perturbation=TRUE, spec_augment=TRUE,
         feature_cache=0, validation='SELECT audio, text FROM s.validation')
AS SELECT audio, text FROM s.learned, (VALUES (1), (2), (3), (4), (5), (6)) AS again
WHERE again.column1 <= CASE family WHEN 'people' THEN 6 WHEN 'kokoro' THEN 4 ELSE 1 END
  AND (family <> 'hibari' OR number % 3 = 1);

-- For splice.py, which tells by tiny_6 where words are.
CREATE VIEW s.people AS
SELECT audio, text, CAST(speaker AS TEXT) AS speaker FROM real
WHERE split = 'train' AND length(text) < 21 * seconds
  AND NOT (source = 'librispeech' AND rowid % 14 = 0);
EXPORT MODEL tiny_6 TO 'aligned';
