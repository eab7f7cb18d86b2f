"""Sign-in with OpenID Connect providers: who may come in, and which groups and roles their claims give."""
