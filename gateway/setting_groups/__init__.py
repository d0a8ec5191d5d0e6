"""The settings by what they concern, each a class that `gateway.settings.Settings` inherits from."""
