"""From facts to a verdict: pure functions without query, network or clock."""
