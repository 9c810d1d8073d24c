"""Scores of frames in, text out."""
