"""Microsoft Graph: Entra ID becomes a Directory."""
