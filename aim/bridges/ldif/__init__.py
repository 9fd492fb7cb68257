"""The LDIF bridge: a directory from a file that some other program exported."""
