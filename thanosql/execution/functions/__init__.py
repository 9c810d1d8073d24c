"""The SQL functions: values of one row in, a value out; none knows the database."""
