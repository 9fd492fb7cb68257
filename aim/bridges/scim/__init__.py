"""The SCIM bridge: others push their directory to us by SCIM 2.0 (RFC 7643, 7644); we read what they push."""
