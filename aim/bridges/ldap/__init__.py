"""The LDAP bridge: a directory straight from a server (OpenLDAP, 389ds, FreeIPA, Active Directory)."""
