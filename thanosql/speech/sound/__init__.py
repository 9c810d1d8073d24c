"""Audio values in, waveforms and the facts of their headers out."""
