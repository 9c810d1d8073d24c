"""The PEP 249 surface: SQL and parameters in, rows out."""
