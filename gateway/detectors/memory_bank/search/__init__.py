"""Exact nearest neighbours: the projected search, FAISS, scikit-learn."""
