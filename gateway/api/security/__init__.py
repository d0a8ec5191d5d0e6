"""Access control: API keys, scopes and the middleware that checks them."""
