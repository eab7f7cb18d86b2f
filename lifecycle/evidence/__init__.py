"""What is known of an image, as typed facts: open findings, risk, platforms; one definition of each."""
