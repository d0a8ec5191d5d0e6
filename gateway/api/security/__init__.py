"""Who may call what: API keys and the middleware that asks for them."""
