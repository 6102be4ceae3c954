"""Studies: lists of training runs that can be stopped and resumed, and what is made of them."""
