"""Policies as people keep them: rule sets with revisions, and waivers."""
