"""The pages: forms, page queries, views; each calls one service and renders."""
