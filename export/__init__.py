"""Exports models. An export needs torch and timm, and the gateway imports nothing of this package.

This file imports nothing, since some modules of the package run without torch: those that write Triton's configuration
and build its plans.
"""
