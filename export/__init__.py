"""Builds what is served: an export needs torch and timm, and nothing of it is imported at serving time.

Nothing is imported here either: Triton's configuration and plans are made, by modules of this package, without torch.
"""
