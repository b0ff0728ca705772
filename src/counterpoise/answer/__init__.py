"""One model from a data set without a choice to make: what is trained, at which rate, and the page that says why."""
