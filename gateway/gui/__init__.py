"""The dialect of the desktop GUI, under ``/gui``: a translation onto the services of the gateway.

It is an application of its own beside the API, with its own routes, statuses and answers. Nothing below this room knows
of it.
"""
