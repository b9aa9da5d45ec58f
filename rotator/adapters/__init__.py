"""All input and output, one port each; adapters do not know each other (`atomic` is shared by the file ones)."""
