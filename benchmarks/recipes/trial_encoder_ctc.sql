-- A CTC head on WhisperTinyEn's encoder, tried in place of TinyEn; it did not become it
-- (docs/experiments.md): thanosql models.db < trial_encoder_ctc.sql, after the views of
-- recipe.sql, and splice.py with the model TinyEn.

ATTACH 'speech.db' AS s;
CREATE VIEW s.varied AS
SELECT audio, text, family, number, seconds FROM learned
UNION ALL
SELECT audio, text, 'spliced', number, seconds FROM spliced
WHERE length(text) < 21 * seconds;
-- Of the most frequent families one half now, the other half later.
CREATE VIEW s.halves AS
SELECT audio, text, iif(family IN ('hibari', 'espeak', 'spliced'), number % 2, 2) AS half
FROM varied, (VALUES (1), (2)) AS again
WHERE again.column1 <= CASE WHEN family IN ('people', 'kokoro') THEN 2 ELSE 1 END
  AND (family <> 'people' OR seconds < 17);

-- 45 minutes of one core.
BUILD MODEL w1 USING WhisperTinyEn
OPTIONS (objective='ctc', epochs=20, batch_size=8, learning_rate=3e-4, warmup=0.05,
         time_limit=2700, speed_perturbation=TRUE, noise_perturbation=TRUE,
         feature_cache=0, validation='SELECT audio, text FROM s.validation')
AS SELECT audio, text FROM s.halves WHERE half <> 1;

-- 52 minutes of one core. The average of both is what was measured at last.
FIT MODEL w2 USING w1
OPTIONS (epochs=20, batch_size=8, learning_rate=2e-4, warmup=0.03, time_limit=3120,
         speed_perturbation=TRUE, noise_perturbation=TRUE, spec_augment=TRUE,
         feature_cache=0, validation='SELECT audio, text FROM s.validation')
AS SELECT audio, text FROM s.halves WHERE half <> 0;
EXPORT MODEL w1 TO 'exported_w1';
EXPORT MODEL w2 TO 'exported_w2';

BUILD MODEL books USING NGram OPTIONS (order=3) AS SELECT text FROM s.books;
