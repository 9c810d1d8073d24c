"""Models and the history of their training as rows of the database."""
