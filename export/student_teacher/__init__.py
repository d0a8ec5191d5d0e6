"""A detector that is trained: a student network that predicts, on OK images alone, what a frozen teacher sees."""
