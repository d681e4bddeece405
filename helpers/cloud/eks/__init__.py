"""EKS with life: clusters, their nodes, and who may use them; ``services/eks.py`` is its API."""
