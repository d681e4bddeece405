"""The node agent: a small kubelet."""
