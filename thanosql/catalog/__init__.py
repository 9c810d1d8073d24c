"""Bases and datasets that have a name here, with the files of those that ship."""
