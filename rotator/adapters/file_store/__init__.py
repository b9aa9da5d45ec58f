"""The store in files: one JSON file per credential in a directory that one process owns."""

from rotator.adapters.file_store.store import FileStore

__all__ = ["FileStore"]
