"""A parsed statement in; relations, and what happens to the database, out."""
