"""Tests; a package, so that ids can name entry points in it."""
