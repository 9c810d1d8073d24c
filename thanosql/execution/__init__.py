"""A parsed statement in; relations, and changes of the database, out."""
