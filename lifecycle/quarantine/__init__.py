"""Images by digest that nobody may promote or build on, with the images built on them."""
