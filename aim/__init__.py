"""aim: an identity sync daemon for Matrix. The directory decides, the homeserver follows."""

__version__ = "0.1.0"
