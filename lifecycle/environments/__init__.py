"""Environments and their slots: where a promoted image goes, and what each place holds now."""
