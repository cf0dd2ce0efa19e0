"""Protocols that come with tlkit, one file per callback."""
