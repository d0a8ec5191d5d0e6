"""Exact nearest neighbours in a memory bank: the projected search, FAISS, scikit-learn."""
