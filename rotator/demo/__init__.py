"""Rotator at work, to be watched: the real daemon against embedded authorization servers, with a consumer beside it."""

from rotator.demo.play import LIFETIME_SECONDS, run

__all__ = ["LIFETIME_SECONDS", "run"]
