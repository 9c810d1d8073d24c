"""Audio values in, waveforms and what headers say out."""
