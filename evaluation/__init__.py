"""How well the gateway tells good from bad: a data set through the service's own code, and figures to look at."""
