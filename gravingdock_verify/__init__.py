"""`gravingdock-verify`: checks an export of the audit log offline. Standard library, and one library for Ed25519."""
