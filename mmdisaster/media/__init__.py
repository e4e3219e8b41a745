"""Frames and sound out of media files, and small files to try them on."""
