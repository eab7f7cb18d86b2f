"""Who is told what, and how: the list of notices, mail, webhooks and chat."""
