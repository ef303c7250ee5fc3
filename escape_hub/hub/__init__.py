"""What runs in the hub process, the only one that sees refresh tokens and the client secret."""
