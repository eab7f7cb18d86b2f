"""Clusters, what their namespaces are bound to, and the secrets with which they ask and report."""
