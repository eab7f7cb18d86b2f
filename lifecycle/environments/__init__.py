"""Rows of environments and slots: the promotion path of a team, and what each environment holds."""
