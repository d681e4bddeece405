"""Kubernetes: a control plane, nodes, and the ways to them."""
