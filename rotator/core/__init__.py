"""The pure part: what a credential is, what an answer means, what is due. No clock, file, socket or log."""
