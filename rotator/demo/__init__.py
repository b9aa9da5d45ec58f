"""Rotator at work, to be watched: the real daemon against embedded authorization servers, with a consumer beside it."""

from rotator.demo.play import run

__all__ = ["run"]
