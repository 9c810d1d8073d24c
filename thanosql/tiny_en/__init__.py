"""The base `TinyEn`: its files in `model/`, and beside it the recipe they come from."""
