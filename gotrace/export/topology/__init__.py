"""A topology as a picture and a page."""
