"""N-gram language models: texts in, the probability of a word after others out.

building.py      a column of texts to the files of a model, and its perplexity
counting.py      texts to n-grams, and how often each is there
kneser_ney.py    counts to probabilities
arpa.py          the ARPA format, which other programs read and write
files.py         the files of a stored model
model.py         a stored model, as a search asks it

Words are those of `thanosql.speech.words.words_of`: who asks a model for a word gives
it that form first.
"""
